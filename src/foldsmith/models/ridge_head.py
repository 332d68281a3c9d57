"""Ridge regression on frozen features."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from foldsmith.errors import ConfigError
from foldsmith.models.fitted_arrays import Arrays
from foldsmith.models.fitted_heads import (
    Features,
    FittedLine,
    Targets,
    fitted_standardiser,
    standardised,
)
from foldsmith.models.head_arguments import check_above_zero
from foldsmith.models.head_time import TimePart
from foldsmith.models.ridge_layer import ALPHAS


@dataclass(frozen=True)
class RidgeHead:
    """Ridge regression on standardised features.

    Attributes:
        alphas: Strengths to choose from, by the leave-one-out error within the training folds.
        scaling: ``each``: every feature is divided by its own deviation; ``common``: all by the
            root of their mean variance, so that features that hardly vary remain small. The
            latter suits many features of one kind.
    """

    alphas: tuple[float, ...] = ALPHAS
    scaling: Literal["each", "common"] = "each"

    def __post_init__(self) -> None:
        if self.scaling not in ("each", "common"):
            raise ConfigError(f"scaling: {self.scaling!r} must be each or common")
        check_above_zero("alphas", self.alphas)

    def fit(
        self,
        features: Features,
        targets: Targets,
        groups: npt.NDArray[np.int64],
        seed: int,
        weights: Targets | None = None,
    ) -> FittedLine:
        """Fit in closed form; nothing is drawn."""
        from sklearn.linear_model import RidgeCV

        scaler = fitted_standardiser(features.astype(np.float64), weights)[0]
        # Deviations of the features as the regression sees them.
        spread = np.ones_like(scaler.scale_)
        if self.scaling == "common":
            spread = scaler.scale_ / (np.sqrt(scaler.var_.mean()) or 1.0)
        ridge = RidgeCV(alphas=np.asarray(self.alphas, np.float64))
        ridge.fit(standardised(features, scaler.mean_, scaler.scale_) * spread, targets, weights)
        slopes = ridge.coef_ * spread
        return FittedLine(scaler.mean_, scaler.scale_, slopes, float(ridge.intercept_))

    def restore(self, arrays: Arrays) -> FittedLine:
        """Return the line."""
        return FittedLine(**arrays)

    def time_parts(self, n_features: int) -> tuple[TimePart, ...]:
        """Return the time of the fit: the matrix to decompose is no larger than the features."""
        return (TimePart(self.fit, rows=n_features, power=1),)
