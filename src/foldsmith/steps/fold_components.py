"""The components of one fold's training, with the labels of the fold and their scale in them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.config import Components, Context, Experiment
from foldsmith.data.loader import ImageLoader
from foldsmith.models.classifier import ImageModel
from foldsmith.project.tables import FOLD_COLUMN, read_folds
from foldsmith.targets.column_scales import ScaleForm
from foldsmith.targets.scale_buffer import keep_scale
from foldsmith.targets.task import Task

Labels = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FoldComponents:
    """The components of a fold's training.

    Attributes:
        components: The components, built on demand.
        task: The task with the scale of the fold's training labels.
        table: The fold table.
        labels: Label of each of its rows, float64, shape (n,).
        seen: Whether a row is trained on, bool, shape (n,).
    """

    components: Components
    task: Task
    table: pd.DataFrame
    labels: Labels
    seen: npt.NDArray[np.bool_]


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
    of_fold = task.fitted(labels[seen], form)
    components = experiment.build(types, replace(context, task=of_fold))
    # The learned labels may be finer than the target in the datasets.
    for name in ("loader/train", "loader/val"):
        set_labels(components[name], of_fold, labels)
    # Before the average and the optimizer are made.
    if of_fold.scale is not None:
        keep_scale(components["model"], of_fold.scale)
        if isinstance(components["model"], ImageModel) and of_fold.outputs_target:
            components["model"].start_at_zero()
    return FoldComponents(components, of_fold, table, labels, seen)


def read_labels(experiment: Experiment, task: Task) -> tuple[pd.DataFrame, Labels]:
    """Return the fold table and the label of each of its rows.

    Raises:
        DataError: The table, or a label, is wrong.
    """
    table = read_folds(experiment.project, experiment.globals.meta_file)
    labels = task.labels(experiment.project, table)
    task.check(labels)
    return table, labels


def set_labels(loader: ImageLoader, task: Task, labels: Labels) -> None:
    """Give the images of a loader their labels, one per row of the fold table."""
    dataset = loader.dataset
    dataset.targets = labels[dataset.rows]
    dataset.codes = task.codes(dataset.targets)
