"""Classification, of steps of a scale or of classes without an order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.targets.class_values import nearest
from foldsmith.targets.task import Array, Explained, Logits, Task
from foldsmith.utils.formatting import number_text

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

    from foldsmith.config.settings import Globals

# A target may be this far from its class value, as a share of the distance between classes.
_ALMOST = 1e-3


def class_labels(values: Sequence[float], names: Sequence[str]) -> tuple[str, ...]:
    """Return the name of each class; without names, all digits of its value."""
    return tuple(names) or tuple(number_text(value) for value in values)


@dataclass(frozen=True)
class MultiClass(Task):
    """Classification; the prediction is the expectation of the class values.

    If the classes have no order, the prediction is the value of the most probable one.

    Attributes:
        class_values: Target value of each class, ascending or not, shape (n_classes,).
        class_names: Their names if they have no order.
    """

    class_values: tuple[float, ...]
    class_names: tuple[str, ...] = ()

    name = "multi-class"
    short_name = "cls"
    default_loss = "CrossEntropyLoss"
    needs_order = False

    @classmethod
    def from_settings(cls, settings: Globals, project: ProjectFolder) -> Self:
        """Return the task for the classes of the project."""
        return cls(tuple(project.class_values), project.class_names)

    @property
    def n_outputs(self) -> int:
        """Number of logits per image."""
        return len(self.class_values)

    @property
    def class_labels(self) -> tuple[str, ...]:
        """Text of each class."""
        return class_labels(self.class_values, self.class_names)

    @property
    def ordered(self) -> bool:
        """Whether the classes have an order."""
        return not self.class_names

    def codes(self, labels: Array) -> npt.NDArray[np.int64]:
        """Return the position of the class of each label (the nearest value), shape (n,)."""
        return nearest(labels, self.class_values)

    def encode(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the codes as class indices, int64, shape (n,)."""
        return codes.long()

    def check(self, labels: Array) -> None:
        """Check that every label is a class value.

        Raises:
            DataError: A label is none of the class values.
        """
        values = np.asarray(self.class_values)
        distance = np.abs(labels - values[nearest(labels, values)])
        # A fraction of the distance between classes does not depend on the unit of the target.
        if distance.max() > _ALMOST * np.diff(np.sort(values)).min():
            wrong = number_text(labels[distance.argmax()])
            known = ", ".join(class_labels(self.class_values, ()))
            raise DataError(
                f"the target {wrong} is none of the class values {known}; set n_classes and "
                "class_values in project.yml, or train as regression"
            )

    def predict(self, logits: Logits) -> Array:
        """Return the expectation of the softmax over the class values, or the most probable.

        Args:
            logits: Shape (..., n_classes).

        Returns:
            Shape (...).
        """
        return self.points(self.probabilities(logits))

    def points(self, probabilities: Array) -> Array:
        """Return the point predictions for probabilities: shape (..., n_classes) to (...)."""
        values = np.asarray(self.class_values)
        if self.class_names:
            most_probable: Array = values[probabilities.argmax(axis=-1)]
            return most_probable
        expectation: Array = probabilities @ values
        return expectation

    def probabilities(self, logits: Logits) -> Array:
        """Return the softmax, shape (..., n_classes) as the logits."""
        shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
        weights = np.exp(shifted)
        probabilities: Array = weights / weights.sum(axis=-1, keepdims=True)
        return probabilities

    def constant_logits(self, labels: Array) -> Logits:
        """Return the classes' log frequencies, whose expectation is the mean target.

        Args:
            labels: Shape (n,).

        Returns:
            Shape (n_classes,).
        """
        share = np.bincount(self.codes(labels), minlength=self.n_outputs) / len(labels)
        return np.log(np.maximum(share, 1e-12)).astype(np.float32)

    def explained(self) -> Explained:
        """Return the logit of the winning class, as in the paper of Grad-CAM."""
        return Explained(lambda logits: logits.max(dim=1).values, True, "for the winning class")
