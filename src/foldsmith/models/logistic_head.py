"""A head on frozen features that gives probabilities of classes by linear functions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foldsmith.models.feature_heads import classes_of, weights_of
from foldsmith.models.fitted_arrays import Arrays
from foldsmith.models.fitted_heads import Features, FittedSoftmax, Targets, fitted_standardiser
from foldsmith.models.head_arguments import check_above_zero
from foldsmith.targets.scores_of_classes import surprise

# Most iterations of the solver. Features are standardised, so that it mostly needs fewer.
_STEPS = 1000


@dataclass(frozen=True)
class LogisticHead:
    """Logistic regression on standardised features: probabilities of classes.

    Attributes:
        class_values: Target value of each class.
        C: Inverse strengths to choose from, by the log loss of a grouped 3-fold cross-validation
            within the training folds; of a single group the middle one is taken.
    """

    class_values: Sequence[float]
    C: tuple[float, ...] = (0.001, 0.01, 0.1, 1)

    def __post_init__(self) -> None:
        check_above_zero("C", self.C)

    def fit(
        self,
        features: Features,
        targets: Targets,
        groups: npt.NDArray[np.int64],
        seed: int,
        weights: Targets | None = None,
    ) -> FittedSoftmax:
        """Choose by groups, then fit to all; nothing is drawn."""
        from sklearn.model_selection import GroupKFold

        classes = classes_of(targets, self.class_values)
        n_groups, strengths = len(np.unique(groups)), sorted(self.C)
        if n_groups < 2 or len(strengths) < 2:
            return self._fit(features, classes, strengths[len(strengths) // 2], weights)
        splits = list(GroupKFold(min(3, n_groups)).split(features, classes, groups))

        def held_out_loss(strength: float) -> float:
            total = 0.0
            for seen, held in splits:
                of_seen = weights_of(weights, seen)
                fitted = self._fit(features[seen], classes[seen], strength, of_seen)
                probabilities = fitted.predict(features[held])
                each = surprise(probabilities, classes[held], len(self.class_values))
                total += float((each if weights is None else each * weights[held]).sum())
            return total

        return self._fit(features, classes, min(strengths, key=held_out_loss), weights)

    def restore(self, arrays: Arrays) -> FittedSoftmax:
        """Return the linear functions."""
        return FittedSoftmax(**arrays)

    def _fit(
        self,
        features: Features,
        classes: npt.NDArray[np.int64],
        strength: float,
        sample_weights: Targets | None,
    ) -> FittedSoftmax:
        from sklearn.linear_model import LogisticRegression

        scaler = fitted_standardiser(features.astype(np.float64), sample_weights)
        seen = np.unique(classes)
        # A class without an image to learn from has no probability.
        weights = np.zeros((len(self.class_values), features.shape[1]))
        bias = np.full(len(self.class_values), -np.inf)
        bias[seen] = 0.0
        if len(seen) > 1:
            model = LogisticRegression(C=strength, max_iter=_STEPS)
            model.fit(scaler.transform(features.astype(np.float64)), classes, sample_weights)
            # Two classes have one function: the function of the second class.
            rows = seen if len(seen) > 2 else seen[1:]
            weights[rows], bias[rows] = model.coef_, model.intercept_
        return FittedSoftmax(scaler[0].mean_, scaler[0].scale_, weights, bias)
