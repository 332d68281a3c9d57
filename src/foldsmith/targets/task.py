"""The protocol of a supervised task: how targets enter the loss and logits become predictions.

A task learns *labels*, one float64 number per image: the target, or a continuous quantity that the
target is a coarse form of. Several labels per image are a row of 0 and 1. Each task is a class in a
file of its own; ``targets/tasks.py`` lists them, and a project's own Python may add more under
their names in its ``TYPES``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.project.column_forms import OneNumber
from foldsmith.project.tables import targets_of
from foldsmith.targets.column_scales import Scale, ScaleForm
from foldsmith.targets.metric import Needs
from foldsmith.targets.scale import TargetScale, form_of, lines_of_fold

if TYPE_CHECKING:  # neither is needed to name a task, and torch takes seconds
    import torch
    from torch import nn
    from typing_extensions import Self

    from foldsmith.config.settings import Globals

Array = npt.NDArray[np.float64]
Logits = npt.NDArray[np.float32]

# Description of a value that a heat map explains.
VALUE_TEXT = "that move the prediction, up or down"


@dataclass(frozen=True)
class Explained:
    """The number that a heat map explains.

    Attributes:
        of: From outputs, shape (n, n_outputs), to one number per image, shape (n,),
            differentiable.
        one_way: Whether only evidence that raises the number counts, as for a class. For a
            value, evidence that lowers it is as much a part of the prediction.
        text: Description of the number, for people.
    """

    of: Callable[[torch.Tensor], torch.Tensor]
    one_way: bool
    text: str


class Task(ABC):
    """Base class of every supervised task.

    A new task defines ``name`` and the abstract methods. The other methods have defaults for a
    task that learns the target as it is and gives no class probabilities.

    Attributes:
        name: Value of ``globals/task``.
        short_name: Name in the submission files of an ensemble (``avg_cls.csv``); ``name`` if
            empty.
        default_loss: Loss for outputs and encoded targets, a name in ``targets/losses.py``.
        learns_numbers: Whether ``globals/target_scale`` applies to the labels.
        needs_order: Whether the task treats targets as numbers on a scale, which classes with
            ``class_names`` are not.
        outputs_target: Whether the only output is the label itself (on its scale). Logits are then
            not saved beside predictions, and ``globals/head_init`` may be ``ridge``.
        takes_continuous: Whether ``globals/continuous_target`` applies.
        form: Form of the target that it learns (``TargetForm.kind``).
        judged_by: What metrics of its predictions need.
        scale: Scale of the labels, fitted to the training labels of a fold; None for none.
    """

    name: ClassVar[str]
    short_name: ClassVar[str] = ""
    default_loss: ClassVar[str] = "MSELoss"
    learns_numbers: ClassVar[bool] = False
    needs_order: ClassVar[bool] = True
    outputs_target: ClassVar[bool] = False
    takes_continuous: ClassVar[bool] = False
    form: ClassVar[str] = OneNumber.kind
    judged_by: ClassVar[tuple[Needs, ...]] = OneNumber.needs
    scale: Scale | None = None

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: Globals, project: ProjectFolder) -> Self:
        """Return the task of an experiment.

        Args:
            settings: Checked ``globals`` of the experiment.
            project: Range of the target, class values, class names.

        Raises:
            ConfigError: The project does not fit the task.
        """

    @property
    @abstractmethod
    def n_outputs(self) -> int:
        """Number of outputs of a model, per image."""

    @abstractmethod
    def codes(self, labels: Array) -> npt.NDArray[Any]:
        """Return the number of each label that a batch carries, float32 or int64, shape (n,)."""

    @abstractmethod
    def encode(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the loss's second argument for codes, shape (n,), on their device."""

    @abstractmethod
    def predict(self, logits: Logits) -> Array:
        """Return point predictions in units of the target: shape (..., n_outputs) to (...)."""

    @abstractmethod
    def constant_logits(self, labels: Array) -> Logits:
        """Return logits that predict the mean of labels, shape (n_outputs,).

        They stand in for the logits of an image that cannot be read.

        Args:
            labels: Shape (n,).
        """

    def probabilities(self, logits: Logits) -> Array | None:
        """Return class probabilities, shape (..., n_classes); None if the task has none."""
        return None

    def points(self, probabilities: Array) -> Array:
        """Return point predictions for class probabilities: (..., n_classes) to (...).

        Raises:
            ConfigError: The task has no classes.
        """
        raise ConfigError(f"the task {self.name} has no class probabilities")

    @classmethod
    def gives_probabilities(cls) -> bool:
        """Return whether the task has class probabilities."""
        return cls.probabilities is not Task.probabilities

    @property
    def point_shape(self) -> tuple[int, ...]:
        """Shape of the point prediction of an image."""
        return ()

    @property
    def class_labels(self) -> tuple[str, ...]:
        """Text of each class, in the order of the probabilities; empty without classes."""
        return ()

    @property
    def ordered(self) -> bool:
        """Whether predictions are numbers whose mean is a prediction too."""
        return True

    def explained(self) -> Explained:
        """Return the number that a heat map explains: the first output by default."""
        return Explained(lambda logits: logits[:, 0], False, VALUE_TEXT)

    def labels(self, project: ProjectFolder, table: pd.DataFrame) -> Array:
        """Return the label of each row of the fold table, shape (n,).

        Raises:
            DataError: A label is missing or wrong.
        """
        return targets_of(project, table)

    def targets(self, labels: Array) -> Array:
        """Return the target of each label, shape (n,)."""
        return labels

    def check(self, labels: Array) -> None:  # noqa: B027 - accepts every label by default
        """Check labels once, before training; reading the table has checked the target's range.

        Raises:
            DataError: A label does not fit the task.
        """

    def scale_form(self, setting: str, labels: Array) -> tuple[ScaleForm | None, str]:
        """Return the form of the labels' scale, None for none, and the reason if it was chosen.

        Args:
            setting: ``globals/target_scale``.
            labels: All labels: every fold has the same form.
        """
        return form_of(setting, labels) if self.learns_numbers else (None, "")

    def fitted(self, labels: Array, form: ScaleForm | None) -> Self:
        """Return the task with a scale that is fitted to training labels, shape (n,)."""
        if form is None:
            return self.with_scale(None)
        assert not isinstance(form, tuple), "of one column"
        return self.with_scale(TargetScale.fit(labels, form))

    def lines_of_fold(self, fold: int, labels: Array) -> list[str]:
        """Return remarks about the training labels of a fold, for people."""
        assert self.scale is None or isinstance(self.scale, TargetScale), "of one column"
        return lines_of_fold(fold, self.scale, labels)

    def with_scale(self, scale: Scale | None) -> Self:
        """Return the task with a scale that was fitted before; a task without one ignores it."""
        return self

    def loss(self) -> nn.Module:
        """Return the default loss."""
        from foldsmith.targets import losses

        loss: nn.Module = getattr(losses, self.default_loss)()
        return loss
