"""Losses for several labels per image, of logits and labels of 0 and 1, shape (n, n_labels)."""

import torch
from torch import nn
from torch.nn import functional

from foldsmith.errors import ConfigError
from foldsmith.targets.weighted_losses import weighted_mean


def smoothed(labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    """Return labels of 0 and 1 moved towards 0.5 by half of the smoothing."""
    return labels if label_smoothing == 0 else labels * (1 - label_smoothing) + label_smoothing / 2


def check_smoothing(label_smoothing: float) -> float:
    """Return a label smoothing in 0..1, 1 not included.

    Raises:
        ConfigError: It is outside.
    """
    if not 0 <= label_smoothing < 1:
        raise ConfigError(f"label_smoothing: {label_smoothing} must be at least 0 and below 1")
    return label_smoothing


class BCEWithLogitsLoss(nn.Module):
    """Binary cross-entropy of each label.

    Args:
        label_smoothing: Labels of 0 and 1 become half of it and 1 minus half of it, 0..1.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = check_smoothing(label_smoothing)

    def forward(
        self, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the (weighted) mean loss over images and labels."""
        labels = smoothed(labels, self.label_smoothing)
        if weights is None:
            return functional.binary_cross_entropy_with_logits(logits, labels)
        each = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return weighted_mean(each, weights)


class FocalLoss(nn.Module):
    """Binary cross-entropy with less weight on labels that are nearly right (Lin et al. 2017).

    Args:
        gamma: Exponent of the weight; 0 is the binary cross-entropy.
        alpha: Weight of true labels, the others have 1 - alpha; null for 1 each.
        label_smoothing: As for :class:`BCEWithLogitsLoss`.
    """

    def __init__(
        self, gamma: float = 2.0, alpha: float | None = None, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        self.label_smoothing = check_smoothing(label_smoothing)
        self.gamma = gamma
        self.alpha = alpha

    def forward(
        self, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the (weighted) mean loss over images and labels."""
        labels = smoothed(labels, self.label_smoothing)
        entropy = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        # exp(-entropy) is the probability of the true answer, without a rounding to 0. With
        # smoothed labels it is always below 1.
        losses = (1 - torch.exp(-entropy)) ** self.gamma * entropy
        if self.alpha is not None:
            losses = losses * (self.alpha * labels + (1 - self.alpha) * (1 - labels))
        return weighted_mean(losses, weights)


class AsymmetricLoss(nn.Module):
    """Focal loss with a larger exponent for absent labels (Ridnik et al. 2021).

    Ridnik et al., "Asymmetric Loss For Multi-Label Classification", 2021. Absent labels with a
    probability below the margin contribute nothing. The mean takes the place of the paper's sum, so
    that the learning rate does not depend on the number of labels.

    Args:
        gamma_negative: Exponent for absent labels.
        gamma_positive: Exponent for present labels.
        margin: Shift of the probability of absent labels, 0..1.
        label_smoothing: As for :class:`BCEWithLogitsLoss`.
    """

    def __init__(
        self,
        gamma_negative: float = 4.0,
        gamma_positive: float = 1.0,
        margin: float = 0.05,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.label_smoothing = check_smoothing(label_smoothing)
        self.gamma_negative = gamma_negative
        self.gamma_positive = gamma_positive
        self.margin = margin

    def forward(
        self, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the (weighted) mean loss over images and labels."""
        labels = smoothed(labels, self.label_smoothing)
        present = torch.sigmoid(logits)
        absent = (1 - present + self.margin).clamp(max=1)
        of_truth = labels * present + (1 - labels) * absent
        gamma = labels * self.gamma_positive + (1 - labels) * self.gamma_negative
        # No gradient passes through the weight, as in the code of the paper's authors.
        with torch.no_grad():
            weight = (1 - of_truth).clamp(min=0) ** gamma
        entropy = -labels * functional.logsigmoid(logits)
        entropy = entropy - (1 - labels) * torch.log(absent.clamp(min=1e-8))
        return weighted_mean(weight * entropy, weights)
