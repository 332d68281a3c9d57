"""Several numbers per image: an output for each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from foldsmith.project import ProjectFolder
from foldsmith.project.number_forms import SeveralNumbers
from foldsmith.targets.column_scales import (
    ColumnScales,
    Scale,
    ScaleForm,
    forms_of,
    lines_of_columns,
)
from foldsmith.targets.row_means import column_means
from foldsmith.targets.task import Array, Explained, Logits, Task

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

    from foldsmith.config.settings import Globals


@dataclass(frozen=True)
class MultiRegression(Task):
    """Regression of several numbers; each is clipped to its range.

    Attributes:
        target_names: Names of the targets, in the order of the outputs.
        limits: Lowest and highest possible value of each.
        scale: Scales of the outputs, fitted to the training targets of a fold; None for the
            targets themselves.
    """

    target_names: tuple[str, ...]
    limits: tuple[tuple[float, float], ...]
    scale: ColumnScales | None = None

    name = "multi-regression"
    short_name = "numbers"
    default_loss = "MaskedMSELoss"
    learns_numbers = True
    outputs_target = True
    form = SeveralNumbers.kind
    judged_by = SeveralNumbers.needs

    @classmethod
    def from_settings(cls, settings: Globals, project: ProjectFolder) -> Self:
        """Return the task for the targets of the project."""
        return cls.of_project(project)

    @classmethod
    def of_project(cls, project: ProjectFolder) -> Self:
        """Return the task for the targets of a project of several numbers."""
        assert isinstance(project.form, SeveralNumbers), "checked by create_task"
        return cls(project.form.names, project.form.limits)

    @property
    def n_outputs(self) -> int:
        """Number of targets."""
        return len(self.target_names)

    @property
    def point_shape(self) -> tuple[int, ...]:
        """A number per target."""
        return (self.n_outputs,)

    def scale_form(self, setting: str, labels: Array) -> tuple[ScaleForm | None, str]:
        """Return the form of each target's scale, None for none, and the reasons."""
        return forms_of(setting, labels, self.target_names)

    def fitted(self, labels: Array, form: ScaleForm | None) -> Self:
        """Return the task with scales that are fitted to training labels, (n, n_targets)."""
        if form is None:
            return self.with_scale(None)
        assert isinstance(form, tuple), "of several columns"
        return self.with_scale(ColumnScales.fit(labels, form))

    def with_scale(self, scale: Scale | None) -> Self:
        """Return the task with scales that were fitted before."""
        assert scale is None or isinstance(scale, ColumnScales), "of several columns"
        return replace(self, scale=scale)

    def lines_of_fold(self, fold: int, labels: Array) -> list[str]:
        """Return remarks about the training labels of a fold, for people."""
        return lines_of_columns(fold, self.scale, labels, self.target_names)

    def codes(self, labels: Array) -> npt.NDArray[np.float32]:
        """Return labels on their scales, NaN where one is missing, shape (n, n_targets)."""
        learned = labels if self.scale is None else self.scale.forward(labels)
        return learned.astype(np.float32)

    def encode(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the codes, float32, shape (n, n_targets)."""
        return codes.float()

    def predict(self, logits: Logits) -> Array:
        """Return the clipped outputs in units of the targets: shape (..., n_targets)."""
        outputs = logits.astype(np.float64)
        values = outputs if self.scale is None else self.scale.inverse(outputs)
        low, high = np.asarray(self.limits).T
        return values.clip(low, high)

    def constant_logits(self, labels: Array) -> Logits:
        """Return the mean of each target as an output, shape (n_targets,)."""
        mean = column_means(labels)
        learned = mean if self.scale is None else self.scale.forward(mean, clip=False)
        return learned.astype(np.float32)

    def explained(self) -> Explained:
        """Return the sum of the outputs on their scales."""
        return Explained(
            lambda logits: logits.sum(dim=1), False, "that move the targets, up or down"
        )
