"""Regression on the target itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from foldsmith.project import ProjectFolder
from foldsmith.targets.column_scales import Scale
from foldsmith.targets.task import Array, Logits, Task

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

    from foldsmith.config.settings import Globals


@dataclass(frozen=True)
class Regression(Task):
    """Regression; the prediction is the output in units of the target, clipped to its range.

    Attributes:
        target_range: Lowest and highest possible target.
        scale: Scale of the outputs, fitted to the training targets of a fold; None for the target
            itself.
    """

    target_range: tuple[float, float]
    scale: Scale | None = None

    name = "regression"
    short_name = "reg"
    learns_numbers = True
    outputs_target = True

    @classmethod
    def from_settings(cls, settings: Globals, project: ProjectFolder) -> Self:
        """Return the task for the range of the project's target."""
        return cls(project.target_range)

    @property
    def n_outputs(self) -> int:
        """Number of outputs per image."""
        return 1

    def with_scale(self, scale: Scale | None) -> Self:
        """Return the task with a scale that was fitted before."""
        return replace(self, scale=scale)

    def codes(self, labels: Array) -> npt.NDArray[np.float32]:
        """Return labels on the scale, which the outputs are fitted to, shape (n,)."""
        learned = labels if self.scale is None else self.scale.forward(labels)
        return learned.astype(np.float32)

    def encode(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the codes as a column, float32, shape (n, 1)."""
        return codes[:, None].float()

    def predict(self, logits: Logits) -> Array:
        """Return the clipped outputs in units of the target: shape (..., 1) becomes (...)."""
        outputs = logits[..., 0].astype(np.float64)
        values = outputs if self.scale is None else self.scale.inverse(outputs)
        return values.clip(*self.target_range)

    def constant_logits(self, labels: Array) -> Logits:
        """Return the mean target as an output, shape (1,)."""
        mean = np.array([labels.mean()])
        learned = mean if self.scale is None else self.scale.forward(mean, clip=False)
        return learned.astype(np.float32)
