"""Heads on frozen features that give the probabilities of several labels per image."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from foldsmith.errors import ConfigError
from foldsmith.models.feature_heads import FeatureHead, fit_head, gives_probabilities, weights_of
from foldsmith.models.fitted_arrays import ArrayFields, Arrays, part, prefixed
from foldsmith.models.fitted_heads import (
    Features,
    FittedHead,
    FittedTrees,
    Targets,
    gaussians,
    gives_labels,
    standardised,
)
from foldsmith.models.forest import Forest
from foldsmith.models.head_time import TimePart
from foldsmith.models.kernel_head import (
    CHOSEN_BY,
    ScaledFeatures,
    held_out_scores,
    parts_of_groups,
    solved,
    some_rows,
    weighted_kernel,
)
from foldsmith.models.trees_head import TreesHead
from foldsmith.targets.scores_of_labels import surprise

# A label is learned as a class with these two values.
ABSENT_AND_PRESENT = (0.0, 1.0)

# Name of the logistic functions among the arrays of a head.
_CURVES = "curves"
# Number of parts, each of which is held out once to fit them.
_HELD_OUT = 3

# Most iterations of Newton's method for the two numbers of a logistic function.
_STEPS = 25
# Strength of a penalty on the slope, in rows, for scores that separate the labels.
_PENALTY = 1e-2


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
        columns = list(zip(targets.T, _by_label(weights, targets), strict=True))
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
            return _squashed(np.stack(found, axis=1), self.curves)
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
        shared = _over_labels(weights)
        forest = self._trees().fit(features, one, groups, seed, shared).forest
        # The trees of a single number have values without a second axis.
        value = forest.value.reshape(len(forest.value), -1)
        return FittedTrees(replace(forest, value=value), gives_labels=True)

    def restore(self, arrays: Arrays) -> FittedTrees:
        """Return the trees."""
        return FittedTrees(Forest(**arrays), gives_labels=True)


def _by_label(weights: Targets | None, targets: Targets) -> list[Targets] | list[None]:
    """Return the weights of the rows for each label, shape (n,), or None for 1 each."""
    if weights is None:
        return [None] * targets.shape[1]
    return list(np.broadcast_to(weights.reshape(len(weights), -1), targets.shape).T)


def _over_labels(weights: Targets | None) -> Targets | None:
    """Return the mean weight of each row over its labels, shape (n,), or None for 1 each."""
    return None if weights is None else weights.reshape(len(weights), -1).mean(axis=1)


@dataclass(frozen=True)
class KernelLabelsHead:
    """Regularised least squares with an RBF kernel on standardised features, for several labels.

    As :class:`~foldsmith.models.kernel_head.KernelHead`, with scores of 0 and 1 for each label; a
    logistic function per label, fitted to held-out scores (Platt 1999), makes probabilities of
    them. All labels share the kernel, so that a hundred of them take little longer than one: with
    ``class_weights`` the kernel is fitted with the mean of a row's weights over its labels, and
    each logistic function with the weights of its label.

    Attributes:
        alpha: Strengths of the regularisation to choose from, by the log loss of a grouped 10-fold
            cross-validation within the training folds (of rows, if there is a single group).
        gamma: exp(-gamma d^2 / n_features) is the kernel at the distance d; to choose from
            likewise.
    """

    alpha: tuple[float, ...] = (0.001, 0.01, 0.03, 0.1, 0.3, 1, 3)
    gamma: tuple[float, ...] = (0.25, 0.5, 1, 2)

    gives_labels = True

    def __post_init__(self) -> None:
        for name, values in (("alpha", self.alpha), ("gamma", self.gamma)):
            if not values or min(values) <= 0:
                raise ConfigError(f"{name}: {list(values)} must be numbers above 0")

    def fit(
        self,
        features: Features,
        targets: Targets,
        groups: npt.NDArray[np.int64],
        seed: int,
        weights: Targets | None = None,
    ) -> "FittedKernelLabels":
        """Choose by groups, then fit to all; only the rows to choose by are drawn."""
        rows = some_rows(groups, seed)
        # Labels share the kernel: it has the mean of a row's weights.
        shared = _over_labels(weights)
        scaled = ScaledFeatures.of(features, shared)
        chosen = self._chosen(
            *(scaled.inputs[rows], targets[rows], groups[rows], weights_of(weights, rows))
        )
        return self._solved(scaled, targets, *chosen, shared)

    def time_parts(self, n_features: int) -> tuple[TimePart, ...]:
        """Return the times of the choice, by a limited number of rows, and of the fit to all."""

        def choice(
            features: Features, targets: Targets, groups: npt.NDArray[np.int64], seed: int
        ) -> None:
            self._chosen(ScaledFeatures.of(features, None).inputs, targets, groups, None)

        def fit(
            features: Features, targets: Targets, groups: npt.NDArray[np.int64], seed: int
        ) -> FittedKernelLabels:
            curves = np.zeros((targets.shape[1], 2))
            chosen = self.gamma[0], self.alpha[0], curves
            return self._solved(ScaledFeatures.of(features, None), targets, *chosen, None)

        return TimePart(choice, rows=CHOSEN_BY), TimePart(fit)

    def _solved(
        self,
        scaled: ScaledFeatures,
        targets: Targets,
        gamma: float,
        alpha: float,
        curves: Targets,
        shared: Targets | None,
    ) -> "FittedKernelLabels":
        """Return the head with chosen values, fitted to all rows."""
        inputs = scaled.inputs
        kernel = gaussians(inputs, inputs, gamma / inputs.shape[1])
        means = np.average(targets, axis=0, weights=shared)
        weights = solved(kernel, alpha, targets - means, shared)
        return FittedKernelLabels(
            mean=scaled.mean,
            scale=scaled.scale,
            centres=inputs,
            weights=weights.astype(np.float32),
            gamma=gamma / inputs.shape[1],
            bias=means,
            curves=curves,
        )

    def restore(self, arrays: Arrays) -> "FittedKernelLabels":
        """Return the sums of Gaussians."""
        return FittedKernelLabels(**arrays)

    def _chosen(
        self,
        inputs: Features,
        wanted: Targets,
        groups: npt.NDArray[np.int64],
        weights: Targets | None,
    ) -> tuple[float, float, Targets]:
        """Return gamma and alpha with the least held-out log loss, and the logistic functions.

        Args:
            inputs: Standardised features.
            wanted: Labels of 0 and 1.
            groups: Group of each row.
            weights: Weight of each row, or of each row and label; None for 1 each.
        """
        parts = parts_of_groups(groups)
        shared, of_labels = _over_labels(weights), _by_label(weights, wanted)
        labels = wanted.astype(np.int64)
        best = (np.inf, 0.0, 0.0)
        curves = np.zeros((wanted.shape[1], 2))
        for gamma in sorted(self.gamma):
            kernel = weighted_kernel(gaussians(inputs, inputs, gamma / inputs.shape[1]), shared)
            values, vectors = np.linalg.eigh(kernel)
            for alpha in sorted(self.alpha):
                regularised = np.maximum(values, 0) + alpha
                scores = held_out_scores(regularised, vectors, wanted, parts, shared)
                columns = zip(scores.T, wanted.T, of_labels, strict=True)
                found = np.stack([logistic_curve(*column) for column in columns])
                loss = _log_loss(_squashed(scores, found), labels, weights)
                if (loss, gamma, alpha) < best:
                    best, curves = (loss, gamma, alpha), found
        return best[1], best[2], curves


@dataclass(frozen=True)
class FittedKernelLabels(ArrayFields):
    """Probabilities of labels: logistic functions of sums of Gaussians around training images.

    Attributes:
        mean: Mean of each feature, shape (n_features,).
        scale: Deviation of each feature, shape (n_features,).
        centres: Standardised features of those images, float32, shape (n_centres, n_features).
        weights: float32, shape (n_centres, n_labels).
        gamma: exp(-gamma d^2) is the Gaussian at the distance d.
        bias: Shape (n_labels,).
        curves: Slope and intercept of each label's logistic function, shape (n_labels, 2).
    """

    mean: Targets
    scale: Targets
    centres: Features
    weights: Features
    gamma: Any
    bias: Targets
    curves: Targets

    gives_labels = True

    def predict(self, features: Features) -> Targets:
        """Return the probabilities, shape (n, n_labels)."""
        inputs = standardised(features, self.mean, self.scale).astype(np.float32)
        scores = gaussians(inputs, self.centres, float(self.gamma)) @ self.weights + self.bias
        return _squashed(scores, self.curves)


def logistic_curve(scores: Targets, labels: Targets, weights: Targets | None = None) -> Targets:
    """Return slope and intercept of the logistic function of scores with the least log loss.

    Targets are those of Platt ("Probabilistic Outputs for Support Vector Machines", 1999), a
    little off 0 and 1, so that the slope stays finite. A falling function becomes a constant one.

    Args:
        scores: Shape (n,).
        labels: 0 or 1, shape (n,).
        weights: Weight of each image, at least 0, shape (n,); None for 1 each.
    """
    from scipy.special import expit, logit

    importance = np.ones(len(labels)) if weights is None else weights
    n_present = float(labels @ importance)
    n_absent = float(importance.sum()) - n_present
    wanted = np.where(labels > 0, (n_present + 1) / (n_present + 2), 1 / (n_absent + 2))
    constant = np.array([0.0, float(logit(np.average(wanted, weights=weights)))])
    spread = float(scores.std())
    if spread == 0 or not n_present or not n_absent:
        return constant
    centre = float(scores.mean())
    inputs = np.stack([(scores - centre) / spread, np.ones(len(scores))], axis=1)
    found = constant.copy()
    for _ in range(_STEPS):
        probabilities = expit(inputs @ found)
        slope = inputs.T @ (importance * (probabilities - wanted)) + [_PENALTY * found[0], 0.0]
        curvature = (
            inputs * (importance * probabilities * (1 - probabilities))[:, None]
        ).T @ inputs
        curvature[0, 0] += _PENALTY
        curvature[np.diag_indices(2)] += 1e-9
        step = np.linalg.solve(curvature, slope)
        # Newton's steps from the constant may be too long.
        found = found - step * min(1.0, 4.0 / float(np.abs(step).max() or 1.0))
        if np.abs(step).max() < 1e-10:
            break
    if found[0] <= 0:
        return constant
    return np.array([found[0] / spread, found[1] - found[0] * centre / spread])


def _log_loss(
    probabilities: Targets, labels: npt.NDArray[np.int64], weights: Targets | None
) -> float:
    """Return the mean log loss; weights are those of rows, or of rows and labels."""
    if weights is None:
        return float(surprise(probabilities, labels).mean())
    columns = [
        surprise(probabilities[:, k : k + 1], labels[:, k : k + 1]) for k in range(labels.shape[1])
    ]
    return float((np.stack(columns, axis=1) * weights.reshape(len(weights), -1)).mean())


def _squashed(scores: Targets, curves: Targets) -> Targets:
    from scipy.special import expit

    probabilities: Targets = expit(scores * curves[:, 0] + curves[:, 1])
    return probabilities
