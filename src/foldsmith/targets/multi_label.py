"""Several labels per image: a probability of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from foldsmith.project import ProjectFolder
from foldsmith.project.label_forms import SeveralLabels
from foldsmith.targets.task import Array, Explained, Logits, Task

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

    from foldsmith.config.settings import Globals


# No probability is nearer to 0 or 1: its log odds must be a number.
_NEAREST = 1e-12


def logits_of(probabilities: Array) -> Logits:
    """Return the log odds of probabilities, float32."""
    from scipy.special import logit

    logits: Logits = logit(probabilities.clip(_NEAREST, 1 - _NEAREST)).astype(np.float32)
    return logits


@dataclass(frozen=True)
class MultiLabel(Task):
    """One output per label; predictions are the probabilities of the labels.

    Attributes:
        label_names: Names of the labels, in the order of the outputs.
    """

    label_names: tuple[str, ...]

    name = "multi-label"
    short_name = "labels"
    default_loss = "BCEWithLogitsLoss"
    needs_order = False
    form = SeveralLabels.kind
    judged_by = SeveralLabels.needs

    @classmethod
    def from_settings(cls, settings: Globals, project: ProjectFolder) -> Self:
        """Return the task for the labels of the project."""
        return cls(project.form.labels)

    @property
    def n_outputs(self) -> int:
        """Number of labels."""
        return len(self.label_names)

    @property
    def point_shape(self) -> tuple[int, ...]:
        """A probability per label."""
        return (self.n_outputs,)

    @property
    def class_labels(self) -> tuple[str, ...]:
        """Names of the labels."""
        return self.label_names

    def codes(self, labels: Array) -> npt.NDArray[np.float32]:
        """Return the labels, float32, shape (n, n_labels)."""
        return labels.astype(np.float32)

    def encode(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the labels, float32, shape (n, n_labels)."""
        return codes.float()

    def predict(self, logits: Logits) -> Array:
        """Return the probabilities: shape (..., n_labels) as the logits."""
        return self.probabilities(logits)

    def probabilities(self, logits: Logits) -> Array:
        """Return the logistic function of the logits, shape (..., n_labels)."""
        # Here, not above: scipy takes half a second, which `status` and `check` never need.
        from scipy.special import expit

        probabilities: Array = expit(logits.astype(np.float64))
        return probabilities

    def points(self, probabilities: Array) -> Array:
        """Return the probabilities themselves."""
        return probabilities

    def constant_logits(self, labels: Array) -> Logits:
        """Return the log odds of the labels' frequencies, shape (n_labels,)."""
        return logits_of(labels.mean(axis=0))

    def explained(self) -> Explained:
        """Return the logit of the most probable label."""
        return Explained(
            lambda logits: logits.max(dim=1).values, True, "for the most probable label"
        )
