"""A head on frozen features that gives probabilities of classes by an RBF kernel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from foldsmith.models.feature_heads import classes_of, weights_of
from foldsmith.models.fitted_arrays import Arrays
from foldsmith.models.fitted_heads import (
    Features,
    FittedKernelClasses,
    Targets,
    fitted_standardiser,
    gaussians,
    standardised,
)
from foldsmith.models.head_arguments import check_above_zero
from foldsmith.models.head_time import TimePart

# Most rows to choose strengths and widths by: the time grows with the cube of their number.
CHOSEN_BY = 1000
# Number of parts, each of which is held out once for the choice.
_PARTS = 10
# Logarithm of the factor from scores to logits.
_SHARPNESS = (-1.0, 5.0)


@dataclass(frozen=True)
class KernelHead:
    """Regularised least squares with an RBF kernel on standardised features, for classes.

    Scores are fitted to 1 for the class of an image and 0 for the others (least-squares support
    vector machine: Suykens and Vandewalle 1999), and a softmax makes probabilities of them. All is
    in closed form, held-out predictions for the choice included. It takes the cube of the number
    of images: seconds up to 5,000; beyond 10,000 take LogisticHead.

    Attributes:
        class_values: Target value of each class.
        alpha: Strengths of the regularisation to choose from, by the log loss of a grouped 10-fold
            cross-validation within the training folds (of rows, if there is a single group).
        gamma: exp(-gamma d^2 / n_features) is the kernel at the distance d; to choose from
            likewise.
    """

    class_values: Sequence[float]
    alpha: tuple[float, ...] = (0.001, 0.01, 0.03, 0.1, 0.3, 1, 3)
    gamma: tuple[float, ...] = (0.25, 0.5, 1, 2)

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
    ) -> FittedKernelClasses:
        """Choose by groups, then fit to all; only the rows to choose by are drawn."""
        rows = _Rows.of(features, targets, self.class_values, weights)
        return self._solved(rows, *self._choice(rows, groups, seed))

    def time_parts(self, n_features: int) -> tuple[TimePart, ...]:
        """Return the times of the choice, by a limited number of rows, and of the fit to all."""

        def choice(
            features: Features, targets: Targets, groups: npt.NDArray[np.int64], seed: int
        ) -> None:
            self._choice(_Rows.of(features, targets, self.class_values), groups, seed)

        def fit(
            features: Features, targets: Targets, groups: npt.NDArray[np.int64], seed: int
        ) -> FittedKernelClasses:
            rows = _Rows.of(features, targets, self.class_values)
            return self._solved(rows, self.gamma[0], self.alpha[0], 1.0)

        return TimePart(choice, rows=CHOSEN_BY), TimePart(fit)

    def _solved(
        self, rows: "_Rows", gamma: float, alpha: float, sharpness: float
    ) -> FittedKernelClasses:
        """Return the head with chosen values, fitted to all rows."""
        inputs, wanted = rows.scaled.inputs, rows.wanted
        means = np.average(wanted, axis=0, weights=rows.weights)
        weights = np.zeros((len(inputs), len(self.class_values)))
        weights[:, rows.seen] = solved(
            gaussians(inputs, inputs, gamma / inputs.shape[1]), alpha, wanted - means, rows.weights
        )
        bias = np.full(len(self.class_values), -np.inf)
        bias[rows.seen] = means
        return FittedKernelClasses(
            mean=rows.scaled.mean,
            scale=rows.scaled.scale,
            centres=inputs,
            weights=weights.astype(np.float32),
            gamma=gamma / inputs.shape[1],
            bias=bias,
            sharpness=sharpness,
        )

    def _choice(
        self, rows: "_Rows", groups: npt.NDArray[np.int64], seed: int
    ) -> tuple[float, float, float]:
        """Return gamma, alpha and sharpness, chosen by some of the rows."""
        some = some_rows(groups, seed)
        weights = weights_of(rows.weights, some)
        return self._chosen(rows.scaled.inputs[some], rows.wanted[some], groups[some], weights)

    def restore(self, arrays: Arrays) -> FittedKernelClasses:
        """Return the sums of Gaussians."""
        return FittedKernelClasses(**arrays)

    def _chosen(
        self,
        inputs: Features,
        wanted: Targets,
        groups: npt.NDArray[np.int64],
        weights: Targets | None,
    ) -> tuple[float, float, float]:
        """Return gamma, alpha and sharpness with the least held-out log loss."""
        parts = parts_of_groups(groups)
        best = (np.inf, 0.0, 0.0, 0.0)
        for gamma in sorted(self.gamma):
            kernel = weighted_kernel(gaussians(inputs, inputs, gamma / inputs.shape[1]), weights)
            values, vectors = np.linalg.eigh(kernel)
            for alpha in sorted(self.alpha):
                regularised = np.maximum(values, 0) + alpha
                scores = held_out_scores(regularised, vectors, wanted, parts, weights)
                loss, sharpness = _sharpest(scores, wanted, weights)
                best = min(best, (loss, gamma, alpha, sharpness))
        return best[1:]


class ScaledFeatures(NamedTuple):
    """Standardised features.

    Attributes:
        mean: Mean of each feature, shape (n_features,).
        scale: Deviation of each feature, shape (n_features,).
        inputs: Standardised features, float32, shape (n, n_features).
    """

    mean: Targets
    scale: Targets
    inputs: Features

    @classmethod
    def of(cls, features: Features, weights: Targets | None) -> "ScaledFeatures":
        """Standardise features by the mean and deviation of weighted rows."""
        scaler = fitted_standardiser(features.astype(np.float64), weights)[0]
        inputs = standardised(features, scaler.mean_, scaler.scale_).astype(np.float32)
        return cls(scaler.mean_, scaler.scale_, inputs)


@dataclass(frozen=True)
class _Rows:
    """Standardised features, and the scores to learn.

    Attributes:
        scaled: The features.
        seen: Classes of the rows; a class without a row to learn from has no probability.
        wanted: 1 for the class of a row and 0 for others, shape (n, n_seen).
        weights: Weight of each row, above 0, shape (n,); None for 1 each.
    """

    scaled: ScaledFeatures
    seen: npt.NDArray[np.int64]
    wanted: Targets
    weights: Targets | None = None

    @classmethod
    def of(
        cls,
        features: Features,
        targets: Targets,
        class_values: Sequence[float],
        weights: Targets | None = None,
    ) -> "_Rows":
        """Return the rows of features and targets."""
        classes = classes_of(targets, class_values)
        seen = np.unique(classes)
        wanted = (classes[:, None] == seen).astype(np.float64)
        return cls(ScaledFeatures.of(features, weights), seen, wanted, weights)


def some_rows(groups: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """Return at most 1,000 rows, of whole groups except the last."""
    if len(groups) <= CHOSEN_BY:
        return np.arange(len(groups))
    _, of_group = np.unique(groups, return_inverse=True)
    place = np.random.default_rng(seed).permutation(of_group.max() + 1)
    rows: npt.NDArray[np.int64] = np.argsort(place[of_group], kind="stable")[:CHOSEN_BY]
    return rows


def parts_of_groups(groups: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Return the rows of each part that is held out; the rows of a group are in one part."""
    from sklearn.model_selection import GroupKFold

    if len(np.unique(groups)) < 2:
        groups = np.arange(len(groups))
    n_parts = min(_PARTS, len(np.unique(groups)))
    if n_parts < 2:
        return [np.arange(len(groups))]
    return [held for _, held in GroupKFold(n_parts).split(groups, groups=groups)]


def weighted_kernel(kernel: Targets, weights: Targets | None) -> Targets:
    """Return the kernel of a problem without weights that has the same solution.

    With weights w of the squared errors, the coefficients a solve (K + alpha / w) a = y. Multiplied
    by the roots r of the weights, this is (r K r + alpha) (a / r) = r y, a problem without weights.

    Args:
        kernel: Shape (n, n); it may be changed.
        weights: Weight of each row, above 0, shape (n,); None for 1 each.
    """
    if weights is None:
        return kernel
    roots = np.sqrt(weights)
    kernel *= roots[:, None]
    kernel *= roots
    return kernel


def solved(
    kernel: Targets, alpha: float, centred: Targets, weights: Targets | None = None
) -> Targets:
    """Return the coefficients of regularised least squares, shape (n, n_classes).

    Args:
        kernel: Shape (n, n); it is changed.
        alpha: Strength of the regularisation.
        centred: Scores to learn without their means, shape (n, n_classes).
        weights: Weight of each row, above 0, shape (n,); None for 1 each.
    """
    from scipy.linalg import cho_factor, cho_solve

    kernel = weighted_kernel(kernel, weights)
    kernel[np.diag_indices(len(kernel))] += alpha
    factor = cho_factor(kernel, lower=True, overwrite_a=True)
    if weights is None:
        coefficients: Targets = cho_solve(factor, centred)
        return coefficients
    roots = np.sqrt(weights)[:, None]
    weighted: Targets = roots * cho_solve(factor, roots * centred)
    return weighted


def held_out_scores(
    values: Targets,
    vectors: Targets,
    wanted: Targets,
    parts: list[npt.NDArray[np.int64]],
    row_weights: Targets | None = None,
) -> Targets:
    """Return the scores of each part from the other parts, without fitting again.

    With the inverse G of the regularised kernel, the error of a held-out part is
    (G_part)^-1 (G y)_part.

    Args:
        values: Eigenvalues of the regularised kernel, shape (n,).
        vectors: Its eigenvectors, shape (n, n).
        wanted: Scores to learn, shape (n, n_classes).
        parts: Rows of each part.
        row_weights: Weights of the rows, with which :func:`weighted_kernel` has made the kernel;
            None for 1 each.
    """
    centred = wanted - np.average(wanted, axis=0, weights=row_weights)
    roots = None if row_weights is None else np.sqrt(row_weights)[:, None]
    if roots is not None:
        centred = roots * centred
    weights = vectors @ ((vectors.T @ centred) / values[:, None])
    scores = wanted.copy()
    for part in parts:
        inverse = (vectors[part] / values) @ vectors[part].T
        errors = np.linalg.solve(inverse, weights[part])
        scores[part] -= errors if roots is None else errors / roots[part]
    return scores


def _sharpest(
    scores: Targets, wanted: Targets, weights: Targets | None = None
) -> tuple[float, float]:
    """Return the least log loss of scores times a factor, and the factor."""
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    right = scores[wanted > 0]

    def loss(logarithm: float) -> float:
        factor = np.exp(logarithm)
        losses = logsumexp(factor * scores, axis=1) - factor * right
        return float(np.average(losses, weights=weights))

    found = minimize_scalar(loss, bounds=_SHARPNESS, method="bounded")
    return float(found.fun), float(np.exp(found.x))
