"""Values that the command line overrides, as ``PATH=VALUE``."""

import reprlib
from collections.abc import Sequence
from typing import Any

from foldsmith.config.named_items import holds_names
from foldsmith.errors import ConfigError
from foldsmith.utils.suggest import did_you_mean
from foldsmith.utils.yaml_io import parse_yaml


def apply_override(tree: dict[str, Any], text: str) -> None:
    """Set the value of one ``PATH=VALUE`` in the tree.

    The path must exist, except for the last key of a part with a ``type:``, which may be an
    argument that the file leaves at its default (its name is checked with all others), and for the
    name of an added extension or transform.

    Raises:
        ConfigError: The text has no ``=``, the value is not YAML, or the path fits nothing.
    """
    keys, value = _parsed(text)
    node: Any = tree
    for depth in range(len(keys) - 1):
        node = node[_place(node, keys, depth, value, text)]
    node[_place(node, keys, len(keys) - 1, value, text)] = value


def _parsed(text: str) -> tuple[list[str], Any]:
    """Return the keys of the path, and the value.

    Raises:
        ConfigError: The text has no ``=``, no path, or the value is not YAML.
    """
    path, equals, value_text = text.partition("=")
    keys = [key for key in path.strip().split("/") if key]
    if not equals or not keys:
        raise ConfigError(f"override {text!r}: must be PATH=VALUE, as in globals/max_epoch=2")
    # "@" cannot start a plain YAML scalar, and a reference is the only thing it can be here.
    if value_text.strip().startswith("@"):
        return keys, value_text.strip()
    return keys, parse_yaml(value_text, f"override {text!r}")


def _place(node: Any, keys: Sequence[str], depth: int, value: Any, text: str) -> str | int:
    """Return the key or the number by which a node holds the next part of a path.

    Args:
        node: The node at ``keys[:depth]``.
        keys: The whole path.
        depth: Number of keys that lead to the node.
        value: The value to set at the end of the path.
        text: The override, for errors.

    Raises:
        ConfigError: The node has no such part, and it may not be added.
    """
    key, where = keys[depth], "/".join(keys[:depth]) or "the file"
    if isinstance(node, list):
        if not key.isdigit() or int(key) >= len(node):
            raise ConfigError(
                f"override {text!r}: {where} is a list of {len(node)}, counted from 0"
            )
        return int(key)
    if not isinstance(node, dict):
        raise ConfigError(
            f"override {text!r}: {where} is {reprlib.repr(node)}, which holds no keys"
        )
    is_last = depth == len(keys) - 1
    added = holds_names(list(keys[:depth]), node) and value is not None
    if key not in node and not (is_last and ("type" in node or added)):
        raise ConfigError(
            f"override {text!r}: no key {key} in {where}"
            + did_you_mean(key, (str(name) for name in node))
        )
    return key
