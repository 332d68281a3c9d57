"""Small models on the features of a frozen backbone: from feature vectors to a target."""

import inspect
import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from foldsmith.errors import ConfigError
from foldsmith.models.fitted_arrays import Arrays, part
from foldsmith.models.fitted_heads import (
    Features,
    FittedHead,
    FittedKernel,
    FittedLine,
    FittedMean,
    FittedNetwork,
    FittedSoftmax,
    FittedTrees,
    Targets,
    fitted_standardiser,
    gives_labels,
    standardised,
)
from foldsmith.models.forest import Forest, extra_trees
from foldsmith.models.head_time import TimePart, time_parts
from foldsmith.models.runtime import seed_everything
from foldsmith.targets.scores_of_classes import surprise

logger = logging.getLogger(__name__)

# Shares of classes in the leaves of all trees, float32: 512 MiB.
_MOST_SHARES = 2**27

# Of the solver of a logistic regression; features are standardised, and it mostly ends sooner.
_STEPS = 1000


class FeatureHead(Protocol):
    """Something that learns a target from features.

    One that gives probabilities of classes has an attribute ``class_values``: the target value of
    each class, in the order of the probabilities. Not empty.
    """

    def fit(
        self,
        features: Features,
        targets: Targets,
        groups: npt.NDArray[np.int64],
        seed: int,
        weights: Targets | None = None,
    ) -> FittedHead:
        """Learn from the images of the training folds.

        Args:
            features: Shape (n, n_features).
            targets: Shape (n,).
            groups: Group of each image, shape (n,): equal ones stay together in every split.
            seed: Seed of everything that is drawn.
            weights: Weight of each image, above 0, shape (n,), with the mean 1; several labels may
                have weights of their own, shape (n, n_labels). None for 1 each. A head of a
                project without this argument is fitted where nothing has a weight.
        """

    def restore(self, arrays: Arrays) -> FittedHead:
        """Return the fitted head from its arrays."""


@dataclass(frozen=True)
class RidgeHead:
    """Ridge regression on standardised features.

    Attributes:
        alphas: Strengths to choose from, by the leave-one-out error within the training folds.
        scaling: ``each``: every feature is divided by its own deviation; ``common``: all by the
            root of their mean variance, so that those that hardly vary remain small. The latter
            suits many features of one kind.
    """

    alphas: tuple[float, ...] = (1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5)
    scaling: Literal["each", "common"] = "each"

    def __post_init__(self) -> None:
        if self.scaling not in ("each", "common"):
            raise ConfigError(f"scaling: {self.scaling!r} must be each or common")
        if not self.alphas or min(self.alphas) <= 0:
            raise ConfigError(f"alphas: {list(self.alphas)} must be numbers above 0")

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
        weights = ridge.coef_ * spread
        return FittedLine(scaler.mean_, scaler.scale_, weights, float(ridge.intercept_))

    def restore(self, arrays: Arrays) -> FittedLine:
        """Return the line."""
        return FittedLine(**arrays)

    def time_parts(self, n_features: int) -> tuple[TimePart, ...]:
        """Return the time of the fit: the matrix to decompose is no larger than the features."""
        return (TimePart(self.fit, rows=n_features, power=1),)


def ridge_layer(
    features: Features, targets: Targets, sample_weights: Targets | None = None
) -> tuple[Targets, float]:
    """Return a linear layer by ridge regression, its strength by the leave-one-out error.

    Features are centred and scaled by one common factor, not each by its own standard deviation,
    because a layer cannot bound its inputs.

    Args:
        features: Shape (n, n_features).
        targets: Shape (n,).
        sample_weights: Weight of each row, shape (n,); None for 1 each.

    Returns:
        Weights, shape (n_features,), and bias.
    """
    from sklearn.linear_model import RidgeCV

    inputs = features.astype(np.float64)
    mean = inputs.mean(axis=0)
    scale = float(inputs.std(axis=0).mean()) or 1.0
    model = RidgeCV(alphas=np.asarray(RidgeHead().alphas))
    model.fit((inputs - mean) / scale, targets, sample_weights)
    weights: Targets = model.coef_ / scale
    return weights, float(model.intercept_ - weights @ mean)


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
        gamma = 1.0 / (rows.shape[1] * (_variance(rows, weights) or 1.0))
        kernel = rbf_kernel(rows, gamma=gamma)
        return cls(scaler[0].mean_, scaler[0].scale_, rows, gamma, kernel, weights)

    def fit(self, targets: Targets, penalty: float, epsilon: float) -> FittedKernel:
        """Fit a support vector regression to the standardised targets."""
        from sklearn.svm import SVR

        mean = float(np.average(targets, weights=self.weights))
        scale = math.sqrt(_variance(targets, self.weights))
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
                _KernelRows.of(features[seen], _part(weights, seen)),
                *(targets[seen], features[held], targets[held], _part(weights, held)),
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


@dataclass(frozen=True)
class MLPHead:
    """A hidden layer with dropout on standardised features, trained for a fixed time on a CPU.

    Attributes:
        hidden: Width of the hidden layer.
        dropout: Share of features and of hidden units that a step leaves out, 0..1.
        epochs: Passes over the training folds.
        batch_size: Images per step.
        lr: Learning rate at its height (one cycle, AdamW).
        weight_decay: Weight decay.
    """

    hidden: int = 256
    dropout: float = 0.5
    epochs: int = 30
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 1e-2

    def fit(
        self,
        features: Features,
        targets: Targets,
        groups: npt.NDArray[np.int64],
        seed: int,
        weights: Targets | None = None,
    ) -> FittedNetwork:
        """Train on the squared error of standardised targets."""
        seed_everything(seed)
        scaler = fitted_standardiser(features, weights)
        inputs = torch.from_numpy(scaler.transform(features).astype(np.float32))
        # Equal targets leave nothing to scale.
        mean = float(np.average(targets, weights=weights))
        scale = math.sqrt(_variance(targets, weights)) if np.ptp(targets) else 1.0
        importance = None if weights is None else torch.from_numpy(weights.astype(np.float32))
        wanted = torch.from_numpy(((targets - mean) / scale).astype(np.float32))
        model = nn.Sequential(
            nn.Dropout(self.dropout),
            nn.Linear(inputs.shape[1], self.hidden),
            nn.ReLU(),
            nn.Dropout(self.dropout),
            nn.Linear(self.hidden, 1),
        )
        optimizer = torch.optim.AdamW(model.parameters(), self.lr, weight_decay=self.weight_decay)
        steps = -(-len(inputs) // self.batch_size) * self.epochs
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=steps)
        for _ in range(self.epochs):
            for rows in torch.split(torch.randperm(len(inputs)), self.batch_size):
                outputs = model(inputs[rows])[:, 0]
                if importance is None:
                    loss = nn.functional.mse_loss(outputs, wanted[rows])
                else:
                    loss = (importance[rows] * (outputs - wanted[rows]) ** 2).mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                scheduler.step()
        hidden, hidden_bias, output, output_bias = (
            parameter.detach().numpy() for parameter in model.parameters()
        )
        return FittedNetwork(
            mean=scaler[0].mean_,
            scale=scaler[0].scale_,
            hidden=hidden,
            hidden_bias=hidden_bias,
            output=output,
            output_bias=output_bias,
            target_mean=mean,
            target_scale=scale,
        )

    def restore(self, arrays: Arrays) -> FittedNetwork:
        """Return the network."""
        return FittedNetwork(**arrays)


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
        if not self.C or min(self.C) <= 0:
            raise ConfigError(f"C: {list(self.C)} must be numbers above 0")

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

        classes = _classes_of(targets, self.class_values)
        n_groups, strengths = len(np.unique(groups)), sorted(self.C)
        if n_groups < 2 or len(strengths) < 2:
            return self._fit(features, classes, strengths[len(strengths) // 2], weights)
        splits = list(GroupKFold(min(3, n_groups)).split(features, classes, groups))

        def held_out_loss(strength: float) -> float:
            total = 0.0
            for seen, held in splits:
                fitted = self._fit(features[seen], classes[seen], strength, _part(weights, seen))
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
        # A class that is not there to learn from has no probability.
        weights = np.zeros((len(self.class_values), features.shape[1]))
        bias = np.full(len(self.class_values), -np.inf)
        bias[seen] = 0.0
        if len(seen) > 1:
            model = LogisticRegression(C=strength, max_iter=_STEPS)
            model.fit(scaler.transform(features.astype(np.float64)), classes, sample_weights)
            # Of two classes there is one function, for the second.
            rows = seen if len(seen) > 2 else seen[1:]
            weights[rows], bias[rows] = model.coef_, model.intercept_
        return FittedSoftmax(scaler[0].mean_, scaler[0].scale_, weights, bias)


def _classes_of(targets: Targets, class_values: Sequence[float]) -> npt.NDArray[np.int64]:
    """Return the class of each target (the one with the nearest value), shape (n,)."""
    classes: npt.NDArray[np.int64] = np.abs(targets[:, None] - np.asarray(class_values)).argmin(1)
    return classes


@dataclass(frozen=True)
class TreesHead:
    """Extremely randomised trees (Geurts et al. 2006), of numbers or of classes.

    Attributes:
        n_trees: Number of trees; of thousands of classes only as many as 512 MiB may hold, since
            each leaf has a share of every class.
        min_leaf: Fewest images of a leaf.
        max_features: Share of the features that a split chooses from, 0..1.
        class_values: Target value of each class, whose probabilities it gives then; none for a
            number.
    """

    n_trees: int = 300
    min_leaf: int = 3
    max_features: float = 0.3
    class_values: Sequence[float] = ()

    def __post_init__(self) -> None:
        if self.n_trees < 1 or self.min_leaf < 1 or not 0 < self.max_features <= 1:
            raise ConfigError(
                "TreesHead: n_trees and min_leaf must be at least 1, max_features in 0..1, not 0"
            )

    def fit(
        self,
        features: Features,
        targets: Targets,
        groups: npt.NDArray[np.int64],
        seed: int,
        weights: Targets | None = None,
    ) -> FittedTrees:
        """Grow the trees from the seed."""
        from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

        n_trees = self.n_trees
        if self.class_values:
            # A leaf has min_leaf images or more, and a tree at most as many other nodes.
            size = 2 * max(1, len(targets) // self.min_leaf) * len(self.class_values)
            n_trees = max(1, min(n_trees, _MOST_SHARES // size))
        if n_trees < self.n_trees:
            logger.info(
                f"note: TreesHead: {n_trees} trees, not {self.n_trees}: of "
                f"{len(self.class_values):,} classes more would take more than 512 MiB"
            )
        model = (ExtraTreesClassifier if self.class_values else ExtraTreesRegressor)(
            n_trees,
            min_samples_leaf=self.min_leaf,
            # Of 1, a whole number, scikit-learn would make one feature.
            max_features=float(self.max_features),
            random_state=seed,
            n_jobs=-1,
        )
        if not self.class_values:
            return FittedTrees(extra_trees(model.fit(features, targets, weights)))
        with warnings.catch_warnings():
            # Of many classes with few images each, scikit-learn wonders whether they are numbers.
            warnings.filterwarnings("ignore", message="The number of unique classes")
            model.fit(features, _classes_of(targets, self.class_values), weights)
        forest = extra_trees(model)
        shares = np.zeros((len(forest.value), len(self.class_values)), np.float32)
        shares[:, model.classes_] = forest.value
        return FittedTrees(replace(forest, value=shares))

    def restore(self, arrays: Arrays) -> FittedTrees:
        """Return the trees."""
        return FittedTrees(Forest(**arrays))


@dataclass(frozen=True)
class MeanHead:
    """The plain mean of several heads on the same features.

    Linear, smooth and piecewise constant functions err differently, so that their mean is
    mostly better than the best of them, and nothing has to be chosen.

    Attributes:
        heads: The heads.
    """

    heads: tuple[FeatureHead, ...]

    def __post_init__(self) -> None:
        if not self.heads:
            raise ConfigError("heads: there must be at least one")
        if len({(bool(_class_values(head)), gives_labels(head)) for head in self.heads}) > 1:
            raise ConfigError(
                "heads: must all give numbers, probabilities of classes, or those of labels"
            )

    @property
    def class_values(self) -> Sequence[float]:
        """Target value of each class, if the heads give probabilities."""
        return _class_values(self.heads[0])

    @property
    def gives_labels(self) -> bool:
        """Whether the heads give probabilities of several labels."""
        return gives_labels(self.heads[0])

    def fit(
        self,
        features: Features,
        targets: Targets,
        groups: npt.NDArray[np.int64],
        seed: int,
        weights: Targets | None = None,
    ) -> FittedMean:
        """Fit every head to the same images."""
        fitted = (fit_head(head, features, targets, groups, seed, weights) for head in self.heads)
        return FittedMean(tuple(fitted))

    def time_parts(self, n_features: int) -> tuple[TimePart, ...]:
        """Return the times of all heads."""
        return tuple(part for head in self.heads for part in time_parts(head, n_features))

    def restore(self, arrays: Arrays) -> FittedMean:
        """Return the heads."""
        parts = (head.restore(part(arrays, str(k))) for k, head in enumerate(self.heads))
        return FittedMean(tuple(parts))


def fit_head(
    head: FeatureHead,
    features: Features,
    targets: Targets,
    groups: npt.NDArray[np.int64],
    seed: int,
    weights: Targets | None,
) -> FittedHead:
    """Fit a head, with weights if there are any; those of a project may take none.

    Images of weight 0 are left out.

    Args:
        head: The head.
        features: As :meth:`FeatureHead.fit` takes them.
        targets: Likewise.
        groups: Likewise.
        seed: Likewise.
        weights: Likewise, at least 0.

    Raises:
        ConfigError: There are weights and the head takes none.
    """
    if weights is None:
        return head.fit(features, targets, groups, seed)
    if "weights" not in inspect.signature(head.fit).parameters:
        raise ConfigError(
            f"head: {type(head).__name__} takes no weights, but class_weights or the "
            "sample_weight_column of project.yml give some; give its fit a fifth argument named "
            "weights, take another head, or set globals/class_weights to none"
        )
    learned = weights > 0 if weights.ndim == 1 else (weights > 0).any(axis=1)
    return head.fit(
        *(features[learned], targets[learned], groups[learned], seed), weights=weights[learned]
    )


def _part(weights: Targets | None, rows: npt.NDArray[np.int64]) -> Targets | None:
    return None if weights is None else weights[rows]


def _variance(values: Targets, weights: Targets | None) -> float:
    """Return the variance of all values, (n,) or (n, k), with weights of their rows."""
    if weights is None:
        return float(values.var())
    rows = values.reshape(len(values), -1)
    mean = np.average(rows.mean(axis=1), weights=weights)
    return float(np.average(((rows - mean) ** 2).mean(axis=1), weights=weights))


def _class_values(head: FeatureHead) -> Sequence[float]:
    return tuple(getattr(head, "class_values", ()))


def gives_probabilities(head: FeatureHead) -> bool:
    """Return whether a head gives probabilities of classes."""
    return bool(_class_values(head))
