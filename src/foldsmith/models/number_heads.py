"""Heads on frozen features that give several numbers per image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foldsmith.errors import ConfigError
from foldsmith.models.feature_heads import FeatureHead, fit_head, gives_probabilities, weights_of
from foldsmith.models.fitted_arrays import Arrays, part, prefixed
from foldsmith.models.fitted_heads import Features, FittedHead, Targets, gives_labels


@dataclass(frozen=True)
class NumbersHead:
    """A head of one number for each target, all on the same features.

    Attributes:
        head: Fitted to each target by itself, on the images that have it.
    """

    head: FeatureHead

    gives_numbers = True

    def __post_init__(self) -> None:
        if gives_probabilities(self.head) or gives_labels(self.head) or gives_numbers(self.head):
            raise ConfigError(
                f"NumbersHead: head: {type(self.head).__name__} must give one number, as RidgeHead "
                "does"
            )

    def fit(
        self,
        features: Features,
        targets: Targets,
        groups: npt.NDArray[np.int64],
        seed: int,
        weights: Targets | None = None,
    ) -> "FittedNumbers":
        """Fit one head per target; targets have the shape (n, n_targets), NaN where missing.

        A target that no image has is predicted as 0, which is the mean on its scale.
        """
        fitted: list[FittedHead] = []
        for column, seen in zip(targets.T, ~np.isnan(targets.T), strict=True):
            rows = np.flatnonzero(seen) if seen.any() else np.arange(min(2, len(seen)))
            values, of_rows = np.where(seen, column, 0.0)[rows], weights_of(weights, rows)
            fitted.append(fit_head(self.head, features[rows], values, groups[rows], seed, of_rows))
        return FittedNumbers(fitted)

    def restore(self, arrays: Arrays) -> "FittedNumbers":
        """Return the head of each target."""
        n_targets = len({key.partition(".")[0] for key in arrays})
        return FittedNumbers([self.head.restore(part(arrays, str(k))) for k in range(n_targets)])


@dataclass(frozen=True)
class FittedNumbers:
    """One fitted head per target.

    Attributes:
        heads: The heads.
    """

    heads: Sequence[FittedHead]

    gives_numbers = True

    def predict(self, features: Features) -> Targets:
        """Return the numbers, shape (n, n_targets)."""
        return np.stack([head.predict(features) for head in self.heads], axis=1)

    def arrays(self) -> Arrays:
        """Return the heads' arrays, by the numbers of the targets."""
        found: Arrays = {}
        for number, head in enumerate(self.heads):
            found |= prefixed(str(number), head.arrays())
        return found


def gives_numbers(head: FeatureHead | FittedHead) -> bool:
    """Return whether a head, fitted or not, gives several numbers."""
    return bool(getattr(head, "gives_numbers", False))
