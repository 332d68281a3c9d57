"""Calibration of a blend: a rising function of its predictions, thresholds, or priors."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from foldsmith.blending.base import Blend, FittedBlend, Goal, Mask, Rows
from foldsmith.errors import ConfigError
from foldsmith.models.fitted_arrays import Arrays, prefixed
from foldsmith.targets.calibrations import calibration_problem
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

    bends = True

    def __post_init__(self) -> None:
        problem = calibration_problem(self.goal.metric, self.how)
        if problem is not None:
            raise ConfigError(f"ensemble/calibrate: {problem}")

    @property
    def name(self) -> str:
        """Both names."""
        return f"{self.blend.name}+{self.how}"

    def fit(self, rows: Rows, targets: Array) -> "FittedDecisions | FittedCurve | FittedCurves":
        """Fit the blend, then its calibration."""
        fitted = self.blend.fit(rows, targets)
        blended = fitted.predict(rows)
        metric, decider = self.goal.metric, decider_of(self.goal.metric, self.how)
        if decider is not None:
            numbers = decider.fit(blended, targets, metric, rows.weights)
            return FittedDecisions(fitted, decider, numbers, metric)
        if targets.ndim == 1:
            return FittedCurve(fitted, *self._curve(blended, targets, rows.weights))
        columns = []
        for k, wanted in enumerate(targets.T):
            seen = ~np.isnan(wanted)
            weights = None if rows.weights is None else rows.weights[seen]
            # A target that no row has stays as the blend predicts it.
            ends = np.asarray([each[k] for each in self.goal.form.bounds], np.float64)
            known = self._curve(blended[seen, k], wanted[seen], weights) if seen.any() else None
            columns.append((ends, ends) if known is None else known)
        return FittedCurves(fitted, tuple(columns))

    def _curve(self, blended: Array, targets: Array, weights: Array | None) -> tuple[Array, Array]:
        """Return the points of the rising function of one column, before and after."""
        from sklearn.isotonic import IsotonicRegression

        origin, unit = self.goal.scale_of(targets, weights)
        unit = unit or 1.0
        rising = IsotonicRegression(out_of_bounds="clip")
        rising.fit((blended - origin) / unit, (targets - origin) / unit, weights)
        before, after = rising.X_thresholds_, rising.y_thresholds_
        return origin + unit * before, origin + unit * after


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


@dataclass(frozen=True)
class FittedCurves:
    """A fitted blend of several numbers, and a rising function for each of them.

    Attributes:
        blend: The blend.
        curves: Points of each function, as ``before`` and ``after`` of :class:`FittedCurve`.
    """

    blend: FittedBlend
    curves: tuple[tuple[Array, Array], ...]

    @property
    def with_facts(self) -> bool:
        """As the blend."""
        return self.blend.with_facts

    def uses(self, n_members: int) -> Mask:
        """Return the members that the blend uses."""
        return self.blend.uses(n_members)

    def among(self, members: Mask) -> "FittedCurves":
        """Return it for rows of more members."""
        return replace(self, blend=self.blend.among(members))

    def only(self, used: Mask) -> "FittedCurves":
        """Return it for rows of the members alone that the blend uses."""
        return replace(self, blend=self.blend.only(used))

    def predict(self, rows: Rows) -> Array:
        """Return the calibrated predictions, shape (n, n_targets)."""
        blended = self.blend.predict(rows).T
        pairs = zip(blended, self.curves, strict=True)
        return np.stack([np.interp(column, *curve) for column, curve in pairs], axis=1)

    def arrays(self) -> Arrays:
        """Return the blend's arrays and the points of each function."""
        found: Arrays = {"n_curves": np.array(len(self.curves))}
        for k, (before, after) in enumerate(self.curves):
            found |= {f"before{k}": before, f"after{k}": after}
        return prefixed("blend", self.blend.arrays()) | found

    @classmethod
    def restore(cls, blend: FittedBlend, arrays: Arrays) -> "FittedCurves":
        """Return the curves that gave these arrays, over a blend."""
        n_curves = range(int(arrays["n_curves"]))
        return cls(blend, tuple((arrays[f"before{k}"], arrays[f"after{k}"]) for k in n_curves))
