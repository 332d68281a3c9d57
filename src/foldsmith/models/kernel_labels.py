"""A head on frozen features that gives probabilities of several labels by an RBF kernel."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from foldsmith.models.feature_heads import weights_of
from foldsmith.models.fitted_arrays import ArrayFields, Arrays
from foldsmith.models.fitted_heads import (
    Features,
    Targets,
    gaussians,
    standardised,
)
from foldsmith.models.head_arguments import check_above_zero
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
from foldsmith.models.label_heads import weights_by_label, weights_over_labels
from foldsmith.models.logistic_curves import logistic_curve, squashed
from foldsmith.targets.scores_of_labels import surprise


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
        check_above_zero("alpha", self.alpha)
        check_above_zero("gamma", self.gamma)

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
        shared = weights_over_labels(weights)
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
        shared, of_labels = weights_over_labels(weights), weights_by_label(weights, wanted)
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
                loss = _log_loss(squashed(scores, found), labels, weights)
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
        return squashed(scores, self.curves)


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
