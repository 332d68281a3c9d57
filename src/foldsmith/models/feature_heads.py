"""Heads on the features of a frozen backbone: their interface, and the mean of several."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from foldsmith.errors import ConfigError
from foldsmith.models.fitted_arrays import Arrays, part
from foldsmith.models.fitted_heads import Features, FittedHead, FittedMean, Targets, gives_labels
from foldsmith.models.head_time import TimePart, time_parts


class FeatureHead(Protocol):
    """Learns a target from features.

    A head that gives probabilities of classes has a sequence ``class_values``, not empty: the
    target value of each class, in the order of the probabilities.
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
                have weights of their own, shape (n, n_labels). None for 1 each. A project's own
                head may lack this argument; it is then refused if there are weights.
        """

    def restore(self, arrays: Arrays) -> FittedHead:
        """Return the fitted head from its arrays."""


def fit_head(
    head: FeatureHead,
    features: Features,
    targets: Targets,
    groups: npt.NDArray[np.int64],
    seed: int,
    weights: Targets | None,
) -> FittedHead:
    """Fit a head, with weights if there are any. Images of weight 0 are left out.

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


def gives_probabilities(head: FeatureHead) -> bool:
    """Return whether a head gives probabilities of classes."""
    return bool(_class_values(head))


def with_classes(head: FeatureHead, class_values: Sequence[float]) -> FeatureHead:
    """Return a head of classes for other classes.

    Args:
        head: A dataclass with the field ``class_values``, or a :class:`MeanHead` of such.
        class_values: Target value of each class.

    Raises:
        ConfigError: It is neither.
    """
    if isinstance(head, MeanHead):
        return replace(head, heads=tuple(with_classes(one, class_values) for one in head.heads))
    if not is_dataclass(head) or "class_values" not in {field.name for field in fields(head)}:
        raise ConfigError(
            f"head: {type(head).__name__} cannot be fitted to several targets: it must be a "
            "dataclass with the field class_values"
        )
    changed: FeatureHead = replace(head, class_values=class_values)
    return changed


def _class_values(head: FeatureHead) -> Sequence[float]:
    return tuple(getattr(head, "class_values", ()))


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


def weights_of(weights: Targets | None, rows: npt.NDArray[Any]) -> Targets | None:
    """Return the weights of some rows, given by numbers or as a mask; None for 1 each."""
    return None if weights is None else weights[rows]


def weighted_variance(values: Targets, weights: Targets | None) -> float:
    """Return the variance of all values, (n,) or (n, k), with weights of their rows."""
    if weights is None:
        return float(values.var())
    rows = values.reshape(len(values), -1)
    mean = np.average(rows.mean(axis=1), weights=weights)
    return float(np.average(((rows - mean) ** 2).mean(axis=1), weights=weights))


def classes_of(targets: Targets, class_values: Sequence[float]) -> npt.NDArray[np.int64]:
    """Return the class of each target (the one with the nearest value), shape (n,)."""
    classes: npt.NDArray[np.int64] = np.abs(targets[:, None] - np.asarray(class_values)).argmin(1)
    return classes
