"""Better decisions from predictions: numbers that are fitted out of fold and then applied."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foldsmith.targets.label_thresholds import apply_label_thresholds, fit_label_thresholds
from foldsmith.targets.metric import Decision, Metric
from foldsmith.targets.priors import apply_priors, fit_priors
from foldsmith.targets.thresholds import apply_thresholds, fit_thresholds

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Decider:
    """One way to make predictions better for a metric of decisions.

    Attributes:
        name: Row of a score table, and value of ``ensemble/calibrate``.
        key: Name of the fitted array in the file of a blend.
        fit: From (predictions, targets, metric, weights of the rows or None) to the fitted array.
        apply: From (predictions, fitted array, metric) to predictions that decide by it.
    """

    name: Decision
    key: str
    fit: Callable[[Array, Array, Metric, Array | None], Array]
    apply: Callable[[Array, Array, Metric], Array]

    def cross_fitted(
        self,
        predictions: Array,
        targets: Array,
        folds: npt.NDArray[np.int64],
        metric: Metric,
        weights: Array | None = None,
    ) -> Array:
        """Return predictions of each fold, with numbers that were fitted on the other folds.

        Args:
            predictions: Out of fold, as the metric takes them.
            targets: Their targets.
            folds: Fold of each row, shape (n,).
            metric: A metric of decisions.
            weights: Weight of each row in the metric, shape (n,); None for 1 each.
        """
        found = np.empty_like(predictions)
        for fold in np.unique(folds):
            held = folds == fold
            of_others = None if weights is None else weights[~held]
            fitted = self.fit(predictions[~held], targets[~held], metric, of_others)
            found[held] = self.apply(predictions[held], fitted, metric)
        return found


def _with_priors(probabilities: Array, factors: Array, _: Metric) -> Array:
    return apply_priors(probabilities, factors)


def _with_label_thresholds(probabilities: Array, thresholds: Array, _: Metric) -> Array:
    return apply_label_thresholds(probabilities, thresholds)


THRESHOLDS = Decider("thresholds", "thresholds", fit_thresholds, apply_thresholds)
PRIORS = Decider("priors", "factors", fit_priors, _with_priors)
LABEL_THRESHOLDS = Decider(
    "thresholds", "label_thresholds", fit_label_thresholds, _with_label_thresholds
)

DECIDERS = (THRESHOLDS, PRIORS, LABEL_THRESHOLDS)


def decider_of(metric: Metric, how: str) -> Decider | None:
    """Return the decider of a name for a metric; None if the metric has none of that name.

    Args:
        metric: The metric.
        how: ``thresholds`` or ``priors``.
    """
    suiting = (LABEL_THRESHOLDS,) if metric.of_labels else (THRESHOLDS, PRIORS)
    return next((decider for decider in suiting if decider.name == how), None)
