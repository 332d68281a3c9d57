"""Extensions and transforms that have names, so that each can be added, changed and dropped.

``extensions`` and every key that is or ends in ``transforms`` hold a list of components, or a
dict of them by name. In a file that imports another, and on the command line,
``extensions/lr_curve: null`` drops one and ``dataset/train/transforms/flip: {type: VerticalFlip}``
adds one. An added component comes last, or in front of another by ``before: NAME``; ``Normalize``
stays the last transform.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from foldsmith.config.references import Key, is_reference, parse_reference, path_text
from foldsmith.errors import ConfigError
from foldsmith.utils.suggest import did_you_mean

# Type that a build gives to a dict of named components, which it turns into a list.
LIST_TYPE: Final = "list of named components"

_BEFORE: Final = "before"
_LAST: Final = "Normalize"


def holds_names(path: Sequence[Key], node: Any) -> bool:
    """Return whether the value at a path is a dict of components by name."""
    if not isinstance(node, Mapping) or "type" in node or not path:
        return False
    name = str(path[-1])
    return list(path) == ["extensions"] or name == "transforms" or name.endswith("_transforms")


def in_order(node: Mapping[str, Any], path: Sequence[Key]) -> dict[str, Any]:
    """Return named components in the order in which they act, without the dropped ones.

    Args:
        node: Name -> component, null for a dropped one.
        path: Where they stand, for messages.

    Raises:
        ConfigError: ``before`` names no other component.
    """
    names = [name for name, item in node.items() if item is not None]
    if "transforms" in str(path[-1]):
        names.sort(key=lambda name: _type_of(node[name]) == _LAST)
    for name in list(names):
        item = node[name]
        if not isinstance(item, Mapping) or _BEFORE not in item:
            continue
        names.remove(name)
        if item[_BEFORE] not in names:
            raise ConfigError(
                f"{path_text([*path, name])}: {_BEFORE}: there is no {item[_BEFORE]}"
                f"{did_you_mean(str(item[_BEFORE]), names)}"
            )
        names.insert(names.index(item[_BEFORE]), name)
    return {name: _without_before(node[name]) for name in names}


def as_calls(node: Any, path: Sequence[Key] = ()) -> Any:
    """Return a tree whose dicts of named components are built as lists."""
    if isinstance(node, list):
        return [as_calls(child, [*path, k]) for k, child in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    content = {key: as_calls(child, [*path, key]) for key, child in node.items()}
    return {"type": LIST_TYPE, **content} if holds_names(path, node) else content


def listed(**components: Any) -> list[Any]:
    """Return named components as a list, for :data:`LIST_TYPE`."""
    return list(components.values())


def as_lists(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tree whose dicts of named components are lists, for comparisons.

    References into them follow: names change nothing that is computed.
    """
    result: dict[str, Any] = _as_lists(tree, [], tree)
    return result


def _as_lists(node: Any, path: Sequence[Key], tree: Mapping[str, Any]) -> Any:
    if is_reference(node):
        return _reference_to_list(node, path, tree)
    if isinstance(node, list):
        return [_as_lists(child, [*path, k], tree) for k, child in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    content = {key: _as_lists(child, [*path, key], tree) for key, child in node.items()}
    return list(content.values()) if holds_names(path, node) else content


def _reference_to_list(text: str, at: Sequence[Key], tree: Mapping[str, Any]) -> str:
    """Return a reference with the places of named components instead of their names."""
    try:
        target, attributes = parse_reference(text, at)
    except ValueError:
        return text  # the check reports it
    node: Any = tree
    places: list[Key] = []
    for depth, key in enumerate(target):
        named = holds_names(target[:depth], node) and key in node
        places.append(list(node).index(key) if named else key)
        node = node.get(key) if isinstance(node, Mapping) else None
    if places == target:
        return text
    return f"@/{'.'.join([path_text(places), *attributes])}"


def _type_of(item: Any) -> Any:
    return item.get("type") if isinstance(item, Mapping) else None


def _without_before(item: Any) -> Any:
    if not isinstance(item, Mapping):
        return item
    return {key: value for key, value in item.items() if key != _BEFORE}
