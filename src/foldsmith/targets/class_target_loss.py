"""The loss of several class targets per image, which leaves out missing ones."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from foldsmith.errors import ConfigError
from foldsmith.targets.class_blocks import slices_of
from foldsmith.targets.label_losses import check_smoothing


class ClassTargetsLoss(nn.Module):
    """The cross-entropy of several class targets per image, missing ones left out.

    Args:
        sizes: Number of classes of each target: ``"@/project.block_sizes"``.
        weights: Weight of each target; equal weights if it is empty.
        label_smoothing: Share of a class's probability that all classes of its target share, 0..1.
    """

    def __init__(
        self, sizes: Sequence[int], weights: Sequence[float] = (), label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        if not sizes:
            raise ConfigError(
                "ClassTargetsLoss: sizes is empty: the target in project.yml is not several class "
                "targets; take CrossEntropyLoss"
            )
        self.slices = slices_of(sizes)
        self.weights = tuple(map(float, weights)) or (1.0,) * len(sizes)
        self.label_smoothing = check_smoothing(label_smoothing)

    def forward(
        self, outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the mean loss over all targets that are not missing; 0 if there are none.

        Args:
            outputs: Shape (n, n_outputs).
            targets: Class indices, int64, shape (n, n_targets), -1 where one is missing.
            weights: Weight of each image, shape (n,), or of each target too, shape (n, n_targets);
                None for 1 each.
        """
        total = outputs.new_zeros(())
        count = outputs.new_zeros(())
        for k, (part, weight) in enumerate(zip(self.slices, self.weights, strict=True)):
            each = functional.cross_entropy(
                *(outputs[:, part], targets[:, k]),
                ignore_index=-1,
                reduction="none",
                label_smoothing=self.label_smoothing,
            )
            if weights is not None:
                each = each * (weights if weights.ndim == 1 else weights[:, k]).to(each.dtype)
            total = total + weight * each.sum()
            count = count + weight * (targets[:, k] >= 0).sum()
        return total / count.clamp(min=torch.finfo(count.dtype).tiny)
