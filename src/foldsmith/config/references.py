"""Paths inside an experiment: ``@/loader/train`` and ``@../model.backbone``.

The grammar is that of pytorch-pfn-extras' Config System, repeated here because its parser is
private and because a check must follow a reference without building anything.
"""

from collections.abc import Sequence
from typing import Any

Key = str | int


def is_reference(value: object) -> bool:
    """Return whether a value of the tree is a reference."""
    return isinstance(value, str) and value.startswith("@")


def parse_reference(text: str, at: Sequence[Key]) -> tuple[list[Key], list[str]]:
    """Split a reference into the path it means, from the root, and the attributes behind it.

    Args:
        text: The reference, ``@`` included.
        at: Path of the value that holds it.

    Raises:
        ValueError: The reference climbs above the root.
    """
    text = text[1:].removeprefix("!")
    absolute = text.startswith("/")
    *folders, last = text.removeprefix("/").split("/")
    last, *attributes = last.split(".") if last not in {"", ".", ".."} else [last]
    path: list[Key] = [] if absolute else list(at[:-1])
    for part in [*folders, last]:
        if part in {"", "."}:
            continue
        if part == "..":
            if not path:
                raise ValueError("climbs above the root")
            path.pop()
        else:
            path.append(int(part) if part.lstrip("-").isdigit() else part)
    return path, attributes


def walk_path(tree: Any, path: Sequence[Key]) -> Any:
    """Return what stands at ``path``.

    Raises:
        KeyError: With the first part of the path that is missing.
    """
    node = tree
    for key in path:
        try:
            node = node[key]
        except (KeyError, IndexError, TypeError):
            raise KeyError(key) from None
    return node


def path_text(path: Sequence[Key]) -> str:
    """Return a path as it is written in overrides and messages."""
    return "/".join(str(key) for key in path)
