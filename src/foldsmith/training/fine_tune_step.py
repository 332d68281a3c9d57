"""The computation on one batch of a fine-tuning: from images to the loss of the task."""

from typing import Any

import numpy as np
import torch
from torch import nn

from foldsmith.data.datasets import Batch
from foldsmith.distributed.collectives import gathered, own
from foldsmith.errors import ConfigError
from foldsmith.targets.task import Task
from foldsmith.targets.weighted_losses import Loss, with_weights
from foldsmith.training.auxiliary import AuxiliaryLoss
from foldsmith.training.ema import ModelEma
from foldsmith.training.mixing import BatchMixing


class FineTuneStep:
    """Supervised: logits against encoded targets, with mixup in its epochs.

    Args:
        model: Model from images to logits.
        loss: Loss of (logits, encoded targets), or of (logits, encoded targets, weights).
        task: How targets are encoded.
        mixup: Mixup, CutMix or the like; or None.
        max_epoch: Number of epochs, for mixup's end.
        seed: Seed of the mixing.
        head_epochs: First epochs that train the head alone; above 0 for models with
            ``train_head_alone`` only.
        ema: Moving average of the model's weights, or None.
        auxiliary: Losses of the model's auxiliary heads, or None.
        weights: Weight of each row of the train table in the loss, on the model's device; None for
            1 each.

    Raises:
        ConfigError: ``head_epochs`` is set and the model cannot train its head alone; or there are
            weights and the loss takes none.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        task: Task,
        mixup: BatchMixing | None,
        max_epoch: int,
        seed: int,
        head_epochs: int = 0,
        ema: ModelEma | None = None,
        auxiliary: AuxiliaryLoss | None = None,
        weights: torch.Tensor | None = None,
    ) -> None:
        if head_epochs and not hasattr(model, "train_head_alone"):
            raise ConfigError(
                f"globals/head_epochs: {type(model).__name__} cannot train its head alone (it has "
                "no train_head_alone); set it to 0, or take model/type ImageModel"
            )
        self.model = model
        self.loss = with_weights(loss, weights is not None)
        self.weights = weights
        self.task = task
        self.mixup = mixup
        self.max_epoch = max_epoch
        self.seed = seed
        self.head_epochs = head_epochs
        self.ema = ema
        self.auxiliary = auxiliary

    def start_epoch(self, epoch: int) -> None:
        """Freeze the backbone in the epochs of the head, and free it after them."""
        if self.head_epochs:
            model: Any = self.model
            model.train_head_alone(epoch < self.head_epochs)

    def __call__(self, batch: Batch, epoch: int, index: int) -> dict[str, torch.Tensor]:
        """Return the loss of one batch, and those of auxiliary heads as ``loss_NAME``."""
        images = batch.views[0]
        # Of the whole batch, as are the outputs: see across_ranks.
        targets = gathered(self.task.encode(batch.targets))
        rows = gathered(batch.rows.to(images.device, non_blocking=True))
        if self.mixup is None or not self.mixup.active(epoch, self.max_epoch):
            return self._losses(*self._outputs(images), targets, rows)
        rng = np.random.default_rng([self.seed, epoch, index])
        # Partners are drawn from the whole batch, so that each process needs the images of all.
        mixed = self.mixup.mix(gathered(images), rng)
        outputs = self._outputs(own(mixed.images))
        # Mixing the losses equals mixing the targets for losses linear in them, and works
        # with class indices as they are.
        first = self._losses(*outputs, targets, rows)
        other = self._losses(*outputs, targets[mixed.partner], rows[mixed.partner])
        return {name: mixed.lam * first[name] + (1 - mixed.lam) * other[name] for name in first}

    def _outputs(self, images: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return logits and the outputs of auxiliary heads, of the whole batch."""
        if self.auxiliary is None:
            return gathered(self.model(images).float()), {}
        logits, outputs = self.model(images, auxiliary=True)
        return gathered(logits.float()), {name: gathered(each) for name, each in outputs.items()}

    def _losses(
        self,
        logits: torch.Tensor,
        outputs: dict[str, torch.Tensor],
        targets: torch.Tensor,
        rows: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Return the whole loss, and those of auxiliary heads by name."""
        weights = None if self.weights is None else self.weights[rows]
        loss = self.loss(logits, targets, weights)
        if self.auxiliary is None:
            return {"loss": loss}
        weighted, losses = self.auxiliary(outputs, rows)
        return {"loss": loss + weighted} | {f"loss_{name}": each for name, each in losses.items()}

    def after_update(self, progress: float) -> None:
        """Move the average of the weights."""
        if self.ema is not None:
            self.ema.update()
