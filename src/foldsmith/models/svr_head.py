"""A head on frozen features that gives a number by support vector regression."""

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from foldsmith.models.feature_heads import weighted_variance, weights_of
from foldsmith.models.fitted_arrays import Arrays
from foldsmith.models.fitted_heads import Features, FittedKernel, Targets, fitted_standardiser


@dataclass(frozen=True)
class _KernelRows:
    """Standardised features and their kernel, for several support vector regressions.

    libsvm would compute a kernel for each of them, row by row, which takes most of the time with
    more than a few hundred features.
    """

    mean: Targets
    scale: Targets
    rows: Targets
    gamma: float
    kernel: Targets
    weights: Targets | None = None

    @classmethod
    def of(cls, features: Features, weights: Targets | None = None) -> "_KernelRows":
        """Standardise features, and compute their kernel."""
        from sklearn.metrics.pairwise import rbf_kernel

        inputs = features.astype(np.float64)
        scaler = fitted_standardiser(inputs, weights)
        rows = scaler.transform(inputs)
        # As documented by scikit-learn for gamma="scale".
        gamma = 1.0 / (rows.shape[1] * (weighted_variance(rows, weights) or 1.0))
        kernel = rbf_kernel(rows, gamma=gamma)
        return cls(scaler[0].mean_, scaler[0].scale_, rows, gamma, kernel, weights)

    def fit(self, targets: Targets, penalty: float, epsilon: float) -> FittedKernel:
        """Fit a support vector regression to the standardised targets."""
        from sklearn.svm import SVR

        mean = float(np.average(targets, weights=self.weights))
        scale = math.sqrt(weighted_variance(targets, self.weights))
        centres, weights, bias = self.rows[:0], targets[:0], mean
        # A tube that holds all targets has no support vectors, and its middle is the prediction.
        if scale > 0 and np.ptp(targets) > 2 * epsilon * scale:
            machine = SVR(kernel="precomputed", C=penalty, epsilon=epsilon)
            machine.fit(self.kernel, (targets - mean) / scale, self.weights)
            centres, weights = self.rows[machine.support_], machine.dual_coef_[0] * scale
            bias = float(machine.intercept_[0]) * scale + mean
        return FittedKernel(
            mean=self.mean,
            scale=self.scale,
            centres=centres,
            weights=weights,
            gamma=self.gamma,
            bias=bias,
        )


@dataclass(frozen=True)
class SVRHead:
    """Support vector regression with an RBF kernel on standardised features.

    Attributes:
        C: Penalties to choose from, by the squared error of a grouped 3-fold
            cross-validation within the training folds; of a single group the middle one is taken.
        epsilon: Half-widths of the tube without loss to choose from, in standard deviations of
            the target, which is standardised.
    """

    C: tuple[float, ...] = (0.3, 1, 3)
    epsilon: tuple[float, ...] = (0.2,)

    def fit(
        self,
        features: Features,
        targets: Targets,
        groups: npt.NDArray[np.int64],
        seed: int,
        weights: Targets | None = None,
    ) -> FittedKernel:
        """Choose by groups, then fit to all; nothing is drawn."""
        from sklearn.model_selection import GroupKFold

        n_groups, choices = len(np.unique(groups)), sorted(product(self.C, self.epsilon))
        whole = _KernelRows.of(features, weights)
        if n_groups < 2 or len(choices) < 2:
            # Nothing can be held out to choose by.
            middle = sorted(self.C)[len(self.C) // 2], sorted(self.epsilon)[len(self.epsilon) // 2]
            return whole.fit(targets, *middle)
        splits = [
            (
                _KernelRows.of(features[seen], weights_of(weights, seen)),
                *(targets[seen], features[held], targets[held], weights_of(weights, held)),
            )
            for seen, held in GroupKFold(min(3, n_groups)).split(features, targets, groups)
        ]

        def error(choice: tuple[float, float]) -> float:
            squares = [
                np.average(
                    np.square(rows.fit(wanted, *choice).predict(others) - missed), weights=of_held
                )
                for rows, wanted, others, missed, of_held in splits
            ]
            return float(np.mean(squares))

        return whole.fit(targets, *min(choices, key=error))

    def restore(self, arrays: Arrays) -> FittedKernel:
        """Return the sum of Gaussians."""
        return FittedKernel(**arrays)
