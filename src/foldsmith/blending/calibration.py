"""Calibration of a blend: a rising function of its predictions, thresholds, or priors."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from foldsmith.blending.base import Blend, FittedBlend, Goal, Mask, Rows
from foldsmith.errors import ConfigError
from foldsmith.models.fitted_arrays import Arrays, prefixed
from foldsmith.targets.decisions import Decider, decider_of
from foldsmith.targets.metric import Metric

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CalibratedBlend:
    """A blend and its calibration; both are fitted on the same rows.

    That suits a blend of few weights, whose predictions of those rows are hardly better than
    those of others.

    Attributes:
        blend: The blend.
        how: ``isotonic`` (isotonic regression, Barlow et al., 1972), ``thresholds`` between
            classes in an order or of labels, or ``priors``, factors of the probabilities of other
            classes.
        goal: Objective of the blend.
    """

    blend: Blend
    how: Literal["isotonic", "thresholds", "priors"]
    goal: Goal

    def __post_init__(self) -> None:
        problem = self.goal.metric.calibration_problem(self.how)
        if problem is not None:
            raise ConfigError(f"ensemble/calibrate: {problem}")

    @property
    def name(self) -> str:
        """Both names."""
        return f"{self.blend.name}+{self.how}"

    def fit(self, rows: Rows, targets: Array) -> "FittedDecisions | FittedCurve":
        """Fit the blend, then its calibration."""
        fitted = self.blend.fit(rows, targets)
        blended = fitted.predict(rows)
        metric, decider = self.goal.metric, decider_of(self.goal.metric, self.how)
        if decider is not None:
            return FittedDecisions(fitted, decider, decider.fit(blended, targets, metric), metric)
        from sklearn.isotonic import IsotonicRegression

        origin, unit = self.goal.scale_of(targets)
        unit = unit or 1.0
        rising = IsotonicRegression(out_of_bounds="clip")
        rising.fit((blended - origin) / unit, (targets - origin) / unit)
        points = (rising.X_thresholds_, rising.y_thresholds_)
        return FittedCurve(fitted, *(origin + unit * values for values in points))


@dataclass(frozen=True)
class FittedDecisions:
    """A fitted blend, and numbers by which its predictions decide.

    Attributes:
        blend: The blend.
        decider: How predictions decide by them.
        fitted: The numbers: boundaries between classes, factors of their probabilities, or
            thresholds of labels.
        metric: Metric of the goal.
    """

    blend: FittedBlend
    decider: Decider
    fitted: Array
    metric: Metric

    @property
    def with_facts(self) -> bool:
        """As the blend."""
        return self.blend.with_facts

    def uses(self, n_members: int) -> Mask:
        """Return the members that the blend uses."""
        return self.blend.uses(n_members)

    def among(self, members: Mask) -> "FittedDecisions":
        """Return it for rows of more members."""
        return replace(self, blend=self.blend.among(members))

    def only(self, used: Mask) -> "FittedDecisions":
        """Return it for rows of the members alone that the blend uses."""
        return replace(self, blend=self.blend.only(used))

    def predict(self, rows: Rows) -> Array:
        """Return values of classes, shape (n,), or probabilities, shape (n, n_classes)."""
        return self.decider.apply(self.blend.predict(rows), self.fitted, self.metric)

    def arrays(self) -> Arrays:
        """Return the blend's arrays and the numbers."""
        return prefixed("blend", self.blend.arrays()) | {self.decider.key: self.fitted}


@dataclass(frozen=True)
class FittedCurve:
    """A fitted blend, and a rising function of its predictions: straight between points.

    Attributes:
        blend: The blend.
        before: Predictions at the points, ascending, shape (n_points,).
        after: Calibrated values at the points, shape (n_points,); constant beyond the ends.
    """

    blend: FittedBlend
    before: Array
    after: Array

    @property
    def with_facts(self) -> bool:
        """As the blend."""
        return self.blend.with_facts

    def uses(self, n_members: int) -> Mask:
        """Return the members that the blend uses."""
        return self.blend.uses(n_members)

    def among(self, members: Mask) -> "FittedCurve":
        """Return it for rows of more members."""
        return replace(self, blend=self.blend.among(members))

    def only(self, used: Mask) -> "FittedCurve":
        """Return it for rows of the members alone that the blend uses."""
        return replace(self, blend=self.blend.only(used))

    def predict(self, rows: Rows) -> Array:
        """Return the calibrated predictions, shape (n,)."""
        return np.interp(self.blend.predict(rows), self.before, self.after)

    def arrays(self) -> Arrays:
        """Return the blend's arrays and the points."""
        points = {"before": self.before, "after": self.after}
        return prefixed("blend", self.blend.arrays()) | points
