"""Reading and writing YAML: safe, with numbers such as ``1e-4`` read as numbers."""

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from foldsmith.errors import ConfigError, one_line

# A recipe has 6 levels; deeper lists and dicts are damage, and would exceed recursion limits.
_MAX_DEPTH = 100


class _Rules(SafeConstructor, Resolver):
    """What each loader here does: refuse a key given twice, and nesting without end."""

    _depth = 0

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (list, dict)):
                raise yaml.MarkedYAMLError(
                    problem="a key must be a plain name", problem_mark=key_node.start_mark
                )
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key!r} stands here twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def descend_resolver(self, current_node: yaml.Node | None, current_index: Any) -> None:
        """Count the levels: every parser calls this before it reads a node."""
        self._depth += 1
        if current_node is not None and self._depth > _MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"lists and dicts are nested more than {_MAX_DEPTH} deep",
                problem_mark=current_node.start_mark,
            )

    def ascend_resolver(self) -> None:
        """Count the levels: every parser calls this after a node."""
        self._depth -= 1


# YAML 1.1 reads "2e-5" (no dot) as text; everyone who writes a learning rate means a number.
_Rules.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)

# YAML 1.1 reads "010" as an octal number; here it is the name of an experiment.
_Rules.yaml_implicit_resolvers = {
    first: [
        ("tag:yaml.org,2002:str", re.compile(r"^0[0-9]+$")),
        *_Rules.yaml_implicit_resolvers[first],
    ]
    if first == "0"
    else resolvers
    for first, resolvers in _Rules.yaml_implicit_resolvers.items()
}


class _Loader(_Rules, yaml.SafeLoader):
    """A safe loader that refuses a key given twice; ``2e-5`` is a float, ``000`` a name."""


class _FastLoader(_Rules, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The same with libyaml's parser, ten times as fast, where PyYAML was built with it."""


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file.

    Args:
        path: The file.

    Raises:
        ConfigError: The file is missing, unreadable, not UTF-8 or not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {one_line(error)}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, origin: str) -> Any:
    """Return the value that a piece of YAML stands for.

    Args:
        text: YAML.
        origin: Where it stands; named in the error.

    Raises:
        ConfigError: ``text`` is not YAML.
    """
    try:
        value = _load(text)
        if _holds_itself(value, set()):
            raise ConfigError(f"{origin}: an alias (*name) stands inside its own anchor (&name)")
        return value
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{origin}:{mark.line + 1}" if mark is not None else origin
        raise ConfigError(f"{place}: {one_line(error.problem)}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{origin}: not valid YAML: {one_line(error)}") from None


def _load(text: str) -> Any:
    """Return the value of a text; errors are those of PyYAML's own parser, which explains more."""
    # libyaml leaves out U+FEFF inside a text, and permits tabs elsewhere.
    if "\ufeff" not in text and "\t" not in text:
        with suppress(yaml.YAMLError, ValueError):
            return yaml.load(text, Loader=_FastLoader)  # a SafeLoader
    return yaml.load(text, Loader=_Loader)  # a SafeLoader


def _holds_itself(node: Any, above: set[int]) -> bool:
    """Return whether a list or dict contains itself, which YAML's aliases make possible."""
    if not isinstance(node, (dict, list)):
        return False
    if id(node) in above:
        return True
    children = node.values() if isinstance(node, dict) else node
    return any(_holds_itself(child, above | {id(node)}) for child in children)


class _Dumper(yaml.SafeDumper):
    """Writes what :class:`_Loader` reads as the same value: ``1e5`` of a text in quotes."""

    yaml_implicit_resolvers = _Rules.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        """Write every value out: anchors would hide the values of an experiment."""
        return True

    def text(self, value: str) -> yaml.ScalarNode:
        """Return a node for a text; line breaks other than LF are kept in double quotes alone."""
        style = '"' if any(mark in value for mark in "\r\x85\u2028\u2029\ufeff") else None
        return self.represent_scalar("tag:yaml.org,2002:str", value, style)


_Dumper.add_representer(str, _Dumper.text)


def dump_yaml(value: Any, compact: bool = False) -> str:
    """Return ``value`` (plain dicts, lists and scalars) as YAML, keys in their order.

    Args:
        value: The value.
        compact: Write lists and dicts that hold scalars alone in braces, as in
            ``{type: HorizontalFlip, p: 0.5}``.
    """
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
        default_flow_style=None if compact else False,
    )
    return text


def inline_yaml(value: Any) -> str:
    """Return ``value`` (plain dicts, lists and scalars) as one line of YAML.

    Raises:
        yaml.YAMLError: It is something else.
    """
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, default_flow_style=True, width=float("inf")
    )
    # After a bare scalar comes the end of the document.
    return text.removesuffix("...\n").strip()


def scalar_yaml(value: object) -> str:
    """Return a value as YAML on one line, letters beyond ASCII as they are."""
    text: str = yaml.dump(
        [value],
        Dumper=_Dumper,
        default_flow_style=True,
        # Only double quotes hold a line break without one.
        default_style='"' if isinstance(value, str) and "\n" in value else None,
        allow_unicode=True,
        width=float("inf"),
    )
    return text.strip()[1:-1]


def numbers_yaml(values: Iterable[float]) -> str:
    """Return numbers as a list on one line, with all their digits, whole ones without a point."""
    return str([int(v) if v == int(v) and abs(v) < 1e15 else v for v in values])
