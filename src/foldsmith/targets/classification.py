"""Classification, of steps of a scale or of classes without an order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from foldsmith.errors import DataError
from foldsmith.targets.metrics import nearest
from foldsmith.targets.scale import Form, TargetScale
from foldsmith.utils.formatting import number_text

# A target may be this far from its class value, as a share of the distance between classes.
_ALMOST = 1e-3


def class_labels(values: Sequence[float], names: Sequence[str]) -> tuple[str, ...]:
    """Return what each class is called: its name if it has one, else all digits of its value."""
    return tuple(names) or tuple(number_text(value) for value in values)


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

    # Classes are learned as they are.
    scales = False
    scale = None

    @property
    def n_outputs(self) -> int:
        """Number of logits per photo."""
        return len(self.class_values)

    def fitted(self, labels: npt.NDArray[np.float64], form: Form | None) -> "MultiClass":
        """Return the task as it is: classes have no scale."""
        return self

    def with_scale(self, scale: TargetScale | None) -> "MultiClass":
        """Return the task as it is."""
        return self

    def codes(self, labels: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return the position of the class of each label (the nearest value), shape (n,)."""
        return nearest(labels, self.class_values)

    def encode(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the codes as class indices, int64, shape (n,)."""
        return codes.long()

    def targets(self, labels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the targets as they are."""
        return labels

    def check(self, targets: npt.NDArray[np.float64]) -> None:
        """Make sure that targets fit the task, once, before training.

        Raises:
            DataError: A target is none of the class values.
        """
        values = np.asarray(self.class_values)
        distance = np.abs(targets - values[nearest(targets, values)])
        # Of the distance between classes, whatever the unit of the target.
        if distance.max() > _ALMOST * np.diff(np.sort(values)).min():
            wrong = number_text(targets[distance.argmax()])
            known = ", ".join(class_labels(self.class_values, ()))
            raise DataError(
                f"the target {wrong} is none of the class values {known}; set n_classes and "
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

    def constant_logits(self, targets: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Return the classes' log frequencies, whose expectation is the mean target.

        Args:
            targets: Shape (n,).

        Returns:
            Shape (n_classes,).
        """
        share = np.bincount(self.codes(targets), minlength=self.n_outputs) / len(targets)
        return np.log(np.maximum(share, 1e-12)).astype(np.float32)
