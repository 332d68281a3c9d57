"""Plain values of an experiment against the type hints of the callable that takes them."""

import functools
import inspect
import json
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from foldsmith.config.lazy_types import LazyTypes
from foldsmith.config.references import is_reference
from foldsmith.config.source_signatures import source_signature
from foldsmith.errors import one_line


class Arguments:
    """The arguments of a type: names, which are needed, and the values that they take.

    Args:
        signature: Signature of the callable, its hints evaluated.

    Attributes:
        named: The parameters that have a name in an experiment.
        any_name: Whether it takes arguments of any other name, too.
    """

    def __init__(self, signature: inspect.Signature) -> None:
        parameters = signature.parameters.values()
        self.named = {
            parameter.name: parameter
            for parameter in parameters
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        }
        self.any_name = any(each.kind is each.VAR_KEYWORD for each in parameters)
        self._adapters: dict[str, TypeAdapter[Any] | None] = {}

    def needed(self) -> list[str]:
        """Return the names of the arguments without a default."""
        empty = inspect.Parameter.empty
        return [name for name, parameter in self.named.items() if parameter.default is empty]

    def value_problems(self, given: Mapping[str, Any]) -> Iterator[str]:
        """Yield the arguments whose plain values contradict their type hints.

        References and values that contain a ``type:`` are built later, so nothing can be said
        about them here; nor about parameters without a hint, or with one that pydantic cannot
        read.

        Args:
            given: Name of an argument -> its value in the experiment file.
        """
        for name in sorted(given.keys() & self.named.keys()):
            value = given[name]
            adapter = self._adapter(name) if _is_plain(value) else None
            if adapter is None:
                continue
            try:
                # As JSON: a list may be a tuple, but "3" does not count as a number, nor true as
                # an integer.
                adapter.validate_json(json.dumps(_whole(value)), strict=True)
            except ValidationError as error:
                loc = error.errors()[0]["loc"]
                place = "/".join([name, *(str(key) for key in loc if isinstance(key, int))])
                yield f"{place}: {_reason(error)}, not {json.dumps(value, ensure_ascii=False)[:60]}"
            except (TypeError, ValueError):  # no JSON: a date, say, which YAML reads
                yield f"{name}: cannot be {value!r}"

    def _adapter(self, name: str) -> TypeAdapter[Any] | None:
        """Return the validator of a parameter; None for the type hint Any."""
        if name not in self._adapters:
            self._adapters[name] = _adapter_of(self.named[name])
        return self._adapters[name]


def arguments_of(types: Mapping[str, Callable[..., Any]], name: str) -> Arguments | None:
    """Return the arguments of a type; None for a builtin without a signature.

    The source of the package's types is read, so that none of them is imported.

    Args:
        types: Every callable that a ``type:`` may name.
        name: One of them.
    """
    place = types.place(name) if isinstance(types, LazyTypes) else None
    found = _source_arguments(place) if place is not None else None
    return found or _imported_arguments(types[name])


@functools.cache
def _source_arguments(place: str) -> Arguments | None:
    module, _, attribute = place.partition(":")
    signature = source_signature(module, attribute)
    return None if signature is None else Arguments(signature)


@functools.cache
def _imported_arguments(callable_: Callable[..., Any]) -> Arguments | None:
    try:
        signature = inspect.signature(callable_)
    except (TypeError, ValueError):
        return None
    target = callable_.func if isinstance(callable_, functools.partial) else callable_
    try:
        hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, ValueError, AttributeError):
        hints = {}
    return Arguments(
        signature.replace(
            parameters=[
                parameter.replace(annotation=hints.get(parameter.name, Any))
                for parameter in signature.parameters.values()
            ]
        )
    )


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
    """Return a short description of the accepted values."""
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
        "iterable_type": "a list",
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


def _adapter_of(parameter: inspect.Parameter) -> TypeAdapter[Any] | None:
    hint = parameter.annotation
    if hint is Any:
        return None
    if parameter.default is None:
        hint = hint | None if isinstance(hint, type) else typing.Optional[hint]  # noqa: UP045
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # a class that has a configuration of its own
        try:
            return TypeAdapter(hint)
        except Exception:
            return None
    except Exception:  # hints that only a type checker understands
        return None
