"""A metric and its options as text: ``FBeta(beta=2, average=macro)``."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from foldsmith.errors import ConfigError

_CALL = re.compile(r"\s*(?P<name>[^\s()]+)\s*(?:\((?P<options>.*)\))?\s*", re.DOTALL)
_KEY = re.compile(r"(^|,)\s*(\w+)\s*=\s*")


def split_metric(text: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the options of a metric.

    Args:
        text: A name, or a name with options in brackets, whose values are those of YAML.

    Raises:
        ConfigError: It is neither.
    """
    found = _CALL.fullmatch(text)
    options: object = {}
    if found is not None and found["options"]:
        try:
            options = yaml.safe_load("{" + _KEY.sub(r"\1 \2: ", found["options"]) + "}")
        except yaml.YAMLError:
            options = None
    if found is None or not isinstance(options, dict) or None in options.values():
        raise ConfigError(
            f"metric: {text!r} is neither a name nor a name with options, as in FBeta(beta=2)"
        )
    return found["name"], options


def joined_metric(name: str, options: Mapping[str, Any]) -> str:
    """Return the text of a metric; inverse of :func:`split_metric`."""
    if not options:
        return name
    return f"{name}({', '.join(f'{key}={_value_text(value)}' for key, value in options.items())})"


def _value_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return (
            f"{{{', '.join(f'{_key(key)}: {_value_text(each)}' for key, each in value.items())}}}"
        )
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value_text, value))}]"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value)


def _key(name: Any) -> str:
    """Return a name for YAML, in quotes where it is not plain."""
    text = str(name)
    return text if re.fullmatch(r"[A-Za-z_]\w*", text) else json.dumps(text, ensure_ascii=False)


# Text of each kind of option.
KINDS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    str: "a name or a list of numbers",
}


def same_kind(value: Any, default: Any) -> bool:
    """Return whether a value may take the place of another one."""
    if isinstance(default, str):
        return isinstance(value, str | list | tuple | Mapping)
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return number and (isinstance(value, int) or isinstance(default, float))
