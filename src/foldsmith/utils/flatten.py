"""A resolved experiment as paths and values, to compare it with another."""

from typing import Any


def flatten(node: Any, path: str = "") -> dict[str, Any]:
    """Return path such as ``loader/train/batch_size`` -> value; empty containers stay values."""
    if isinstance(node, (dict, list)) and node:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        return {k: v for key, child in items for k, v in flatten(child, f"{path}/{key}").items()}
    return {path.removeprefix("/"): node}
