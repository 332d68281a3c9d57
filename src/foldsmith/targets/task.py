"""The supervised tasks: how targets enter the loss and logits become predictions.

A task learns *labels*, one float64 number per photo: the targets, or a continuous quantity that
they are a coarse form of. Every task has ``n_outputs``, ``codes`` (labels to the number that a
batch carries: float32 or a class index), ``encode`` (codes to what the loss takes),
``fitted`` (the task with the scale of a fold's training labels), ``with_scale``,
``targets`` (labels to targets), ``check``, ``predict`` (logits to predictions) and
``constant_logits`` (logits of a photo about which nothing is known).
"""

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import nn

from foldsmith.config import Globals
from foldsmith.errors import ConfigError, DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import numbers, targets_of
from foldsmith.targets.classification import MultiClass
from foldsmith.targets.corn import Corn
from foldsmith.targets.label_distribution import LabelDistribution
from foldsmith.targets.regression import Regression
from foldsmith.targets.scale_buffer import scale_kept
from foldsmith.utils.formatting import number_text

__all__ = [
    *("Corn", "LabelDistribution", "MultiClass", "Regression"),
    *("Task", "create_task", "labels_of", "task_kept"),
]

Task = MultiClass | Regression | LabelDistribution | Corn


def create_task(settings: Globals, project: ProjectFolder) -> Task:
    """Return the task that checked ``globals`` name.

    Raises:
        ConfigError: Its classes must be in order and are not.
    """
    if settings.task == "multi-class":
        return MultiClass(tuple(project.class_values), project.class_names)
    if project.class_names:
        raise ConfigError(
            f"globals/task: {settings.task} needs an order, which the class_names of project.yml "
            "do not have; take multi-class"
        )
    if settings.task == "corn":
        if sorted(project.class_values) != project.class_values:
            raise ConfigError("project.yml: class_values: must ascend for globals/task: corn")
        return Corn(tuple(project.class_values))
    if settings.task == "regression":
        return Regression(project.target_range)
    bins = settings.n_bins, settings.label_sigma, project.target_range
    continuous = project.settings.continuous
    if continuous is None or not settings.continuous_target:
        return LabelDistribution(project.target_range, *bins)
    return LabelDistribution(
        *(continuous.range, *bins, continuous.thresholds),
        piece_targets=tuple(sorted(project.class_values)),
        column=continuous.column,
    )


def task_kept(task: Task, model: nn.Module) -> Task:
    """Return a task with the target scale that a model has learned on, if it keeps one.

    Args:
        task: The task of the experiment.
        model: A model with the weights of a snapshot.

    Raises:
        OutputError: The scale is damaged.
    """
    return task.with_scale(scale_kept(model))


def labels_of(task: Task, project: ProjectFolder, table: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return what a task learns of each row: its label, float64, shape (n,).

    Raises:
        DataError: The column of the labels is missing, or a label does not lead to the row's
            target.
    """
    targets = targets_of(project, table)
    if not isinstance(task, LabelDistribution) or not task.thresholds:
        return targets
    if task.column not in table:
        raise DataError(f"{project.settings.train_csv}: no column {task.column!r} (continuous)")
    labels = numbers(table[task.column]).to_numpy(np.float64, copy=True)
    task.check(labels)
    apart = np.diff(np.sort(project.class_values)).min()
    wrong = np.abs(task.targets(labels) - targets) > 1e-3 * apart
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{project.settings.train_csv}: id {table[project.settings.id_column].iloc[row]}: "
            f"{task.column} {number_text(labels[row])} leads to the target "
            f"{number_text(task.targets(labels)[row])}, but the table has "
            f"{number_text(targets[row])} ({int(wrong.sum())} such rows); set "
            "continuous/thresholds in project.yml"
        )
    return labels
