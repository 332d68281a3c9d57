"""Validation after epochs."""

import math

import pytorch_pfn_extras as ppe
import torch
from pytorch_pfn_extras.training import extension
from pytorch_pfn_extras.training.triggers import ManualScheduleTrigger
from torch import nn

from foldsmith.data.loader import ImageLoader
from foldsmith.inference.predict import predict_logits
from foldsmith.models.runtime import Runtime
from foldsmith.targets.metrics import Metric
from foldsmith.targets.scoring import score_logits
from foldsmith.targets.task import Task
from foldsmith.targets.weighted_losses import Loss, with_weights


class Evaluator(extension.Extension):
    """Reports ``val/loss`` and ``val/metric`` of the whole validation part.

    The metric is computed once from all predictions: the mean of a metric over batches,
    which the stock evaluator gives, is not the metric (an RMSE is no mean of RMSEs).

    Args:
        loader: Validation batches.
        model: The model.
        loss: Loss of (logits, encoded targets), or of (logits, encoded targets, weights).
        metric: Metric of the predictions.
        task: How targets are encoded and logits become predictions.
        runtime: Device and precision.
        max_epoch: Number of epochs.
        validations: How often it is called, as :func:`validated_epochs`.
    """

    priority = extension.PRIORITY_WRITER
    default_name = "evaluator"
    needs_model_state = True
    on_every_rank = True

    def __init__(
        self,
        loader: ImageLoader,
        model: nn.Module,
        loss: Loss,
        metric: Metric,
        task: Task,
        runtime: Runtime,
        max_epoch: int,
        validations: int | None = None,
    ) -> None:
        self.trigger = ManualScheduleTrigger(validated_epochs(max_epoch, validations), "epoch")
        self.loader = loader
        self.model = model
        self.loss = loss
        self.metric = metric
        self.task = task
        self.runtime = runtime

    def __call__(self, manager: object) -> None:
        """Evaluate; called by the manager at the end of an epoch."""
        logits = predict_logits([self.model], self.loader, self.runtime)[0]
        dataset = self.loader.dataset
        encoded = self.task.encode(torch.from_numpy(dataset.codes))
        weights = None if dataset.weights is None else torch.from_numpy(dataset.weights)
        weighted = with_weights(self.loss, weights is not None)
        loss = float(weighted(torch.from_numpy(logits), encoded, weights))
        metric = score_logits(
            self.task, self.metric, logits, dataset.targets, dataset.metric_weights
        )
        ppe.reporting.report({"val/loss": loss, "val/metric": metric})


def validated_epochs(max_epoch: int, validations: int | None) -> list[int]:
    """Return the epochs after which a fine-tuning is validated, counted from 1, ascending.

    Args:
        max_epoch: Number of epochs.
        validations: Number of validations, spread evenly, the last one after the last epoch; None
            for all epochs.
    """
    n = min(validations or max_epoch, max_epoch)
    return [math.ceil(k * max_epoch / n) for k in range(1, n + 1)]
