"""Ordinal regression by conditional probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.targets.classification import MultiClass, class_labels
from foldsmith.targets.task import VALUE_TEXT, Array, Explained, Logits, Task

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

    from foldsmith.config.settings import Globals


@dataclass(frozen=True)
class Corn(Task):
    """Ordered classes; output j is the logit of being above class j, given not below it.

    CORN (Shi, Cao & Raschka, "Deep Neural Networks for Rank-Consistent Ordinal Regression Based
    on Conditional Probabilities", 2021). The probabilities to be above a class are products,
    and so fall from class to class. The prediction is the expectation of the class values.

    Attributes:
        class_values: Target value of each class, ascending, shape (n_classes,).
    """

    class_values: tuple[float, ...]

    name = "corn"
    default_loss = "CornLoss"

    @classmethod
    def from_settings(cls, settings: Globals, project: ProjectFolder) -> Self:
        """Return the task for the classes of the project.

        Raises:
            ConfigError: The class values do not ascend.
        """
        if sorted(project.class_values) != project.class_values:
            raise ConfigError("project.yml: class_values: must ascend for globals/task: corn")
        return cls(tuple(project.class_values))

    @property
    def n_outputs(self) -> int:
        """Number of logits per image."""
        return len(self.class_values) - 1

    @property
    def class_labels(self) -> tuple[str, ...]:
        """Text of each class."""
        return class_labels(self.class_values, ())

    def codes(self, labels: Array) -> npt.NDArray[np.int64]:
        """Return the position of the class of each label (the nearest value), shape (n,)."""
        return MultiClass(self.class_values).codes(labels)

    def encode(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the codes as class indices, int64, shape (n,)."""
        return codes.long()

    def check(self, labels: Array) -> None:
        """Check that every label is a class value."""
        MultiClass(self.class_values).check(labels)

    def above(self, logits: Logits) -> Array:
        """Return the probability to be above each class but the last.

        Args:
            logits: Shape (..., n_classes - 1).

        Returns:
            Same shape, falling along the last axis.
        """
        # Here, not above: scipy takes half a second, which `status` and `check` never need.
        from scipy.special import expit

        above: Array = np.cumprod(expit(logits.astype(np.float64)), axis=-1)
        return above

    def predict(self, logits: Logits) -> Array:
        """Return the expectation of the class values: shape (..., n_classes - 1) to (...)."""
        values = np.asarray(self.class_values)
        expectation: Array = values[0] + self.above(logits) @ np.diff(values)
        return expectation

    def points(self, probabilities: Array) -> Array:
        """Return the expectation of the class values: shape (..., n_classes) to (...)."""
        expectation: Array = probabilities @ np.asarray(self.class_values)
        return expectation

    def probabilities(self, logits: Logits) -> Array:
        """Return the probability of each class, shape (..., n_classes)."""
        above = self.above(logits)
        reached = np.concatenate([np.ones_like(above[..., :1]), above], axis=-1)
        left = np.concatenate([above, np.zeros_like(above[..., :1])], axis=-1)
        probabilities: Array = reached - left
        return probabilities

    def constant_logits(self, labels: Array) -> Logits:
        """Return logits whose prediction is the mean target, shape (n_classes - 1,)."""
        classes = self.codes(labels)
        reached = np.array([(classes >= k).mean() for k in range(len(self.class_values))])
        share = np.clip(reached[1:] / np.maximum(reached[:-1], 1e-12), 1e-6, 1 - 1e-6)
        logits: Logits = np.log(share / (1 - share)).astype(np.float32)
        return logits

    def explained(self) -> Explained:
        """Return the expectation of the class values, above the lowest."""
        import torch

        steps = torch.from_numpy(np.diff(self.class_values)).float()
        return Explained(
            lambda logits: logits.sigmoid().cumprod(dim=1) @ steps.to(logits.device),
            False,
            VALUE_TEXT,
        )
