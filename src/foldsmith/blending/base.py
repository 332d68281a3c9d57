"""What a blend is: fitted on out-of-fold predictions, applied to others."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from foldsmith.blending.weights import blend
from foldsmith.models.arrays import Arrays
from foldsmith.tasks.metrics import Metric, nearest
from foldsmith.tasks.multi_class import class_labels

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """What the members say of some photos.

    Attributes:
        predictions: Point predictions, shape (n_members, n), or, where the metric needs them,
            class probabilities, shape (n_members, n, n_classes).
        features: What else is known of each photo, shape (n, n_features), NaN where unknown.
    """

    predictions: Array
    features: Array

    def take(self, rows: npt.NDArray[np.bool_]) -> "Rows":
        """Return some of the rows; the mask has shape (n,)."""
        return Rows(self.predictions[:, rows], self.features[rows])


@dataclass(frozen=True)
class Goal:
    """What a blend is to be good at.

    Attributes:
        metric: The metric.
        target_range: Lowest and highest possible target.
        class_values: Target value of each class.
        class_names: Their names if they have no order.
    """

    metric: Metric
    target_range: tuple[float, float]
    class_values: tuple[float, ...]
    class_names: tuple[str, ...] = ()

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest value that a blend may have."""
        return (0.0, 1.0) if self.metric.needs == "probabilities" else self.target_range

    @property
    def labels(self) -> tuple[str, ...]:
        """What each class is called."""
        return class_labels(self.class_values, self.class_names)

    def encoded(self, targets: Array) -> Array:
        """Return what predictions should be: targets, shape (n,), or (n, n_classes) of 0 and 1."""
        if self.metric.needs == "values":
            return targets
        identity: Array = np.eye(len(self.class_values))
        return identity[nearest(targets, self.class_values)]

    def points(self, predictions: Array) -> Array:
        """Return point predictions, shape (n,): of probabilities the expected class value.

        Of classes without an order that is the value of the most probable one.
        """
        if self.metric.needs == "values":
            return predictions
        if self.class_names:
            most_probable: Array = np.asarray(self.class_values)[predictions.argmax(axis=1)]
            return most_probable
        points: Array = predictions @ np.asarray(self.class_values)
        return points


class FittedBlend(Protocol):
    """A blend that knows how."""

    def predict(self, rows: Rows) -> Array:
        """Return the blended predictions, shape (n,) or (n, n_classes)."""

    def arrays(self) -> Arrays:
        """Return all that it knows, for :func:`~foldsmith.blending.methods.restore_blend`."""


class Blend(Protocol):
    """A way to make one prediction of several."""

    @property
    def name(self) -> str:
        """Its name."""

    def fit(self, rows: Rows, targets: Array) -> FittedBlend:
        """Learn from rows and their targets, shape (n,)."""


@dataclass(frozen=True)
class FittedWeights:
    """A weighted sum.

    Attributes:
        weights: Shape (n_members,).
        bounds: The sum is clipped to them.
    """

    weights: Array
    bounds: tuple[float, float]

    def predict(self, rows: Rows) -> Array:
        """Return the clipped sums."""
        return blend(rows.predictions, self.weights, self.bounds)

    def arrays(self) -> Arrays:
        """Return the weights."""
        return {"weights": self.weights}


@dataclass(frozen=True)
class WeightedBlend:
    """A weighted sum of the members.

    Attributes:
        name: Its name.
        goal: What it is to be good at.
        choose: From (predictions, targets) to weights, shape (n_members,).
    """

    name: str
    goal: Goal
    choose: Callable[[Array, Array], Array]

    def fit(self, rows: Rows, targets: Array) -> FittedWeights:
        """Choose the weights."""
        return FittedWeights(self.choose(rows.predictions, targets), self.goal.bounds)
