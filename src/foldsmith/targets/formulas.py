"""Formulas of columns: sums, differences, products and quotients of columns and numbers."""

import ast
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from foldsmith.utils.suggest import did_you_mean

Array = npt.NDArray[np.float64]

_OPERATIONS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
}
# A name that is no Python name stands in backquotes, as in pandas.
_QUOTED = re.compile(r"`([^`]+)`")
# Python's parser recurses.
_LONGEST = 1000


@dataclass(frozen=True)
class Formula:
    """A formula of columns, which :func:`parse_formula` has checked.

    Attributes:
        text: As it was written.
        names: Columns that it takes, in the order of the text.
    """

    text: str
    names: tuple[str, ...]

    def of(self, columns: Mapping[str, Array]) -> Array:
        """Return its value for columns of one shape; NaN where one of them is NaN."""
        tree, names = _parsed(self.text)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = _value(tree, {key: columns[name] for key, name in names.items()})
        value: Array = np.where(np.isfinite(found), found, np.nan)
        return value


def parse_formula(text: str, columns: Sequence[str]) -> Formula:
    """Return a checked formula.

    Args:
        text: Columns and numbers with ``+``, ``-``, ``*``, ``/`` and brackets; other names than
            Python's stand in backquotes.
        columns: The columns that it may take.

    Raises:
        ValueError: It is none.
    """
    tree, names = _parsed(text)
    used = _names(tree, text)
    for key in used:
        name = names[key]
        if name not in columns:
            raise ValueError(f"{text!r}: there is no target {name}{did_you_mean(name, columns)}")
    if not used:
        raise ValueError(f"{text!r}: takes no target")
    return Formula(text, tuple(dict.fromkeys(names[key] for key in used)))


def _parsed(text: str) -> tuple[ast.expr, dict[str, str]]:
    if len(text) > _LONGEST:
        raise ValueError(f"{text[:40]!r}...: is longer than {_LONGEST} characters")
    quoted = dict.fromkeys(_QUOTED.findall(text))
    keys = {name: f"_quoted_{k}" for k, name in enumerate(quoted)}
    plain = _QUOTED.sub(lambda found: keys[found[1]], text)
    try:
        tree = ast.parse(plain.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{text!r}: is no formula such as a + 2 * (b - c)") from None
    names = {key: name for name, key in keys.items()}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            names.setdefault(node.id, node.id)
    return tree, names


def _names(tree: ast.expr, text: str) -> list[str]:
    """Return the names of a formula, after checking that it has nothing but the operations."""
    match tree:
        case ast.BinOp(left, operation, right) if type(operation) in _OPERATIONS:
            return [*_names(left, text), *_names(right, text)]
        case ast.UnaryOp(ast.USub() | ast.UAdd(), operand):
            return _names(operand, text)
        case ast.Name(name):
            return [name]
        case ast.Constant(int() | float() as value) if _is_number(value):
            return []
    raise ValueError(
        f"{text!r}: may have names of targets, numbers, + - * / and brackets, and nothing else"
    )


def _is_number(value: float) -> bool:
    return not isinstance(value, bool) and math.isfinite(value)


def _value(tree: ast.expr, columns: Mapping[str, Array]) -> Any:
    match tree:
        case ast.BinOp(left, operation, right):
            return _OPERATIONS[type(operation)](_value(left, columns), _value(right, columns))
        case ast.UnaryOp(operation, operand):
            value = _value(operand, columns)
            return -value if isinstance(operation, ast.USub) else value
        case ast.Name(name):
            return columns[name]
        case ast.Constant(value):
            return np.float64(value)  # type: ignore[arg-type]
    raise AssertionError("checked by parse_formula")
