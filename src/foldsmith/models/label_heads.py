"""Heads on frozen features that give the probabilities of several labels per image."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from foldsmith.errors import ConfigError
from foldsmith.models.feature_heads import FeatureHead, fit_head, gives_probabilities, weights_of
from foldsmith.models.fitted_arrays import Arrays, part, prefixed
from foldsmith.models.fitted_heads import (
    Features,
    FittedHead,
    FittedTrees,
    Targets,
    gives_labels,
)
from foldsmith.models.forest import Forest
from foldsmith.models.logistic_curves import logistic_curve, squashed
from foldsmith.models.trees_head import TreesHead

# A label is learned as a class with these two values.
ABSENT_AND_PRESENT = (0.0, 1.0)

# Name of the logistic functions among the arrays of a head.
_CURVES = "curves"
# Number of parts, each of which is held out once to fit them.
_HELD_OUT = 3


@dataclass(frozen=True)
class LabelsHead:
    """A head for each label, all on the same features.

    A head of two classes gives its probabilities. One of numbers, such as SVRHead, is fitted to 0
    and 1; a logistic function, fitted to scores that are held out by groups (Platt 1999), makes
    probabilities of its numbers.

    Attributes:
        head: Fitted to each label by itself: one of numbers, or with ``class_values: [0, 1]``.
    """

    head: FeatureHead

    gives_labels = True

    def __post_init__(self) -> None:
        values = tuple(map(float, getattr(self.head, "class_values", ())))
        if gives_labels(self.head) or values not in ((), ABSENT_AND_PRESENT):
            raise ConfigError(
                f"LabelsHead: head: {type(self.head).__name__} must give a number or the "
                "probabilities of two classes; set its class_values: [0, 1]"
            )

    def fit(
        self,
        features: Features,
        targets: Targets,
        groups: npt.NDArray[np.int64],
        seed: int,
        weights: Targets | None = None,
    ) -> "FittedLabels":
        """Fit one head per label; targets have the shape (n, n_labels)."""
        columns = list(zip(targets.T, weights_by_label(weights, targets), strict=True))
        heads = tuple(
            fit_head(self.head, features, column, groups, seed, of_label)
            for column, of_label in columns
        )
        if gives_probabilities(self.head):
            return FittedLabels(heads)
        curves = [self._curve(features, column, groups, seed, each) for column, each in columns]
        return FittedLabels(heads, np.stack(curves))

    def _curve(
        self,
        features: Features,
        column: Targets,
        groups: npt.NDArray[np.int64],
        seed: int,
        weights: Targets | None,
    ) -> Targets:
        """Return the logistic function of one label, by held-out numbers."""
        from sklearn.model_selection import GroupKFold

        n_groups, scores = len(np.unique(groups)), np.empty(len(column))
        if n_groups < 2:
            # Nothing can be held out of a single group: take the frequency of the label.
            return logistic_curve(np.zeros(len(column)), column, weights)
        for seen, held in GroupKFold(min(_HELD_OUT, n_groups)).split(features, column, groups):
            of_seen = weights_of(weights, seen)
            fitted = fit_head(self.head, features[seen], column[seen], groups[seen], seed, of_seen)
            scores[held] = fitted.predict(features[held])
        return logistic_curve(scores, column, weights)

    def restore(self, arrays: Arrays) -> "FittedLabels":
        """Return the head of each label."""
        curves = arrays.get(_CURVES)
        n_labels = len({key.partition(".")[0] for key in arrays if key != _CURVES})
        heads = tuple(self.head.restore(part(arrays, str(k))) for k in range(n_labels))
        return FittedLabels(heads, curves)


@dataclass(frozen=True)
class FittedLabels:
    """One fitted head per label.

    Attributes:
        heads: The heads.
        curves: Slope and intercept of each label's logistic function, shape (n_labels, 2), if the
            heads give numbers.
    """

    heads: tuple[FittedHead, ...]
    curves: Targets | None = None

    gives_labels = True

    def predict(self, features: Features) -> Targets:
        """Return the probabilities of the labels, shape (n, n_labels)."""
        found = [head.predict(features) for head in self.heads]
        if self.curves is not None:
            return squashed(np.stack(found, axis=1), self.curves)
        return np.stack([probabilities[:, 1] for probabilities in found], axis=1)

    def arrays(self) -> Arrays:
        """Return the heads' arrays, by the numbers of the labels."""
        found: Arrays = {} if self.curves is None else {_CURVES: self.curves}
        for number, head in enumerate(self.heads):
            found |= prefixed(str(number), head.arrays())
        return found


@dataclass(frozen=True)
class TreesLabelsHead:
    """Extremely randomised trees (Geurts et al. 2006) of several labels, all in the same trees.

    A split lowers the impurity of all labels together; a leaf contains the share of its images
    that have each label.

    Attributes:
        n_trees: Number of trees.
        min_leaf: Fewest images of a leaf.
        max_features: Share of the features that a split chooses from, 0..1.
    """

    n_trees: int = 300
    min_leaf: int = 3
    max_features: float = 0.3

    gives_labels = True

    def __post_init__(self) -> None:
        self._trees()

    def _trees(self) -> TreesHead:
        """Return the head of numbers that grows the trees and checks the arguments."""
        return TreesHead(self.n_trees, self.min_leaf, self.max_features)

    def fit(
        self,
        features: Features,
        targets: Targets,
        groups: npt.NDArray[np.int64],
        seed: int,
        weights: Targets | None = None,
    ) -> FittedTrees:
        """Grow the trees from the seed; targets have the shape (n, n_labels).

        Labels share the trees: these have the mean of a row's weights over its labels.
        """
        # For 0 and 1 the squared error is Gini's impurity times a factor.
        one = targets[:, 0] if targets.shape[1] == 1 else targets
        shared = weights_over_labels(weights)
        forest = self._trees().fit(features, one, groups, seed, shared).forest
        # The trees of a single number have values without a second axis.
        value = forest.value.reshape(len(forest.value), -1)
        return FittedTrees(replace(forest, value=value), gives_labels=True)

    def restore(self, arrays: Arrays) -> FittedTrees:
        """Return the trees."""
        return FittedTrees(Forest(**arrays), gives_labels=True)


def weights_by_label(weights: Targets | None, targets: Targets) -> list[Targets] | list[None]:
    """Return the weights of the rows for each label, shape (n,), or None for 1 each."""
    if weights is None:
        return [None] * targets.shape[1]
    return list(np.broadcast_to(weights.reshape(len(weights), -1), targets.shape).T)


def weights_over_labels(weights: Targets | None) -> Targets | None:
    """Return the mean weight of each row over its labels, shape (n,), or None for 1 each."""
    return None if weights is None else weights.reshape(len(weights), -1).mean(axis=1)
