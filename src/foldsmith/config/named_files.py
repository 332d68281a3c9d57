"""The files that the components of an experiment are made from."""

from collections.abc import Iterator, Mapping
from typing import Any

from foldsmith.config.references import (
    Key,
    is_reference,
    nodes_of,
    parse_reference,
    path_text,
    walk_path,
)

# Type -> its arguments that take the path of a file, relative to the project folder.
FILE_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "ImageModel": ("pretrained",),
    "PretrainedBackbone": ("pretrained",),
}


def named_files(tree: Mapping[str, Any]) -> dict[str, str]:
    """Return the files that an experiment's parts are made from.

    Args:
        tree: The experiment after imports and overrides.

    Returns:
        Path of the argument, as in ``model/pretrained`` -> file, relative to the project.
    """
    found = {}
    for path, node in nodes_of(tree):
        if isinstance(node, dict) and isinstance(node.get("type"), str):
            for key, value in files_of_call(node, path, tree):
                found[path_text([*path, key])] = value
    return found


def files_of_call(
    node: Mapping[str, Any], path: list[Key], tree: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield argument and file of one ``{type: NAME, argument: ...}``, references followed."""
    for key in sorted(node.keys() & set(FILE_ARGUMENTS.get(node["type"], ()))):
        value = node[key]
        if is_reference(value):
            try:
                target, attributes = parse_reference(value, [*path, key])
                value = None if attributes else walk_path(tree, target)
            except (KeyError, ValueError):
                value = None  # reported as a broken reference
        if isinstance(value, str):
            yield key, value
