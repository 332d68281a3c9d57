"""Fitted heads on frozen features: plain arrays and their predictions."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from foldsmith.models.fitted_arrays import ArrayFields, Arrays, prefixed
from foldsmith.models.forest import Forest

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

Features = npt.NDArray[np.float32]
Targets = npt.NDArray[np.float64]

# Standard deviations from the mean at which standardised features end: one that hardly varies
# among the images of a training can be far out in another image, and then outweighs all others.
_FARTHEST = 5.0

# Numbers of trees that are in memory at once.
_NUMBERS_AT_ONCE = 2**24


def standardiser() -> "Pipeline":
    """Return a transformer that standardises features and bounds them."""
    # Here, not above, as everywhere in this file: few commands need scikit-learn, which takes long.
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    bound = FunctionTransformer(np.clip, kw_args={"a_min": -_FARTHEST, "a_max": _FARTHEST})
    return make_pipeline(StandardScaler(), bound)


def fitted_standardiser(features: npt.NDArray[Any], weights: Targets | None = None) -> "Pipeline":
    """Return :func:`standardiser` with the mean and deviation of features.

    Args:
        features: Shape (n, n_features).
        weights: Weight of each row, shape (n,); None for 1 each.
    """
    fitted = standardiser()
    if weights is None:
        return fitted.fit(features)
    # The weighted variance of a constant feature may be just below 0; its scale becomes 1.
    with np.errstate(invalid="ignore"):
        return fitted.fit(features, standardscaler__sample_weight=weights)


def standardised(features: Features, mean: Targets, scale: Targets) -> Targets:
    """Return features as :func:`standardiser` leaves them."""
    found: Targets = np.clip((features.astype(np.float64) - mean) / scale, -_FARTHEST, _FARTHEST)
    return found


def gaussians(inputs: Features, centres: Features, gamma: float) -> Targets:
    """Return exp(-gamma d^2) of the distances between float32 rows, shape (n, n_centres)."""
    squares = (inputs**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1)
    distances = np.maximum(squares - 2 * (inputs @ centres.T), 0)
    values: Targets = np.exp(-gamma * distances.astype(np.float64))
    return values


class FittedHead(Protocol):
    """A head that has learned."""

    def predict(self, features: Features) -> Targets:
        """Return predictions of features, shape (n, n_features).

        Returns:
            Numbers, shape (n,), or probabilities of classes, shape (n, n_classes).
        """

    def arrays(self) -> Arrays:
        """Return its fitted arrays, for ``restore`` of the head that has fitted it."""


@dataclass(frozen=True)
class FittedLine(ArrayFields):
    """A linear function of standardised features.

    Attributes:
        mean: Mean of each feature, shape (n_features,).
        scale: Deviation of each feature, shape (n_features,).
        weights: Shape (n_features,).
        bias: A number.
    """

    mean: Targets
    scale: Targets
    weights: Targets
    bias: Any

    def predict(self, features: Features) -> Targets:
        """Return the function's values."""
        values: Targets = standardised(features, self.mean, self.scale) @ self.weights + self.bias
        return values


@dataclass(frozen=True)
class FittedSoftmax(ArrayFields):
    """Probabilities of classes: the softmax of linear functions of standardised features.

    Attributes:
        mean: Mean of each feature, shape (n_features,).
        scale: Deviation of each feature, shape (n_features,).
        weights: Shape (n_classes, n_features).
        bias: Shape (n_classes,); minus infinity for a class that was not there to learn from.
    """

    mean: Targets
    scale: Targets
    weights: Targets
    bias: Targets

    def predict(self, features: Features) -> Targets:
        """Return the probabilities, shape (n, n_classes)."""
        from scipy.special import softmax

        logits = standardised(features, self.mean, self.scale) @ self.weights.T + self.bias
        probabilities: Targets = softmax(logits, axis=1)
        return probabilities


@dataclass(frozen=True)
class FittedKernel(ArrayFields):
    """A sum of Gaussians around images of the training.

    Attributes:
        mean: Mean of each feature, shape (n_features,).
        scale: Deviation of each feature, shape (n_features,).
        centres: Standardised features of those images, shape (n_centres, n_features).
        weights: Shape (n_centres,).
        gamma: exp(-gamma d^2) is the Gaussian at the distance d.
        bias: A number.
    """

    mean: Targets
    scale: Targets
    centres: Targets
    weights: Targets
    gamma: Any
    bias: Any

    def predict(self, features: Features) -> Targets:
        """Return the sums."""
        from sklearn.metrics.pairwise import rbf_kernel

        if not len(self.centres):
            return np.full(len(features), float(self.bias))
        inputs = standardised(features, self.mean, self.scale)
        values: Targets = rbf_kernel(inputs, self.centres, self.gamma) @ self.weights + self.bias
        return values


@dataclass(frozen=True)
class FittedKernelClasses(ArrayFields):
    """Probabilities of classes: the softmax of sums of Gaussians around images of the training.

    Attributes:
        mean: Mean of each feature, shape (n_features,).
        scale: Deviation of each feature, shape (n_features,).
        centres: Standardised features of those images, float32, shape (n_centres, n_features).
        weights: float32, shape (n_centres, n_classes).
        gamma: exp(-gamma d^2) is the Gaussian at the distance d.
        bias: Shape (n_classes,); minus infinity for a class that was not there to learn from.
        sharpness: Factor of the sums.
    """

    mean: Targets
    scale: Targets
    centres: Features
    weights: Features
    gamma: Any
    bias: Targets
    sharpness: Any

    def predict(self, features: Features) -> Targets:
        """Return the probabilities, shape (n, n_classes)."""
        from scipy.special import softmax

        inputs = standardised(features, self.mean, self.scale).astype(np.float32)
        scores = gaussians(inputs, self.centres, float(self.gamma)) @ self.weights + self.bias
        probabilities: Targets = softmax(self.sharpness * scores, axis=1)
        return probabilities


@dataclass(frozen=True)
class FittedNetwork(ArrayFields):
    """A network of one hidden layer on standardised features.

    Attributes:
        mean: Mean of each feature, shape (n_features,).
        scale: Deviation of each feature, shape (n_features,).
        hidden: Weights of the hidden layer, float32, shape (n_hidden, n_features).
        hidden_bias: Shape (n_hidden,).
        output: Weights of the output, float32, shape (1, n_hidden).
        output_bias: Shape (1,).
        target_mean: Mean of the training targets; predictions are output * scale + mean.
        target_scale: Scale of the training targets.
    """

    mean: Targets
    scale: Targets
    hidden: Features
    hidden_bias: Features
    output: Features
    output_bias: Features
    target_mean: Any
    target_scale: Any

    @torch.inference_mode()
    def predict(self, features: Features) -> Targets:
        """Return the network's outputs, in units of the target."""
        inputs = standardised(features, self.mean, self.scale).astype(np.float32)
        linear = nn.functional.linear
        layers = (self.hidden, self.hidden_bias, self.output, self.output_bias)
        hidden, hidden_bias, output, output_bias = (torch.from_numpy(layer) for layer in layers)
        active = linear(torch.from_numpy(inputs), hidden, hidden_bias).relu()
        outputs: Features = linear(active, output, output_bias)[:, 0].numpy()
        values: Targets = outputs.astype(np.float64) * self.target_scale + self.target_mean
        return values


@dataclass(frozen=True)
class FittedTrees:
    """The mean of the trees' predictions.

    Attributes:
        forest: The trees.
        gives_labels: They are probabilities of several labels.
    """

    forest: Forest
    gives_labels: bool = False

    def predict(self, features: Features) -> Targets:
        """Return the means."""
        # Predictions of each tree for thousands of classes are large: a block of images at a time.
        width = max(1, self.forest.value[0].size) * len(self.forest.roots)
        rows = max(1, _NUMBERS_AT_ONCE // width)
        blocks = [
            self.forest.predict(features[start : start + rows]).mean(axis=1)
            for start in range(0, max(1, len(features)), rows)
        ]
        return np.concatenate(blocks)

    def arrays(self) -> Arrays:
        """Return the trees."""
        return self.forest.arrays()


@dataclass(frozen=True)
class FittedMean:
    """The plain mean of heads.

    Attributes:
        heads: The heads.
    """

    heads: tuple[FittedHead, ...]

    @property
    def gives_labels(self) -> bool:
        """Whether the heads give probabilities of several labels."""
        return gives_labels(self.heads[0])

    def predict(self, features: Features) -> Targets:
        """Return the means."""
        means: Targets = np.mean([head.predict(features) for head in self.heads], axis=0)
        return means

    def arrays(self) -> Arrays:
        """Return the heads' arrays, by their numbers."""
        found: Arrays = {}
        for number, head in enumerate(self.heads):
            found |= prefixed(str(number), head.arrays())
        return found


def gives_labels(head: object) -> bool:
    """Return whether a head, fitted or not, gives probabilities of several labels."""
    return bool(getattr(head, "gives_labels", False))
