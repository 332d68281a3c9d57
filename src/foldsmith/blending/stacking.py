"""A model over the members' predictions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from foldsmith.blending.base import Goal, Rows
from foldsmith.tasks.metrics import nearest

Array = npt.NDArray[np.float64]

# Shallow and slow: a few thousand rows, whose members already say nearly the same.
_TREES: dict[str, Any] = {
    "max_depth": 3,
    "max_iter": 60,
    "learning_rate": 0.05,
    "min_samples_leaf": 40,
    "l2_regularization": 10.0,
    "early_stopping": False,
}


@dataclass(frozen=True)
class StackedTrees:
    """Boosted trees over predictions and facts (Wolpert, "Stacked Generalization", 1992).

    Of values the trees predict what the plain average leaves over; of classes, the
    probabilities. They can use what no weights can: that a member is better for some photos.
    On test photos the members' predictions are averages over folds, a little calmer than the
    out-of-fold ones that the trees have learned from.

    Attributes:
        name: Its name.
        goal: What it is to be good at.
        seed: Seed of the trees.
    """

    name: str
    goal: Goal
    seed: int

    def fit(self, rows: Rows, targets: Array) -> "FittedTrees":
        """Grow the trees; the metric itself plays no part."""
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        inputs = _inputs(rows)
        if self.goal.metric.needs == "values":
            trees = HistGradientBoostingRegressor(**_TREES, random_state=self.seed)
            trees.fit(inputs, targets - rows.predictions.mean(axis=0))
        else:
            trees = HistGradientBoostingClassifier(**_TREES, random_state=self.seed)
            trees.fit(inputs, nearest(targets, self.goal.class_values))
        return FittedTrees(trees, self.goal)


@dataclass(frozen=True)
class FittedTrees:
    """Grown trees.

    Attributes:
        trees: The model.
        goal: What it was made for.
    """

    trees: Any
    goal: Goal

    def predict(self, rows: Rows) -> Array:
        """Return values within the target range, shape (n,), or probabilities."""
        inputs = _inputs(rows)
        if self.goal.metric.needs == "values":
            off: Array = self.trees.predict(inputs)
            values: Array = rows.predictions.mean(axis=0) + off
            return np.clip(values, *self.goal.target_range)
        # A class that the rows did not have gets nothing.
        probabilities = np.zeros((len(inputs), len(self.goal.class_values)))
        probabilities[:, self.trees.classes_] = self.trees.predict_proba(inputs)
        return probabilities


def _inputs(rows: Rows) -> Array:
    """Return every member's prediction, their mean and spread, and the facts of each photo."""
    n = len(rows.features)
    by_photo = np.moveaxis(rows.predictions, 0, -1)
    parts = [by_photo, by_photo.mean(axis=-1, keepdims=True), by_photo.std(axis=-1, keepdims=True)]
    return np.hstack([*(part.reshape(n, -1) for part in parts), rows.features])
