"""The columns of several numbers that a metric judges: targets, and computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foldsmith.targets.formulas import Formula

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class JudgedColumns:
    """The columns that a metric of several numbers judges.

    Attributes:
        targets: Names of the targets, in the order of predictions.
        derived: Names of the judged columns that are computed from them.
        formulas: Formula of each of these.
        weights: Weight of each column, the targets first, above 0.
    """

    targets: tuple[str, ...]
    derived: tuple[str, ...]
    formulas: tuple[Formula, ...]
    weights: tuple[float, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all columns."""
        return (*self.targets, *self.derived)

    def of(self, values: Array) -> Array:
        """Return the columns, shape (n, n_judged), of targets, shape (n, n_targets)."""
        if not self.derived:
            return values
        return with_derived(values, self.targets, self.formulas)


def with_derived(values: Array, names: Sequence[str], formulas: Sequence[Formula]) -> Array:
    """Return columns and those that are computed from them.

    Args:
        values: Shape (..., n_targets).
        names: Name of each column.
        formulas: Formulas of them.

    Returns:
        Shape (..., n_targets + n_formulas).
    """
    columns = {name: values[..., k] for k, name in enumerate(names)}
    computed = [formula.of(columns) for formula in formulas]
    return np.concatenate([values, *(each[..., None] for each in computed)], axis=-1)
