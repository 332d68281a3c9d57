"""The scales of several numbers per image: each target is learned on its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foldsmith.targets.scale import Form, TargetScale, form_of, lines_of_fold

Array = npt.NDArray[np.float64]

Forms = tuple[Form, ...]


@dataclass(frozen=True, eq=False)
class ColumnScales:
    """A :class:`~foldsmith.targets.scale.TargetScale` per target, which leaves NaN as it is.

    Attributes:
        columns: The scale of each target.
    """

    columns: tuple[TargetScale, ...]

    @classmethod
    def fit(cls, targets: Array, forms: Sequence[Form]) -> ColumnScales:
        """Return the scales of training targets, shape (n, n_targets), each by its own rows.

        A target without a row is learned as it is: nothing is known of it.
        """
        return cls(
            tuple(
                TargetScale.fit(column[seen] if seen.any() else np.zeros(1), form)
                for column, seen, form in zip(targets.T, ~np.isnan(targets.T), forms, strict=True)
            )
        )

    def forward(self, targets: Array, clip: bool = True) -> Array:
        """Return targets as they are learned, of the same shape (..., n_targets)."""
        return self._each(targets, lambda scale, column: scale.forward(column, clip))

    def inverse(self, learned: npt.ArrayLike) -> Array:
        """Return learned numbers in the units of the targets, shape (..., n_targets)."""
        values = np.asarray(learned, np.float64)
        return self._each(values, lambda scale, column: scale.inverse(column))

    def array(self) -> Array:
        """Return all that :meth:`restore` needs, shape (n_targets, 108)."""
        return np.stack([scale.array() for scale in self.columns])

    @classmethod
    def restore(cls, array: Array) -> ColumnScales:
        """Return the scales that gave this array.

        Raises:
            OutputError: No scales can have given it.
        """
        return cls(tuple(TargetScale.restore(row) for row in array))

    def _each(self, values: Array, change: Callable[[TargetScale, Array], Array]) -> Array:
        found = np.full(values.shape, np.nan)
        for k, scale in enumerate(self.columns):
            seen = ~np.isnan(values[..., k])
            found[..., k][seen] = change(scale, values[..., k][seen])
        return found


# The scale of a task's labels, and its form.
Scale = TargetScale | ColumnScales
ScaleForm = Form | Forms


def restore_scale(array: Array) -> Scale:
    """Return the scale, or the scales of several numbers, that gave this array.

    Raises:
        OutputError: None can have given it.
    """
    return (ColumnScales if array.ndim == 2 else TargetScale).restore(array)


def forms_of(setting: str, targets: Array, names: Sequence[str]) -> tuple[Forms | None, str]:
    """Return the form of each target's scale, and the reasons if some were chosen.

    Args:
        setting: ``globals/target_scale``.
        targets: All labelled targets, shape (n, n_targets).
        names: Names of the targets.
    """
    found = [form_of(setting, column[~np.isnan(column)]) for column in targets.T]
    reasons = [f"{name}: {why}" for name, (_, why) in zip(names, found, strict=True) if why]
    forms = tuple(form for form, _ in found if form is not None)
    return (forms or None), "\n".join(reasons)


def lines_of_columns(
    fold: int, scales: ColumnScales | None, labels: Array, names: Sequence[str]
) -> list[str]:
    """Return remarks about the training labels of a fold, shape (n, n_targets), for people."""
    lines = []
    for k, name in enumerate(names):
        seen = labels[~np.isnan(labels[:, k]), k]
        scale = None if scales is None else scales.columns[k]
        if not len(seen):
            lines.append(f"fold {fold}: {name}: no training target")
            continue
        lines += [f"{line} ({name})" for line in lines_of_fold(fold, scale, seen)]
    return lines
