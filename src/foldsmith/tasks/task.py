"""The supervised tasks: how targets enter the loss and logits become predictions."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from foldsmith.config import Project
from foldsmith.errors import ConfigError, DataError
from foldsmith.tasks.metrics import Metric


@dataclass(frozen=True)
class MultiClass:
    """Classification; the prediction is the expectation of the class values.

    Attributes:
        class_values: Target value of each class, ascending or not, shape (n_classes,).
    """

    class_values: tuple[float, ...]
    name: Literal["multi-class"] = "multi-class"

    @property
    def n_outputs(self) -> int:
        """Number of logits per photo."""
        return len(self.class_values)

    def encode(self, targets: torch.Tensor) -> torch.Tensor:
        """Return the class of each target (the nearest value), int64, shape (n,)."""
        values = torch.tensor(self.class_values, device=targets.device)
        return (targets[:, None] - values).abs().argmin(dim=1)

    def check(self, targets: npt.NDArray[np.float32]) -> None:
        """Make sure that targets fit the task, once, before training.

        Raises:
            DataError: A target is none of the class values.
        """
        distance = np.abs(targets[:, None] - np.asarray(self.class_values, np.float32)).min(axis=1)
        if distance.max() > 1e-3:
            wrong = targets[distance.argmax()]
            values = ", ".join(f"{value:g}" for value in self.class_values)
            raise DataError(
                f"the target {wrong:g} is none of the class values {values}; set n_classes and "
                "class_values in project.yml, or train as regression"
            )

    def predict(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the expectation of the softmax over the class values.

        Args:
            logits: Shape (..., n_classes).

        Returns:
            Shape (...).
        """
        values = np.asarray(self.class_values)
        expectation: npt.NDArray[np.float64] = self.probabilities(logits) @ values
        return expectation

    def probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the softmax, shape (..., n_classes) as the logits."""
        shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
        weights = np.exp(shifted)
        probabilities: npt.NDArray[np.float64] = weights / weights.sum(axis=-1, keepdims=True)
        return probabilities

    def constant_logits(self, targets: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return logits whose prediction is the mean target: the classes' log frequencies.

        Args:
            targets: Shape (n,).

        Returns:
            Shape (n_classes,).
        """
        classes = self.encode(torch.from_numpy(targets)).numpy()
        share = np.bincount(classes, minlength=self.n_outputs) / len(targets)
        return np.log(np.maximum(share, 1e-12)).astype(np.float32)


@dataclass(frozen=True)
class Regression:
    """Regression; the prediction is the output clipped to the target range.

    Attributes:
        target_range: Lowest and highest possible target.
    """

    target_range: tuple[float, float]
    name: Literal["regression"] = "regression"

    @property
    def n_outputs(self) -> int:
        """Number of outputs per photo."""
        return 1

    def encode(self, targets: torch.Tensor) -> torch.Tensor:
        """Return the targets as a column, float32, shape (n, 1)."""
        return targets[:, None]

    def check(self, targets: npt.NDArray[np.float32]) -> None:
        """Accept every target: reading the table has checked the range."""

    def predict(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the clipped outputs: shape (..., 1) becomes (...)."""
        return np.clip(logits[..., 0].astype(np.float64), *self.target_range)

    def constant_logits(self, targets: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the mean target as an output, shape (1,)."""
        return np.array([targets.mean()], np.float32)


Task = MultiClass | Regression


def create_task(name: str, project: Project) -> Task:
    """Return the task that ``globals/task`` names."""
    if name == "multi-class":
        return MultiClass(tuple(project.class_values))
    return Regression(project.target_range)


def probabilities_of(task: Task, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64] | None:
    """Return class probabilities, shape (..., n_classes); None if the task knows no classes."""
    give = getattr(task, "probabilities", None)
    return None if give is None else give(logits)


def check_metric(task: Task, metric: Metric) -> None:
    """Make sure that a task gives what a metric judges.

    Raises:
        ConfigError: The metric needs class probabilities and the task has none.
    """
    if metric.needs == "probabilities" and not hasattr(task, "probabilities"):
        raise ConfigError(
            f"metric {metric.name}: needs class probabilities, and the task {task.name} gives "
            "none; train as multi-class, or set another eval/metric (as in {type: RMSE})"
        )


def score_logits(
    task: Task,
    metric: Metric,
    logits: npt.NDArray[np.float32],
    targets: npt.NDArray[np.float32],
) -> float:
    """Return the metric of what a task makes of logits.

    Args:
        task: How logits become predictions or probabilities.
        metric: The metric.
        logits: Shape (n, n_outputs).
        targets: Target values, shape (n,).

    Raises:
        ConfigError: As :func:`check_metric`.
    """
    check_metric(task, metric)
    truth = targets.astype(np.float64)
    if metric.needs == "probabilities":
        probabilities = probabilities_of(task, logits)
        assert probabilities is not None
        return metric(probabilities, truth)
    return metric(task.predict(logits), truth)
