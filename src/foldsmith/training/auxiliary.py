"""Losses of auxiliary heads."""

from collections.abc import Mapping

import torch
from torch import nn

from foldsmith.targets.auxiliary import AuxiliaryTargets


class AuxiliaryLoss:
    """Weighted losses of auxiliary targets, looked up by the row of each image.

    Squared error of standardised numbers, binary cross-entropy of labels; unknown values of a
    image are ignored.

    Args:
        targets: The targets by name, a row per row of the train table.
        weights: Weight of each in the whole loss.
        device: Where the batches are.
    """

    def __init__(
        self,
        targets: Mapping[str, AuxiliaryTargets],
        weights: Mapping[str, float],
        device: torch.device,
    ) -> None:
        self._losses = {
            name: getattr(nn.functional, target.loss) for name, target in targets.items()
        }
        self._values = {
            name: torch.from_numpy(target.values).to(device) for name, target in targets.items()
        }
        self._weights = weights

    def __call__(
        self, outputs: Mapping[str, torch.Tensor], rows: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the weighted sum and each loss by name.

        Args:
            outputs: Outputs of each head, shape (n, width).
            rows: Row of each image in the train table, int64, shape (n,).
        """
        losses = {}
        for name, values in self._values.items():
            wanted = values[rows]
            known = wanted.isfinite()
            wanted = wanted.nan_to_num()
            each = self._losses[name](outputs[name].float(), wanted, reduction="none")
            losses[name] = (each * known).sum() / known.sum().clamp(min=1)
        total = torch.stack([self._weights[name] * loss for name, loss in losses.items()]).sum()
        return total, losses
