"""The settings ``class_weights`` of a project and of an experiment."""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from foldsmith.utils.formatting import number_text
from foldsmith.utils.suggest import did_you_mean


def _checked(value: object) -> object:
    if value is None or value in ("balanced", "none"):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"must be balanced, none, or a weight by name, not {value!r}")
    for name, weight in value.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not 0 <= weight < inf:
            raise ValueError(f"the weight of {name} is {weight!r}; it must be a number, at least 0")
    return {_text(name): float(weight) for name, weight in value.items()}


def _text(name: object) -> str:
    if isinstance(name, bool):
        raise ValueError(f"{name!r} is no text in YAML; write it in quotes")
    if isinstance(name, int | float):
        return number_text(float(name))
    return str(name)


# ``balanced``, ``none``, or a weight by the name of a class or label.
ClassWeights = Annotated[Literal["balanced", "none"] | dict[str, float], BeforeValidator(_checked)]


def class_weights_text(weights: Any) -> str | None:
    """Return class weights for people, as in ``cat 1, lynx 5``; None if they are None.

    Args:
        weights: As :data:`ClassWeights`, or None.
    """
    if not isinstance(weights, Mapping):
        return None if weights is None else str(weights)
    return ", ".join(f"{name} {number_text(weight)}" for name, weight in weights.items())


def class_weights_problem(weights: Any, names: Sequence[str]) -> str | None:
    """Return what is wrong with class weights, for people; None if nothing is.

    Args:
        weights: As :data:`ClassWeights`, or None.
        names: Names of the classes or labels; none if the target has neither.
    """
    if weights is None or weights == "none":
        return None
    if not names:
        return "the target has neither classes nor labels; leave it out"
    if not isinstance(weights, Mapping):
        return None
    for name in weights:
        if name not in names:
            return f"there is no class or label {name!r}{did_you_mean(name, names)}"
    if not any(weights.get(name, 1) for name in names):
        return "every weight is 0"
    return None
