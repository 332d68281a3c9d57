"""A stack of several numbers: boosted trees for each of them."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from foldsmith.blending.base import FittedBlend, FittedOnSome, FittedWeights, Goal, Mask, Rows
from foldsmith.blending.stacking import StackedTrees
from foldsmith.blending.weights import equal_weights
from foldsmith.models.fitted_arrays import Arrays, part, prefixed
from foldsmith.project.column_forms import OneNumber

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StackedColumns:
    """Boosted trees for each target, grown from the rows that have it.

    Attributes:
        name: Its name.
        goal: Objective of the blend: several numbers.
        seed: Seed of the trees.
    """

    name: str
    goal: Goal
    seed: int

    bends = True

    def fit(self, rows: Rows, targets: Array) -> "FittedStackedColumns":
        """Grow the trees; a target that no row has is the plain mean of the members."""
        found: list[FittedBlend] = []
        for k, goal in enumerate(goals_of_columns(self.goal)):
            seen = ~np.isnan(targets[:, k])
            if not seen.any():
                weights = equal_weights(len(rows.predictions))
                found.append(FittedWeights(weights, goal.bounds))
                continue
            stack = StackedTrees(self.name, goal, self.seed)
            found.append(stack.fit(_column(rows, k).take(seen), targets[seen, k]))
        return FittedStackedColumns(tuple(found))


@dataclass(frozen=True)
class FittedStackedColumns:
    """A fitted blend for each target.

    Attributes:
        blends: The blends, in the order of the targets.
    """

    blends: tuple[FittedBlend, ...]

    @property
    def with_facts(self) -> bool:
        """The trees were grown with the facts of each image."""
        return True

    def uses(self, n_members: int) -> Mask:
        """Return that every member is used: the trees see all of them, and their mean."""
        return np.ones(n_members, dtype=np.bool_)

    def among(self, members: Mask) -> FittedBlend:
        """Return it for rows of more members."""
        return self if members.all() else FittedOnSome(self, members)

    def only(self, used: Mask) -> "FittedStackedColumns":
        """Return itself: every member is used."""
        return self

    def predict(self, rows: Rows) -> Array:
        """Return the numbers, shape (n, n_targets)."""
        columns = [blend.predict(_column(rows, k)) for k, blend in enumerate(self.blends)]
        n = rows.predictions.shape[1]
        return np.stack([np.broadcast_to(column, n) for column in columns], axis=1)

    def arrays(self) -> Arrays:
        """Return the arrays of each blend."""
        found: Arrays = {"n_columns": np.array(len(self.blends))}
        for k, blend in enumerate(self.blends):
            found |= prefixed(str(k), blend.arrays())
        return found


def goals_of_columns(goal: Goal) -> list[Goal]:
    """Return the goal of each of several numbers: its own range, and the metric of a column."""
    metric, (low, high) = goal.metric.for_column(), goal.form.bounds
    return [
        replace(goal, metric=metric, form=OneNumber(name, (float(a), float(b)), ()))
        for name, a, b in zip(goal.form.columns, np.ravel(low), np.ravel(high), strict=True)
    ]


def _column(rows: Rows, k: int) -> Rows:
    """Return the predictions of one target."""
    return replace(rows, predictions=rows.predictions[:, :, k])


def parts_of(arrays: Arrays) -> list[Arrays]:
    """Return the arrays of each blend of :meth:`FittedStackedColumns.arrays`."""
    return [part(arrays, str(k)) for k in range(int(arrays["n_columns"]))]
