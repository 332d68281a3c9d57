"""Score the predictions that a task makes from logits."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from foldsmith.errors import ConfigError
from foldsmith.targets.metrics import Metric
from foldsmith.targets.task import Task


def probabilities_of(task: Task, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return class probabilities, shape (..., n_classes).

    Args:
        task: A task with classes.
        logits: Shape (..., n_outputs).

    Raises:
        ConfigError: The task has none.
    """
    probabilities = task.probabilities(logits)
    if probabilities is None:
        raise ConfigError(f"the task {task.name} has no class probabilities")
    return probabilities


def predictions_of(
    tasks: Sequence[Task], logits: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Return the predictions of each of several models, shape (n_models, n).

    Args:
        tasks: How the logits of each model become predictions: models of different folds may have
            learned the target on different scales.
        logits: Shape (n_models, n, n_outputs).
    """
    return np.stack([task.predict(own) for task, own in zip(tasks, logits, strict=True)])


def mean_prediction(
    tasks: Sequence[Task], logits: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Return the joint predictions of several models, shape (n,).

    The mean of their predictions; of classes without an order the most probable by the mean of
    their probabilities.

    Args:
        tasks: As for :func:`predictions_of`.
        logits: Shape (n_models, n, n_outputs).
    """
    first = tasks[0]
    if not first.ordered:
        return first.points(probabilities_of(first, logits).mean(axis=0))
    mean: npt.NDArray[np.float64] = predictions_of(tasks, logits).mean(axis=0)
    return mean


def check_metric(task: Task, metric: Metric) -> None:
    """Check that a task gives the predictions that a metric needs.

    Raises:
        ConfigError: The metric needs class probabilities and the task has none, or it judges
            another form of predictions.
    """
    if metric.needs not in task.judged_by:
        raise ConfigError(
            f"metric {metric.title}: needs {metric.needs}, and the task {task.name} predicts "
            f"{task.form}; set another eval/metric (as in {{type: ProjectMetric}})"
        )
    if metric.takes_probabilities and not task.gives_probabilities():
        raise ConfigError(
            f"metric {metric.title}: needs class probabilities, and the task {task.name} gives "
            "none; train as multi-class, or set another eval/metric (as in {type: RMSE})"
        )


def score_logits(
    task: Task,
    metric: Metric,
    logits: npt.NDArray[np.float32],
    labels: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64] | None = None,
) -> float:
    """Return the metric of a task's predictions from logits.

    Args:
        task: How logits become predictions or probabilities, and labels targets.
        metric: The metric.
        logits: Shape (n, n_outputs).
        labels: Labels of the task, shape (n,).
        weights: Weight of each row in the metric, shape (n,); None for 1 each.

    Raises:
        ConfigError: As :func:`check_metric`.
    """
    return score_predictions(task, metric, task.predict(logits), logits, labels, weights)


def score_predictions(
    task: Task,
    metric: Metric,
    predictions: npt.NDArray[np.float64],
    logits: npt.NDArray[np.float32],
    labels: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64] | None = None,
) -> float:
    """Return the metric of point predictions, or of probabilities where it needs these.

    Args:
        task: As for :func:`score_logits`.
        metric: The metric.
        predictions: Predictions from the logits, shape (n,).
        logits: Shape (n, n_outputs).
        labels: Labels of the task, shape (n,).
        weights: Weight of each row in the metric, shape (n,); None for 1 each.

    Raises:
        ConfigError: As :func:`check_metric`.
    """
    check_metric(task, metric)
    truth = task.targets(labels)
    if metric.takes_probabilities:
        return metric(probabilities_of(task, logits), truth, weights)
    return metric(predictions, truth, weights)
