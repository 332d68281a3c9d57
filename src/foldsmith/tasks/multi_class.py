"""Classification with an expectation as its prediction."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from foldsmith.data.transforms.pixels import to_device
from foldsmith.errors import DataError


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
