"""Losses that an experiment may name: torch's own, CORN's, those of several labels and numbers."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    HuberLoss,
    L1Loss,
    MSELoss,
    SmoothL1Loss,
)

from foldsmith.targets.label_losses import AsymmetricLoss, FocalLoss
from foldsmith.targets.masked_losses import MaskedHuberLoss, MaskedL1Loss, MaskedMSELoss

__all__ = [
    "AsymmetricLoss",
    "BCEWithLogitsLoss",
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
    "SmoothL1Loss",
]

# From (logits, encoded targets) to a scalar.
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class CornLoss(nn.Module):
    """Cross-entropy of the conditional outputs of the task ``corn`` (Shi et al. 2021).

    Output j is learned from the images of class j and above; the sum over all of them is
    divided by their number.
    """

    def forward(self, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Return the loss of logits, shape (n, n_classes - 1), and classes, int64, shape (n,)."""
        ranks = torch.arange(logits.shape[1], device=logits.device)
        asked = classes[:, None] >= ranks
        above = (classes[:, None] > ranks).to(logits.dtype)
        each = nn.functional.binary_cross_entropy_with_logits(logits, above, reduction="none")
        return (each * asked).sum() / asked.sum()
