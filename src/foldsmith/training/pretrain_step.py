"""The computation on one batch of a pretraining: from views to the loss of the method."""

from typing import cast

import torch
from torch import nn

from foldsmith.data.datasets import Batch
from foldsmith.ssl.method import Method, require_method
from foldsmith.training.progressive import ProgressiveResize


class PretrainStep:
    """Self-supervised: the method computes its own loss from the views.

    Args:
        model: The method.
        progressive: Sizes of the views over the epochs, or None for those of the dataset.
        max_epoch: Number of epochs, for those sizes.

    Raises:
        ConfigError: The model is not a self-supervised method.
    """

    def __init__(
        self, model: nn.Module, progressive: ProgressiveResize | None = None, max_epoch: int = 1
    ) -> None:
        require_method(model)
        self.model: nn.Module = model
        self.method = cast(Method, model)
        self.progressive = progressive
        self.max_epoch = max_epoch

    def __call__(self, batch: Batch, epoch: int, index: int) -> dict[str, torch.Tensor]:
        """Return the values of the method."""
        views = batch.views
        if self.progressive is not None:
            views = self.progressive(views, epoch, self.max_epoch)
        scalars: dict[str, torch.Tensor] = self.model(views)
        return scalars

    def start_epoch(self, epoch: int) -> None:
        """Do nothing."""

    def after_update(self, progress: float) -> None:
        """Let the method move its momentum encoder, if it has one."""
        self.method.after_update(progress)
