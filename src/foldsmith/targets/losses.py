"""Losses that an experiment may name: for one number, classes, several labels and numbers."""

import torch
from torch import nn
from torch.nn import (
    CrossEntropyLoss,
    HuberLoss,
    L1Loss,
    MSELoss,
    SmoothL1Loss,
)

from foldsmith.errors import ConfigError
from foldsmith.targets.class_target_loss import ClassTargetsLoss
from foldsmith.targets.label_losses import (
    AsymmetricLoss,
    BCEWithLogitsLoss,
    FocalLoss,
    check_smoothing,
    smoothed,
)
from foldsmith.targets.masked_losses import MaskedHuberLoss, MaskedL1Loss, MaskedMSELoss
from foldsmith.targets.weighted_losses import Loss, over_outputs, weighted_mean

__all__ = [
    "AsymmetricLoss",
    "BCEWithLogitsLoss",
    "ClassTargetsLoss",
    "CornLoss",
    "CrossEntropyLoss",
    "FocalLoss",
    "HuberLoss",
    "L1Loss",
    "Loss",
    "MSELoss",
    "MaskedHuberLoss",
    "MaskedL1Loss",
    "MaskedMSELoss",
    "QuantileLoss",
    "SmoothL1Loss",
]


class CornLoss(nn.Module):
    """Cross-entropy of the conditional outputs of the task ``corn`` (Shi et al. 2021).

    Output j is learned from the images of class j and above; the sum over all of them is
    divided by their number.

    Args:
        label_smoothing: The targets 0 and 1 of an output become half of it and 1 minus half of it,
            0..1.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = check_smoothing(label_smoothing)

    def forward(
        self, logits: torch.Tensor, classes: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss of logits, shape (n, n_classes - 1), and classes, int64, shape (n,)."""
        ranks = torch.arange(logits.shape[1], device=logits.device)
        asked = classes[:, None] >= ranks
        above = (classes[:, None] > ranks).to(logits.dtype)
        above = smoothed(above, self.label_smoothing)
        each = nn.functional.binary_cross_entropy_with_logits(logits, above, reduction="none")
        losses = each * asked
        if weights is not None:
            losses = losses * over_outputs(weights, losses)
        return losses.sum() / asked.sum()


class QuantileLoss(nn.Module):
    """Pinball loss of numbers, whose least value is at a quantile of the target.

    Koenker & Bassett, "Regression Quantiles", 1978. Judge it by the metric ``Pinball`` of the same
    quantile.

    Args:
        quantile: Share of the targets below the prediction, above 0 and below 1; 0.5 is half the
            absolute error.
    """

    def __init__(self, quantile: float = 0.5) -> None:
        super().__init__()
        if not 0 < quantile < 1:
            raise ConfigError(f"QuantileLoss: quantile: {quantile} must be above 0 and below 1")
        self.quantile = quantile

    def forward(
        self, outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the (weighted) mean loss of outputs and targets of one shape."""
        above = targets - outputs
        losses = torch.maximum(self.quantile * above, (self.quantile - 1) * above)
        return weighted_mean(losses, weights)
