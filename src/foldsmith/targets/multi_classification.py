"""Several class targets per image: the probabilities of the classes of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from foldsmith.project import ProjectFolder
from foldsmith.project.class_forms import ClassTargets
from foldsmith.targets.class_blocks import ClassBlocks
from foldsmith.targets.row_means import column_means
from foldsmith.targets.task import Array, Explained, Logits, Task

if TYPE_CHECKING:
    import torch
    from torch import nn
    from typing_extensions import Self

    from foldsmith.config.settings import Globals

# Code of a missing target, which the loss leaves out.
MISSING = -1

# No frequency is less: its logarithm must be a number.
_LEAST = 1e-12


@dataclass(frozen=True)
class MultiClassification(Task):
    """Classification of several targets by one model: a block of outputs for each.

    Attributes:
        blocks: The targets and the places of their outputs.
        labels_of_outputs: Target and class of each output, as ``colour=red``.
    """

    blocks: ClassBlocks
    labels_of_outputs: tuple[str, ...]

    name = "multi-classification"
    short_name = "columns"
    default_loss = "ClassTargetsLoss"
    needs_order = False
    form = ClassTargets.kind
    judged_by = ClassTargets.needs

    @classmethod
    def from_settings(cls, settings: Globals, project: ProjectFolder) -> Self:
        """Return the task for the targets of the project."""
        return cls.of_project(project)

    @classmethod
    def of_project(cls, project: ProjectFolder) -> Self:
        """Return the task for the targets of a project of several class targets."""
        assert isinstance(project.form, ClassTargets), "checked by create_task"
        return cls(project.form.blocks, project.form.labels)

    @property
    def n_outputs(self) -> int:
        """Number of classes of all targets."""
        return self.blocks.n_outputs

    @property
    def point_shape(self) -> tuple[int, ...]:
        """A probability per class of each target."""
        return (self.n_outputs,)

    @property
    def class_labels(self) -> tuple[str, ...]:
        """Target and class of each output."""
        return self.labels_of_outputs

    def codes(self, labels: Array) -> npt.NDArray[np.int64]:
        """Return the class numbers, -1 where a target is missing, shape (n, n_columns)."""
        return np.where(np.isnan(labels), MISSING, labels).astype(np.int64)

    def encode(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the codes as class indices, int64, shape (n, n_columns)."""
        return codes.long()

    def predict(self, logits: Logits) -> Array:
        """Return the probabilities: shape (..., n_outputs) as the logits."""
        return self.probabilities(logits)

    def probabilities(self, logits: Logits) -> Array:
        """Return the softmax of each block, shape (..., n_outputs)."""
        found = []
        for block in self.blocks.of(logits):
            shifted = block.astype(np.float64) - block.max(axis=-1, keepdims=True)
            weights = np.exp(shifted)
            found.append(weights / weights.sum(axis=-1, keepdims=True))
        return np.concatenate(found, axis=-1)

    def points(self, probabilities: Array) -> Array:
        """Return the probabilities themselves."""
        return probabilities

    def constant_logits(self, labels: Array) -> Logits:
        """Return the log frequencies of the classes of each target, shape (n_outputs,)."""
        frequencies = np.nan_to_num(column_means(self.blocks.encoded(labels)))
        return np.log(np.maximum(frequencies, _LEAST)).astype(np.float32)

    def explained(self) -> Explained:
        """Return the sum of the logits of each target's winning class."""
        slices = self.blocks.slices

        def winners(logits: torch.Tensor) -> torch.Tensor:
            total: torch.Tensor = sum(
                (logits[:, part].max(dim=1).values for part in slices[1:]),
                logits[:, slices[0]].max(dim=1).values,
            )
            return total

        return Explained(winners, True, "for the winning class of each target")

    def loss(self) -> nn.Module:
        """Return the cross-entropy of each target, by its weight."""
        from foldsmith.targets.class_target_loss import ClassTargetsLoss

        return ClassTargetsLoss(self.blocks.sizes, self.blocks.weights)
