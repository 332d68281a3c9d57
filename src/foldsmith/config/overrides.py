"""Values that the command line overrides, as ``PATH=VALUE``."""

import reprlib
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
    path, equals, value_text = text.partition("=")
    keys = [key for key in path.strip().split("/") if key]
    if not equals or not keys:
        raise ConfigError(f"override {text!r}: must be PATH=VALUE, as in globals/max_epoch=2")
    # "@" cannot start a plain YAML scalar, and a reference is the only thing it can be here.
    reference = value_text.strip().startswith("@")
    value = value_text.strip() if reference else parse_yaml(value_text, f"override {text!r}")
    node: Any = tree
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        where = "/".join(keys[:depth]) or "the file"
        if isinstance(node, list):
            if not key.isdigit() or int(key) >= len(node):
                raise ConfigError(
                    f"override {text!r}: {where} is a list of {len(node)}, counted from 0"
                )
            index: Any = int(key)
        elif isinstance(node, dict):
            index = key
            added = holds_names(keys[:depth], node) and value is not None
            if key not in node and not (last and ("type" in node or added)):
                raise ConfigError(
                    f"override {text!r}: no key {key} in {where}"
                    + did_you_mean(key, (str(name) for name in node))
                )
        else:
            raise ConfigError(
                f"override {text!r}: {where} is {reprlib.repr(node)}, which holds no keys"
            )
        if last:
            node[index] = value
        else:
            node = node[index]
