"""Losses of several numbers per image, which leave out missing targets (NaN)."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from foldsmith.targets.weighted_losses import over_outputs


class _MaskedLoss(nn.Module):
    """The mean of a loss over all targets that are not missing.

    Args:
        weights: Weight of each target; equal weights if it is empty.
    """

    def __init__(self, weights: Sequence[float] = ()) -> None:
        super().__init__()
        self.weights = tuple(map(float, weights))

    def forward(
        self, outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the mean loss; 0 if a batch has only missing targets.

        Args:
            outputs: Shape (n, n_targets).
            targets: Shape (n, n_targets), NaN where one is missing.
            weights: Weight of each image, shape (n,); None for 1 each.
        """
        seen = ~torch.isnan(targets)
        # Not a product with 0: NaN times 0 is NaN, in the gradient too.
        losses = self._each(torch.where(seen, outputs, 0.0), torch.where(seen, targets, 0.0))
        if weights is not None:
            losses = losses * over_outputs(weights, losses)
        weight = seen.to(losses.dtype)
        if self.weights:
            weight = weight * losses.new_tensor(self.weights)
        return (losses * weight).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)

    def _each(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class MaskedMSELoss(_MaskedLoss):
    """The squared error of several numbers per image, missing ones left out.

    Args:
        weights: Weight of each target; equal weights if it is empty.
    """

    def _each(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.mse_loss(outputs, targets, reduction="none")


class MaskedL1Loss(_MaskedLoss):
    """The absolute error of several numbers per image, missing ones left out.

    Args:
        weights: Weight of each target; equal weights if it is empty.
    """

    def _each(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.l1_loss(outputs, targets, reduction="none")


class MaskedHuberLoss(_MaskedLoss):
    """The Huber loss of several numbers per image, missing ones left out.

    Args:
        delta: Error from which on it grows linearly, on the scale of the learned targets.
        weights: Weight of each target; equal weights if it is empty.
    """

    def __init__(self, delta: float = 1.0, weights: Sequence[float] = ()) -> None:
        super().__init__(weights)
        self.delta = delta

    def _each(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.huber_loss(outputs, targets, reduction="none", delta=self.delta)
