"""Losses with a weight for each image, or for each image and label."""

import copy
import inspect
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import nn

from foldsmith.errors import ConfigError

# Maps (outputs, encoded targets), and weights if its signature has them, to a scalar.
Loss = Callable[..., torch.Tensor]

# Argument of a loss that takes weights.
_WEIGHTS = "weights"


class WeightedLoss(Protocol):
    """A function of outputs, encoded targets, and weights or None, that returns a scalar."""

    def __call__(
        self, outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the mean loss.

        Args:
            outputs: Shape (n, n_outputs).
            targets: As the task encodes them.
            weights: Weight of each image, shape (n,), or of each label too, shape (n, n_labels),
                with the mean 1 over a training; None for 1 each.
        """


def weighted_mean(each: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Return the mean of losses times weights.

    The sum is divided by the number of losses, not by the sum of the batch's weights: the influence
    of an image then does not depend on the other images of its batch.

    Args:
        each: Shape (n, ...).
        weights: Shape (n,) or that of the losses; None for the plain mean.
    """
    if weights is None:
        return each.mean()
    return (each * over_outputs(weights, each)).mean()


def over_outputs(weights: torch.Tensor, each: torch.Tensor) -> torch.Tensor:
    """Return weights in a shape that multiplies losses, (n, ...)."""
    return weights.to(each.dtype).reshape(weights.shape + (1,) * (each.ndim - weights.ndim))


def with_weights(loss: Loss, needed: bool) -> WeightedLoss:
    """Return a loss that takes weights, or None in their place.

    A loss with an argument ``weights`` gets them. A loss of torch becomes the weighted mean of its
    values.

    Args:
        loss: The loss of an experiment.
        needed: Whether there are weights; without them every loss is accepted.

    Raises:
        ConfigError: There are weights and the loss cannot take them.
    """
    if _WEIGHTS in _arguments(loss):
        return loss
    each = _without_mean(loss)
    if needed and each is None:
        raise ConfigError(
            f"loss: {loss_name(loss)} takes no weights, but class_weights or the "
            "sample_weight_column of project.yml give some; give its forward a third argument "
            "named weights, take another loss, or set globals/class_weights to none"
        )

    def value(
        outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None
    ) -> torch.Tensor:
        if weights is None or each is None:
            return loss(outputs, targets)
        return weighted_mean(each(outputs, targets), weights)

    return value


def _arguments(loss: Loss) -> list[str]:
    called = loss.forward if isinstance(loss, nn.Module) else loss
    try:
        return list(inspect.signature(called).parameters)
    except (TypeError, ValueError):  # a callable written in C has no signature
        return []


def _without_mean(loss: Any) -> Loss | None:
    """Return a loss of torch without its mean; None for other losses."""
    own = type(loss).__module__.startswith("torch.")
    if not own or getattr(loss, "reduction", None) != "mean":
        return None
    each: Loss = copy.copy(loss)
    each.reduction = "none"  # type: ignore[attr-defined]
    return each


def loss_name(loss: Loss) -> str:
    """Return the name of a loss, for people."""
    return getattr(loss, "__name__", type(loss).__name__)
