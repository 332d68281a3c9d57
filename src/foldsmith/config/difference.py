"""Comparing two resolved experiments."""

from typing import Any

# Keys that change where and how fast an experiment runs, not what comes out of it.
_FREE_KEYS = ("globals/val_fold", "globals/output_path", "globals/device", "num_workers")


def differing_keys(first: Any, second: Any) -> list[str]:
    """Return the paths at which two trees differ, sorted, those without effect left out."""
    one, other = _flatten(first), _flatten(second)
    return sorted(
        key
        for key in one.keys() | other.keys()
        if not key.endswith(_FREE_KEYS) and one.get(key) != other.get(key)
    )


def _flatten(node: Any, path: str = "") -> dict[str, Any]:
    if isinstance(node, (dict, list)) and node:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        return {k: v for key, child in items for k, v in _flatten(child, f"{path}/{key}").items()}
    return {path.removeprefix("/"): node}
