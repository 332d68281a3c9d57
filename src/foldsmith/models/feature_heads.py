"""Small models on the features of a frozen backbone: from feature vectors to a target."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from foldsmith.config import Types
from foldsmith.errors import ConfigError
from foldsmith.models.runtime import seed_everything

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

Features = npt.NDArray[np.float32]
Targets = npt.NDArray[np.float64]

# From features, shape (n, n_features), to predictions, shape (n,), or to probabilities of classes,
# shape (n, n_classes).
Predictor = Callable[[Features], Targets]


# Standard deviations from the mean at which standardised features end: one that hardly varies
# among the photos of a training can be far out in another photo, and then outweighs all others.
_FARTHEST = 5.0

# Of the solver of a logistic regression; features are standardised, and it mostly ends sooner.
_STEPS = 1000

# No probability counts as less when strengths are compared.
_LEAST = 1e-12


def _standardise() -> "Pipeline":
    """Return a transformer that standardises features and bounds them."""
    # Here, not above, as everywhere in this file: few commands need scikit-learn, which takes long.
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    bound = FunctionTransformer(np.clip, kw_args={"a_min": -_FARTHEST, "a_max": _FARTHEST})
    return make_pipeline(StandardScaler(), bound)


class FeatureHead(Protocol):
    """Something that learns a target from features.

    One that gives probabilities of classes has an attribute ``class_values``: the target value of
    each class, in the order of the probabilities. Not empty.
    """

    def fit(
        self, features: Features, targets: Targets, groups: npt.NDArray[np.int64], seed: int
    ) -> Predictor:
        """Learn from the photos of the training folds.

        Args:
            features: Shape (n, n_features).
            targets: Shape (n,).
            groups: Group of each photo, shape (n,): equal ones stay together in every split.
            seed: Seed of everything that is drawn.
        """


@dataclass(frozen=True)
class RidgeHead:
    """Ridge regression on standardised features.

    Attributes:
        alphas: Strengths to choose from, by the leave-one-out error within the training folds.
    """

    alphas: tuple[float, ...] = (1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5)

    def __post_init__(self) -> None:
        if not self.alphas or min(self.alphas) <= 0:
            raise ConfigError(f"alphas: {list(self.alphas)} must be numbers above 0")

    def fit(
        self, features: Features, targets: Targets, groups: npt.NDArray[np.int64], seed: int
    ) -> Predictor:
        """Fit in closed form; nothing is drawn."""
        from sklearn.linear_model import RidgeCV
        from sklearn.pipeline import make_pipeline

        model = make_pipeline(_standardise(), RidgeCV(alphas=np.asarray(self.alphas, np.float64)))
        model.fit(features.astype(np.float64), targets)
        return lambda unseen: np.asarray(model.predict(unseen.astype(np.float64)))


def ridge_layer(features: Features, targets: Targets) -> tuple[Targets, float]:
    """Return a linear layer by ridge regression, its strength by the leave-one-out error.

    Features are centred and scaled alike, not each by its own deviation: a layer cannot bound
    what it is given.

    Args:
        features: Shape (n, n_features).
        targets: Shape (n,).

    Returns:
        Weights, shape (n_features,), and bias.
    """
    from sklearn.linear_model import RidgeCV

    inputs = features.astype(np.float64)
    mean = inputs.mean(axis=0)
    scale = float(inputs.std(axis=0).mean()) or 1.0
    model = RidgeCV(alphas=np.asarray(RidgeHead().alphas)).fit((inputs - mean) / scale, targets)
    weights: Targets = model.coef_ / scale
    return weights, float(model.intercept_ - weights @ mean)


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
        self, features: Features, targets: Targets, groups: npt.NDArray[np.int64], seed: int
    ) -> Predictor:
        """Choose by groups, then fit to all; nothing is drawn."""
        from sklearn.model_selection import GridSearchCV, GroupKFold
        from sklearn.pipeline import make_pipeline
        from sklearn.svm import SVR

        mean, scale = float(targets.mean()), float(targets.std()) or 1.0
        wanted = (targets - mean) / scale
        n_groups = len(np.unique(groups))
        if n_groups < 2:
            # Nothing can be held out to choose by.
            middle = sorted(self.C)[len(self.C) // 2], sorted(self.epsilon)[len(self.epsilon) // 2]
            model = make_pipeline(_standardise(), SVR(C=middle[0], epsilon=middle[1]))
            model.fit(features.astype(np.float64), wanted)
            return lambda unseen: (
                np.asarray(model.predict(unseen.astype(np.float64))) * scale + mean
            )
        search = GridSearchCV(
            make_pipeline(_standardise(), SVR()),
            {"svr__C": list(self.C), "svr__epsilon": list(self.epsilon)},
            scoring="neg_mean_squared_error",
            cv=GroupKFold(min(3, n_groups)),
        )
        search.fit(features.astype(np.float64), wanted, groups=groups)
        return lambda unseen: np.asarray(search.predict(unseen.astype(np.float64))) * scale + mean


@dataclass(frozen=True)
class MLPHead:
    """A hidden layer with dropout on standardised features, trained for a fixed time on a CPU.

    Attributes:
        hidden: Width of the hidden layer.
        dropout: Share of features and of hidden units that a step leaves out, 0..1.
        epochs: Passes over the training folds.
        batch_size: Photos per step.
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
        self, features: Features, targets: Targets, groups: npt.NDArray[np.int64], seed: int
    ) -> Predictor:
        """Train on the squared error of standardised targets."""
        seed_everything(seed)
        scaler = _standardise().fit(features)
        inputs = torch.from_numpy(scaler.transform(features).astype(np.float32))
        mean, scale = float(targets.mean()), float(targets.std()) or 1.0
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
                loss = nn.functional.mse_loss(model(inputs[rows])[:, 0], wanted[rows])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                scheduler.step()
        model.eval()

        @torch.inference_mode()
        def predict(unseen: Features) -> Targets:
            outputs = model(torch.from_numpy(scaler.transform(unseen).astype(np.float32)))
            standardised: npt.NDArray[np.float32] = outputs[:, 0].numpy()
            return standardised.astype(np.float64) * scale + mean

        return predict


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
        self, features: Features, targets: Targets, groups: npt.NDArray[np.int64], seed: int
    ) -> Predictor:
        """Choose by groups, then fit to all; nothing is drawn."""
        from sklearn.model_selection import GroupKFold

        classes = _classes_of(targets, self.class_values)
        n_groups, strengths = len(np.unique(groups)), sorted(self.C)
        if n_groups < 2 or len(strengths) < 2:
            return self._fit(features, classes, strengths[len(strengths) // 2])
        splits = list(GroupKFold(min(3, n_groups)).split(features, classes, groups))

        def surprise(strength: float) -> float:
            total = 0.0
            for seen, held in splits:
                given = self._fit(features[seen], classes[seen], strength)(features[held])
                of_truth = given[np.arange(len(held)), classes[held]]
                total -= float(np.log(np.maximum(of_truth, _LEAST)).sum())
            return total

        return self._fit(features, classes, min(strengths, key=surprise))

    def _fit(
        self, features: Features, classes: npt.NDArray[np.int64], strength: float
    ) -> Predictor:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        seen = np.unique(classes)
        n_classes = len(self.class_values)
        if len(seen) == 1:
            return lambda unseen: np.tile(np.eye(n_classes)[seen[0]], (len(unseen), 1))
        logistic = LogisticRegression(C=strength, max_iter=_STEPS)
        model = make_pipeline(_standardise(), logistic)
        model.fit(features.astype(np.float64), classes)
        return lambda unseen: _of_all_classes(
            model.predict_proba(unseen.astype(np.float64)), seen, n_classes
        )


def _classes_of(targets: Targets, class_values: Sequence[float]) -> npt.NDArray[np.int64]:
    """Return the class of each target, that of the nearest value, shape (n,)."""
    classes: npt.NDArray[np.int64] = np.abs(targets[:, None] - np.asarray(class_values)).argmin(1)
    return classes


def _of_all_classes(given: Targets, seen: npt.NDArray[np.int64], n_classes: int) -> Targets:
    """Return probabilities of all classes: one that was not there to learn from has none."""
    probabilities = np.zeros((len(given), n_classes))
    probabilities[:, seen] = given
    return probabilities


@dataclass(frozen=True)
class TreesHead:
    """Extremely randomised trees (Geurts et al. 2006), of numbers or of classes.

    Attributes:
        n_trees: Number of trees.
        min_leaf: Fewest photos of a leaf.
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
        self, features: Features, targets: Targets, groups: npt.NDArray[np.int64], seed: int
    ) -> Predictor:
        """Grow the trees from the seed."""
        from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

        model = (ExtraTreesClassifier if self.class_values else ExtraTreesRegressor)(
            self.n_trees,
            min_samples_leaf=self.min_leaf,
            # Of 1, a whole number, scikit-learn would make one feature.
            max_features=float(self.max_features),
            random_state=seed,
            n_jobs=-1,
        )
        wanted = _classes_of(targets, self.class_values) if self.class_values else targets
        model.fit(features, wanted)
        # The same trees on any number of cores, but several would add them up in any order.
        model.n_jobs = 1
        if self.class_values:
            return lambda unseen: _of_all_classes(
                model.predict_proba(unseen), model.classes_, len(self.class_values)
            )
        return lambda unseen: np.asarray(model.predict(unseen))


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
        if len({bool(_class_values(head)) for head in self.heads}) > 1:
            raise ConfigError("heads: some give numbers and some probabilities of classes")

    @property
    def class_values(self) -> Sequence[float]:
        """Target value of each class, if the heads give probabilities."""
        return _class_values(self.heads[0])

    def fit(
        self, features: Features, targets: Targets, groups: npt.NDArray[np.int64], seed: int
    ) -> Predictor:
        """Fit every head to the same photos."""
        predictors = [head.fit(features, targets, groups, seed) for head in self.heads]
        return lambda unseen: np.mean([predict(unseen) for predict in predictors], axis=0)


def _class_values(head: FeatureHead) -> Sequence[float]:
    return tuple(getattr(head, "class_values", ()))


def gives_probabilities(head: FeatureHead) -> bool:
    """Return whether a head gives probabilities of classes."""
    return bool(_class_values(head))


TYPES: Types = {
    "LogisticHead": LogisticHead,
    "RidgeHead": RidgeHead,
    "SVRHead": SVRHead,
    "TreesHead": TreesHead,
    "MLPHead": MLPHead,
    "MeanHead": MeanHead,
}
