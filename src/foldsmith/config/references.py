"""Paths inside an experiment: ``@/loader/train`` and ``@../model.backbone``.

The grammar is that of pytorch-pfn-extras' Config System, repeated here because its parser is
private and because a check must follow a reference without building anything.
"""

from collections.abc import Iterator, Sequence
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


def private_attributes(tree: Any, path: Sequence[Key] = ()) -> Iterator[tuple[str, str]]:
    """Yield path and text of the references to attributes that begin with an underscore.

    By these a reference would reach from a value into Python itself, as in
    ``@/project.__class__``.
    """
    if isinstance(tree, dict | list):
        for key, child in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from private_attributes(child, [*path, key])
    elif is_reference(tree):
        _, *attributes = tree.rsplit("/", 1)[-1].split(".")
        if any(name.startswith("_") for name in attributes):
            yield path_text(path), tree


def nodes_of(node: Any, path: Sequence[Key] = ()) -> Iterator[tuple[list[Key], Any]]:
    """Yield path and value of a node of the tree and of each node below it."""
    yield list(path), node
    children: list[tuple[Key, Any]] = []
    if isinstance(node, dict):
        children = list(node.items())
    elif isinstance(node, list):
        children = list(enumerate(node))
    for key, child in children:
        yield from nodes_of(child, [*path, key])


def walk_path(tree: Any, path: Sequence[Key]) -> Any:
    """Return the value at ``path``.

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
