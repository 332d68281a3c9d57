"""What follows a blend: a rising function of its predictions, or boundaries between classes."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from foldsmith.blending.base import Blend, FittedBlend, Goal, Rows
from foldsmith.errors import ConfigError
from foldsmith.tasks.thresholds import apply_thresholds, fit_thresholds

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CalibratedBlend:
    """A blend and what follows it; both learn from the same rows.

    That suits a blend of few weights, whose predictions of those rows are hardly better than
    those of others.

    Attributes:
        blend: The blend.
        how: ``isotonic`` (isotonic regression, Barlow et al., 1972) or ``thresholds``.
        goal: What it is to be good at.
    """

    blend: Blend
    how: Literal["isotonic", "thresholds"]
    goal: Goal

    def __post_init__(self) -> None:
        metric = self.goal.metric
        if metric.needs != "values" or (self.how == "thresholds" and not metric.rounds):
            kind = "a metric of values" if self.how == "isotonic" else "QWK or Accuracy"
            raise ConfigError(
                f"ensemble/calibrate: {self.how} needs {kind}; the project's is {metric.name}"
            )

    @property
    def name(self) -> str:
        """Both names."""
        return f"{self.blend.name}+{self.how}"

    def fit(self, rows: Rows, targets: Array) -> "FittedCalibration":
        """Fit the blend, then what follows it."""
        fitted = self.blend.fit(rows, targets)
        blended = fitted.predict(rows)
        if self.how == "thresholds":
            cuts = fit_thresholds(blended, targets, self.goal.metric)
            return FittedCalibration(fitted, cuts, self.goal)
        from sklearn.isotonic import IsotonicRegression

        rising = IsotonicRegression(out_of_bounds="clip").fit(blended, targets)
        return FittedCalibration(fitted, rising, self.goal)


@dataclass(frozen=True)
class FittedCalibration:
    """A fitted blend and what follows it.

    Attributes:
        blend: The blend.
        after: Boundaries between classes, shape (n_classes - 1,), or an isotonic regression.
        goal: What it was made for.
    """

    blend: FittedBlend
    after: Any
    goal: Goal

    def predict(self, rows: Rows) -> Array:
        """Return the calibrated predictions, shape (n,)."""
        blended = self.blend.predict(rows)
        if isinstance(self.after, np.ndarray):
            return apply_thresholds(blended, self.after, self.goal.metric)
        calibrated: Array = self.after.predict(blended)
        return calibrated
