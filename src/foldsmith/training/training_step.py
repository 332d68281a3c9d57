"""The interface of a training step: the computation on one batch."""

from typing import Protocol

import torch
from torch import nn

from foldsmith.data.datasets import Batch


class TrainingStep(Protocol):
    """A training step.

    Attributes:
        model: The module that is trained.
    """

    model: nn.Module

    def __call__(self, batch: Batch, epoch: int, index: int) -> dict[str, torch.Tensor]:
        """Return the scalars of one batch; ``loss`` is the one to minimise.

        Args:
            batch: On the model's device.
            epoch: Counted from 0.
            index: Number of the batch in the epoch, counted from 0.
        """

    def start_epoch(self, epoch: int) -> None:
        """Prepare an epoch (counted from 0), before the model is set to train."""

    def after_update(self, progress: float) -> None:
        """Run after an optimizer step, for example to update averages of weights.

        Args:
            progress: Fraction of the training's optimizer steps that are done, above 0 and at
                most 1.
        """
