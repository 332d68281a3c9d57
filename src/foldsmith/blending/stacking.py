"""A model over the members' predictions."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from foldsmith.blending.base import FittedBlend, FittedConstant, FittedOnSome, Goal, Mask, Rows
from foldsmith.errors import TrainingError
from foldsmith.models.fitted_arrays import Arrays, part, prefixed
from foldsmith.models.forest import Forest, boosted_trees
from foldsmith.targets.class_values import nearest

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

    For values, the trees predict the residuals of the plain average; for classes, they predict
    probabilities. Unlike weights, they can learn that a member is better for some images.
    On test images the members' predictions are averages over folds, a little calmer than the
    out-of-fold ones that the trees have learned from.

    Attributes:
        name: Its name.
        goal: Objective of the blend.
        seed: Seed of the trees.
    """

    name: str
    goal: Goal
    seed: int

    bends = True

    def fit(self, rows: Rows, targets: Array) -> "FittedStack | FittedConstant":
        """Grow the trees; the metric itself plays no part."""
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        origin, unit = (float(each) for each in self.goal.scale_of(targets, rows.weights))
        if unit == 0:
            # Equal targets leave nothing to grow trees from.
            return FittedConstant(np.asarray(origin))
        inputs = _inputs(rows, origin, unit)
        if not self.goal.metric.takes_probabilities:
            trees = HistGradientBoostingRegressor(**_TREES, random_state=self.seed)
            off = (targets - rows.predictions.mean(axis=0)) / unit
            trees.fit(inputs, off, rows.weights)
        else:
            trees = HistGradientBoostingClassifier(**_TREES, random_state=self.seed)
            classes = nearest(targets, self.goal.form.class_values)
            trees.fit(inputs, classes, rows.weights)
        fitted = _as_arrays(trees, self.goal, origin, unit)
        _make_sure(fitted, trees, rows)
        return fitted


@dataclass(frozen=True)
class FittedStack:
    """Grown trees.

    Attributes:
        forest: The trees, step after step.
        baseline: Start value of the trees' sum, shape (1,), or (n,) for n > 2 classes with one
            tree per class and step.
        classes: Numbers of the classes in the rows, ascending; shape (0,) for values.
        goal: Objective of the blend.
        origin: Target at which the trees' sum is 0.
        unit: Difference of targets that they count as 1.
    """

    forest: Forest
    baseline: Array
    classes: npt.NDArray[np.int64]
    goal: Goal
    origin: float
    unit: float

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

    def only(self, used: Mask) -> "FittedStack":
        """Return itself: every member is used."""
        return self

    def predict(self, rows: Rows) -> Array:
        """Return values within the target range, shape (n,), or probabilities."""
        # Here, not above: few commands need scipy, which takes long to import.
        from scipy.special import softmax

        by_tree = self.forest.predict(_inputs(rows, self.origin, self.unit))
        n, width = len(by_tree), len(self.baseline)
        raw = by_tree.reshape(n, -1, width).sum(axis=1) + self.baseline
        if not self.goal.metric.takes_probabilities:
            values: Array = rows.predictions.mean(axis=0) + self.unit * raw[:, 0]
            return np.clip(values, *self.goal.form.target_range)
        if width == 1:
            raw = np.hstack([np.zeros((n, 1)), raw])
        # A class that the rows did not have gets nothing.
        probabilities = np.zeros((n, len(self.goal.form.class_values)))
        probabilities[:, self.classes] = softmax(raw, axis=1)
        return probabilities

    def arrays(self) -> Arrays:
        """Return the trees and their baseline."""
        others = {"baseline": self.baseline, "classes": self.classes}
        scale = {"origin": np.array(self.origin), "unit": np.array(self.unit)}
        return prefixed("forest", self.forest.arrays()) | others | scale

    @classmethod
    def restore(cls, arrays: Arrays, goal: Goal) -> "FittedStack":
        """Return the trees that gave these arrays."""
        forest = Forest(**part(arrays, "forest"))
        scale = float(arrays["origin"]), float(arrays["unit"])
        return cls(forest, arrays["baseline"], arrays["classes"], goal, *scale)


def _as_arrays(trees: Any, goal: Goal, origin: float, unit: float) -> FittedStack:
    classes = getattr(trees, "classes_", np.empty(0))
    baseline = np.asarray(trees._baseline_prediction, np.float64).ravel()
    return FittedStack(boosted_trees(trees), baseline, classes.astype(np.int64), goal, origin, unit)


def _make_sure(fitted: FittedStack, trees: Any, rows: Rows) -> None:
    """Compare with scikit-learn, whose trees are its own affair, and may change their form."""
    inputs, goal, unit = _inputs(rows, fitted.origin, fitted.unit), fitted.goal, fitted.unit
    if not goal.metric.takes_probabilities:
        values = rows.predictions.mean(axis=0) + unit * trees.predict(inputs)
        expected, found = np.clip(values, *goal.form.target_range), fitted.predict(rows)
    else:
        expected, found = trees.predict_proba(inputs), fitted.predict(rows)[:, fitted.classes]
    if not np.allclose(found, expected, rtol=1e-12, atol=1e-9 * unit):
        raise TrainingError(
            f"scikit-learn {version('scikit-learn')} keeps boosted trees in a form that is not "
            "known here; leave stack out of ensemble/methods, or install the version in "
            "constraints.txt"
        )


def _inputs(rows: Rows, origin: float, unit: float) -> Array:
    """Return every member's prediction, their mean and spread, and the facts of each image.

    Predictions are distances from ``origin`` in units of ``unit``.
    """
    n = len(rows.features)
    by_image = np.moveaxis((rows.predictions - origin) / unit, 0, -1)
    parts = [by_image, by_image.mean(axis=-1, keepdims=True), by_image.std(axis=-1, keepdims=True)]
    return np.hstack([*(part.reshape(n, -1) for part in parts), rows.features])
