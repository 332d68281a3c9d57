"""The components of one fold's training, with the labels of the fold and their scale in them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from foldsmith.config import Components, Context, Experiment
from foldsmith.data.loader import ImageLoader
from foldsmith.models.classifier import ImageModel
from foldsmith.project.tables import FOLD_COLUMN, metric_weights_of, read_folds
from foldsmith.targets.column_scales import ScaleForm
from foldsmith.targets.row_weights import training_weights
from foldsmith.targets.scale_buffer import keep_scale
from foldsmith.targets.task import Task

Labels = npt.NDArray[np.float64]
Weights = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FoldComponents:
    """The components of a fold's training.

    Attributes:
        components: The components, built on demand.
        task: The task with the scale of the fold's training labels.
        table: The fold table.
        labels: Label of each of its rows, float64, shape (n,).
        seen: Whether a row is trained on, bool, shape (n,).
        weights: Weight of each row in the loss, float32, shape (n,) or (n, n_labels); None for 1
            each.
    """

    components: Components
    task: Task
    table: pd.DataFrame
    labels: Labels
    seen: npt.NDArray[np.bool_]
    weights: Weights | None

    def weights_on(self, device: torch.device) -> torch.Tensor | None:
        """Return the weights of the rows on a device."""
        return None if self.weights is None else torch.from_numpy(self.weights).to(device)


def build_fold(
    experiment: Experiment,
    types: Mapping[str, Callable[..., Any]],
    context: Context,
    task: Task,
    form: ScaleForm | None,
) -> FoldComponents:
    """Build the model and the loaders of a fold, and put its labels and their scale into them.

    Args:
        experiment: A fine-tuning with the fold in ``globals/val_fold``.
        types: The registry.
        context: Objects that components refer to beside the tree; the fold's task is added.
        task: The task of the experiment.
        form: Form of the target scale; None for a task without one.

    Raises:
        ConfigError: A component cannot be built.
        DataError: The table, or a label, is wrong.
    """
    table, labels = read_labels(experiment, task)
    seen = table[FOLD_COLUMN].to_numpy() != experiment.globals.val_fold
    weights = weights_of_fold(experiment, table, seen)
    of_fold = task.fitted(labels[seen], form)
    components = experiment.build(types, replace(context, task=of_fold))
    # The learned labels may be finer than the target in the datasets.
    for name in ("loader/train", "loader/val"):
        set_labels(components[name], of_fold, labels, weights)
    of_rows, validated = metric_weights_of(experiment.project, table), components["loader/val"]
    if of_rows is not None:
        validated.dataset.metric_weights = of_rows[validated.dataset.rows]
    # Before the average and the optimizer are made.
    if of_fold.scale is not None:
        keep_scale(components["model"], of_fold.scale)
        if isinstance(components["model"], ImageModel) and of_fold.outputs_target:
            components["model"].start_at_zero()
    return FoldComponents(components, of_fold, table, labels, seen, weights)


def read_labels(experiment: Experiment, task: Task) -> tuple[pd.DataFrame, Labels]:
    """Return the fold table and the label of each of its rows.

    Raises:
        DataError: The table, or a label, is wrong.
    """
    table = read_folds(experiment.project, experiment.globals.meta_file)
    labels = task.labels(experiment.project, table)
    task.check(labels)
    return table, labels


def weights_of_fold(
    experiment: Experiment, table: pd.DataFrame, seen: npt.NDArray[np.bool_]
) -> Weights | None:
    """Return the weight of each row in the loss of a fold, float32; None for 1 each.

    Raises:
        DataError: As :func:`~foldsmith.targets.row_weights.training_weights`.
    """
    settings = experiment.globals
    weights = training_weights(experiment.project, settings.class_weights, table, seen)
    return None if weights is None else weights.astype(np.float32)


def set_labels(
    loader: ImageLoader, task: Task, labels: Labels, weights: Weights | None = None
) -> None:
    """Give the images of a loader their labels and weights, one per row of the fold table."""
    dataset = loader.dataset
    dataset.targets = labels[dataset.rows]
    dataset.codes = task.codes(dataset.targets)
    dataset.weights = None if weights is None else weights[dataset.rows]
