"""Classification, of steps of a scale or of classes without an order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from foldsmith.data.transforms.pixels import to_device
from foldsmith.errors import DataError


def class_labels(values: Sequence[float], names: Sequence[str]) -> tuple[str, ...]:
    """Return what each class is called: its name if it has one, else its value."""
    return tuple(names) or tuple(f"{value:g}" for value in values)


@dataclass(frozen=True)
class MultiClass:
    """Classification; the prediction is the expectation of the class values.

    Of classes without an order it is the value of the most probable one.

    Attributes:
        class_values: Target value of each class, ascending or not, shape (n_classes,).
        class_names: Their names if they have no order.
    """

    class_values: tuple[float, ...]
    class_names: tuple[str, ...] = ()
    name: Literal["multi-class"] = "multi-class"

    @property
    def n_outputs(self) -> int:
        """Number of logits per photo."""
        return len(self.class_values)

    def encode(self, targets: torch.Tensor) -> torch.Tensor:
        """Return the class of each target (the nearest value), int64, shape (n,)."""
        values = to_device(np.asarray(self.class_values, np.float32), targets.device)
        return (targets[:, None] - values).abs().argmin(dim=1)

    def targets(self, labels: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the targets as they are."""
        return labels.astype(np.float64)

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
        """Return the expectation of the softmax over the class values, or the most probable.

        Args:
            logits: Shape (..., n_classes).

        Returns:
            Shape (...).
        """
        return self.points(self.probabilities(logits))

    def points(self, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return what is predicted by probabilities, shape (..., n_classes): shape (...)."""
        values = np.asarray(self.class_values)
        if self.class_names:
            most_probable: npt.NDArray[np.float64] = values[probabilities.argmax(axis=-1)]
            return most_probable
        expectation: npt.NDArray[np.float64] = probabilities @ values
        return expectation

    def probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the softmax, shape (..., n_classes) as the logits."""
        shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
        weights = np.exp(shifted)
        probabilities: npt.NDArray[np.float64] = weights / weights.sum(axis=-1, keepdims=True)
        return probabilities

    def constant_logits(self, targets: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the classes' log frequencies, whose expectation is the mean target.

        Args:
            targets: Shape (n,).

        Returns:
            Shape (n_classes,).
        """
        classes = self.encode(torch.from_numpy(targets)).numpy()
        share = np.bincount(classes, minlength=self.n_outputs) / len(targets)
        return np.log(np.maximum(share, 1e-12)).astype(np.float32)
