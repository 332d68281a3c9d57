"""The head of an experiment on frozen features, and its fitted head of each fold."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from foldsmith.config import Experiment
from foldsmith.errors import ConfigError
from foldsmith.models.class_target_heads import gives_class_targets
from foldsmith.models.feature_heads import FeatureHead, gives_probabilities
from foldsmith.models.fitted_arrays import Arrays, part, prefixed
from foldsmith.models.fitted_heads import FittedHead, gives_labels
from foldsmith.models.number_heads import gives_numbers
from foldsmith.project.class_forms import ClassTargets
from foldsmith.project.column_forms import OneNumber
from foldsmith.project.label_forms import SeveralLabels
from foldsmith.project.number_forms import SeveralNumbers
from foldsmith.targets.classification import MultiClass
from foldsmith.targets.column_scales import Scale, restore_scale
from foldsmith.targets.multi_classification import MultiClassification
from foldsmith.targets.multi_label import MultiLabel, logits_of
from foldsmith.targets.multi_regression import MultiRegression
from foldsmith.targets.regression import Regression
from foldsmith.targets.scale_buffer import TARGET_SCALE
from foldsmith.targets.task import Task

# No probability is less: its logarithm must be a number.
_LEAST = 1e-12

Array = npt.NDArray[np.float32]


def head_file(fold: int) -> str:
    """Return the name of the file that holds a fold's fitted head."""
    return f"head_fold{fold}.safetensors"


def head_of(
    experiment: Experiment, types: Mapping[str, Callable[..., Any]]
) -> tuple[FeatureHead, Task]:
    """Return the head of an experiment, and the task of its outputs: numbers or classes.

    Raises:
        ConfigError: The head gives numbers, and the project's classes have no order; or it gives
            probabilities of other classes than the project's.
    """
    project = experiment.project
    head: FeatureHead = experiment.build(types)["head"]
    kinds = {
        SeveralLabels.kind: gives_labels(head),
        SeveralNumbers.kind: gives_numbers(head),
        ClassTargets.kind: gives_class_targets(head),
    }
    if project.form.kind != next((kind for kind, given in kinds.items() if given), OneNumber.kind):
        raise ConfigError(
            f"{experiment.file}: head: {type(head).__name__} does not give {project.form.kind}, "
            "the form of the target in project.yml; for several labels take KernelLabelsHead, "
            "TreesLabelsHead, or LabelsHead with another head; for several numbers take "
            "NumbersHead with a head of one number; for several class targets take "
            "ClassTargetsHead with a head of classes; for one column take another head"
        )
    if gives_class_targets(head):
        if tuple(head.sizes) != project.form.block_sizes:  # type: ignore[attr-defined]
            raise ConfigError(
                f"{experiment.file}: head: sizes must be those of the project, "
                '"@/project.block_sizes"'
            )
        return head, MultiClassification.of_project(project)
    if gives_numbers(head):
        return head, MultiRegression.of_project(project)
    if gives_labels(head):
        return head, MultiLabel(project.form.labels)
    if gives_probabilities(head):
        if list(head.class_values) != project.class_values:  # type: ignore[attr-defined]
            raise ConfigError(
                f"{experiment.file}: head: class_values must be those of the project, "
                '"@/project.class_values"'
            )
        return head, MultiClass(tuple(project.class_values), project.class_names)
    if project.class_names:
        raise ConfigError(
            f"{experiment.file}: head: {type(head).__name__} gives numbers, but the class_names of "
            "project.yml have no order; take LogisticHead, or TreesHead with class_values: "
            '"@/project.class_values"'
        )
    return head, Regression(project.target_range)


@dataclass(frozen=True)
class HeadOfFold:
    """The fitted head of a fold, and its scale of the target.

    Attributes:
        fitted: The head.
        scale: Scale of its numbers; None for the target itself, or for classes.
    """

    fitted: FittedHead
    scale: Scale | None

    def logits(self, features: Array) -> Array:
        """Return the head's predictions from features as outputs of its task, float32.

        Numbers are on the scale, shape (n, 1), several of them (n, n_targets); probabilities of
        classes become their logarithms, shape (n, n_classes), those of labels their log odds,
        shape (n, n_labels).
        """
        predicted = self.fitted.predict(features)
        if gives_labels(self.fitted):
            return logits_of(predicted)
        if gives_numbers(self.fitted):
            return predicted.astype(np.float32)
        if predicted.ndim == 1:
            return predicted.astype(np.float32)[:, None]
        return np.log(np.maximum(predicted, _LEAST)).astype(np.float32)

    def arrays(self) -> Arrays:
        """Return all that :meth:`restore` needs."""
        scale = {} if self.scale is None else {TARGET_SCALE: self.scale.array()}
        return prefixed("head", self.fitted.arrays()) | scale

    @classmethod
    def restore(cls, head: FeatureHead, arrays: Arrays) -> "HeadOfFold":
        """Return the head of a fold that gave these arrays.

        Args:
            head: The kind of head that was fitted.
            arrays: Result of :meth:`arrays`.
        """
        kept = arrays.get(TARGET_SCALE)
        scale = None if kept is None else restore_scale(kept)
        return cls(head.restore(part(arrays, "head")), scale)
