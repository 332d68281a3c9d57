"""Ordinal regression by conditional probabilities."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from foldsmith.targets.classification import MultiClass
from foldsmith.targets.scale import Form, TargetScale


@dataclass(frozen=True)
class Corn:
    """Ordered classes; output j says whether a photo is above class j, given it is not below.

    CORN (Shi, Cao & Raschka, "Deep Neural Networks for Rank-Consistent Ordinal Regression Based
    on Conditional Probabilities", 2021). The probabilities to be above a class are products,
    and so fall from class to class. The prediction is the expectation of the class values.

    Attributes:
        class_values: Target value of each class, ascending, shape (n_classes,).
    """

    class_values: tuple[float, ...]
    name: Literal["corn"] = "corn"

    # Classes are learned as they are.
    scales = False
    scale = None

    @property
    def n_outputs(self) -> int:
        """Number of logits per photo."""
        return len(self.class_values) - 1

    def fitted(self, labels: npt.NDArray[np.float64], form: Form | None) -> "Corn":
        """Return the task as it is: classes have no scale."""
        return self

    def with_scale(self, scale: TargetScale | None) -> "Corn":
        """Return the task as it is."""
        return self

    def codes(self, labels: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return the position of the class of each label (the nearest value), shape (n,)."""
        return MultiClass(self.class_values).codes(labels)

    def encode(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the codes as class indices, int64, shape (n,)."""
        return codes.long()

    def targets(self, labels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the targets as they are."""
        return labels

    def check(self, targets: npt.NDArray[np.float64]) -> None:
        """Make sure that targets fit the task, as for classification."""
        MultiClass(self.class_values).check(targets)

    def above(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the probability to be above each class but the last.

        Args:
            logits: Shape (..., n_classes - 1).

        Returns:
            Same shape, falling along the last axis.
        """
        # Here, not above: scipy takes half a second, which `status` and `check` never need.
        from scipy.special import expit

        above: npt.NDArray[np.float64] = np.cumprod(expit(logits.astype(np.float64)), axis=-1)
        return above

    def predict(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the expectation of the class values: shape (..., n_classes - 1) to (...)."""
        values = np.asarray(self.class_values)
        expectation: npt.NDArray[np.float64] = values[0] + self.above(logits) @ np.diff(values)
        return expectation

    def probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the probability of each class, shape (..., n_classes)."""
        above = self.above(logits)
        reached = np.concatenate([np.ones_like(above[..., :1]), above], axis=-1)
        left = np.concatenate([above, np.zeros_like(above[..., :1])], axis=-1)
        probabilities: npt.NDArray[np.float64] = reached - left
        return probabilities

    def constant_logits(self, targets: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Return logits whose prediction is the mean target, shape (n_classes - 1,)."""
        classes = self.codes(targets)
        reached = np.array([(classes >= k).mean() for k in range(len(self.class_values))])
        share = np.clip(reached[1:] / np.maximum(reached[:-1], 1e-12), 1e-6, 1 - 1e-6)
        logits: npt.NDArray[np.float32] = np.log(share / (1 - share)).astype(np.float32)
        return logits
