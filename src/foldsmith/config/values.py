"""Plain values of an experiment against the type hints of the callable that takes them."""

import functools
import inspect
import json
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from foldsmith.config.references import is_reference
from foldsmith.errors import one_line


def value_problems(callable_: Callable[..., Any], given: Mapping[str, Any]) -> Iterator[str]:
    """Yield the arguments whose plain values contradict the callable's type hints.

    References and values that contain a ``type:`` are built later, so nothing can be said about
    them here; nor about parameters without a hint, or with one that pydantic cannot read.

    Args:
        callable_: A class or function of the registry.
        given: Name of an argument -> its value in the experiment file.
    """
    adapters = _adapters(callable_)
    for name in sorted(given.keys() & adapters.keys()):
        value = given[name]
        if not _is_plain(value):
            continue
        try:
            # As JSON: a list may be a tuple, but "3" does not count as a number, nor true as an
            # integer.
            adapters[name].validate_json(json.dumps(_whole(value)), strict=True)
        except ValidationError as error:
            problem = error.errors()[0]
            place = "/".join([name, *(str(key) for key in problem["loc"] if isinstance(key, int))])
            yield f"{place}: {_reason(error)}, not {json.dumps(value, ensure_ascii=False)[:60]}"
        except (TypeError, ValueError):  # no JSON: a date, say, which YAML reads
            yield f"{name}: cannot be {value!r}"


def _is_plain(value: Any) -> bool:
    """Return whether a value holds neither references nor calls."""
    if isinstance(value, dict):
        return "type" not in value and all(_is_plain(each) for each in value.values())
    if isinstance(value, list):
        return all(_is_plain(each) for each in value)
    return not is_reference(value)


def _whole(value: Any) -> Any:
    """Return a value with 10.0 as 10, which is as good an integer."""
    if isinstance(value, dict):
        return {key: _whole(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _reason(error: ValidationError) -> str:
    """Return what would be accepted, in a few words."""
    reasons = dict.fromkeys(_in_words(problem) for problem in error.errors())
    return "must be " + " or ".join(reasons)


def _in_words(problem: Mapping[str, Any]) -> str:
    kinds = {
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "finite_number": "a finite number",
        "string_type": "a text",
        "bool_type": "true or false",
        "list_type": "a list",
        "tuple_type": "a list",
        "dict_type": "keys and values",
        "none_required": "null",
        "callable_type": "a {type: ...} or a reference",
        "needs_python_object": "a {type: ...} or a reference",
        "missing": "a longer list",
        "too_long": "a shorter list",
        "too_short": "a longer list",
    }
    kind = str(problem["type"])
    if kind == "literal_error":
        return str(problem["ctx"]["expected"])
    return kinds.get(kind, one_line(problem["msg"]))


@functools.cache
def _adapters(callable_: Callable[..., Any]) -> dict[str, TypeAdapter[Any]]:
    """Return a validator for each parameter with a type hint other than Any."""
    target = callable_.func if isinstance(callable_, functools.partial) else callable_
    if inspect.isclass(target):
        target = target.__init__
    try:
        hints = typing.get_type_hints(target)
        parameters = inspect.signature(callable_).parameters
    except (NameError, TypeError, ValueError, AttributeError):
        return {}
    found: dict[str, TypeAdapter[Any]] = {}
    for name, parameter in parameters.items():
        hint = hints.get(name, Any)
        if hint is Any or parameter.kind not in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        ):
            continue
        if parameter.default is None:
            hint = hint | None if isinstance(hint, type) else typing.Optional[hint]  # noqa: UP045
        try:
            config = ConfigDict(arbitrary_types_allowed=True)
            adapter: TypeAdapter[Any] = TypeAdapter(hint, config=config)
        except PydanticUserError:  # a class that has a configuration of its own
            try:
                adapter = TypeAdapter(hint)
            except Exception:
                continue
        except Exception:  # hints that only a type checker understands
            continue
        found[name] = adapter
    return found
