"""Plain models for simple baselines, which are fitted, asked once, and not kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from foldsmith.models.class_target_heads import ClassTargetsHead
from foldsmith.models.feature_heads import FeatureHead
from foldsmith.models.fitted_heads import Features, Targets, standardiser
from foldsmith.models.kernel_labels import KernelLabelsHead
from foldsmith.models.label_heads import ABSENT_AND_PRESENT, LabelsHead
from foldsmith.models.logistic_head import LogisticHead
from foldsmith.models.ridge_head import RidgeHead
from foldsmith.models.svr_head import SVRHead
from foldsmith.models.trees_head import TreesHead
from foldsmith.targets.class_values import nearest

# Each model has one fixed strength: a baseline costs seconds, as a first attempt does.
_RIDGE_OF_CLASSES, _PENALTY = 0.01, 1.0
_TREES: dict[str, Any] = {"n_trees": 100, "max_features": 0.05}
# With more classes only the trees are fitted: the others take minutes.
_FEW_CLASSES = 50


class FittedModel(Protocol):
    """A model that has learned."""

    def predict(self, features: Features) -> Targets:
        """Return numbers, shape (n,), or probabilities of classes, shape (n, n_classes)."""


class Model(Protocol):
    """Something that learns a target from features; heads on frozen features are models too."""

    def fit(
        self, features: Features, targets: Targets, groups: npt.NDArray[np.int64], seed: int
    ) -> FittedModel:
        """Learn from features, shape (n, n_features), and targets, shape (n,)."""


def models_of_numbers() -> dict[str, FeatureHead]:
    """Return regressions by name."""
    return {"ridge": RidgeHead(), "SVM": SVRHead(C=(_PENALTY,)), "trees": TreesHead(**_TREES)}


def models_of_classes(class_values: Sequence[float]) -> dict[str, Model]:
    """Return classifiers by name.

    Args:
        class_values: Target value of each class, in the order of the probabilities.
    """
    trees = TreesHead(**_TREES, class_values=class_values)
    if len(class_values) > _FEW_CLASSES:
        return {"trees": trees}
    return {
        "logistic": LogisticHead(class_values, C=(_RIDGE_OF_CLASSES,)),
        "SVM": SupportVectorClasses(class_values),
        "trees": trees,
    }


def models_of_labels() -> dict[str, Model]:
    """Return models of several labels per image by name."""
    logistic = LogisticHead(ABSENT_AND_PRESENT, C=(_RIDGE_OF_CLASSES,))
    kernel = KernelLabelsHead(alpha=(0.1,), gamma=(1.0,))
    return {"logistic": LabelsHead(logistic), "kernel": kernel}


def models_of_class_targets(sizes: Sequence[int]) -> dict[str, Model]:
    """Return classifiers of several class targets per image by name.

    Args:
        sizes: Number of classes of each target.
    """
    models = models_of_classes(tuple(map(float, range(max(sizes)))))
    return {
        # A baseline is not kept, so that its models need no restore.
        name: ClassTargetsHead(sizes, cast(FeatureHead, model))
        for name, model in models.items()
    }


@dataclass(frozen=True)
class SupportVectorClasses:
    """Support vector machine with an RBF kernel on standardised features.

    Attributes:
        class_values: Target value of each class.
    """

    class_values: Sequence[float]

    def fit(
        self, features: Features, targets: Targets, groups: npt.NDArray[np.int64], seed: int
    ) -> "_FittedMachine":
        """Fit it; nothing is drawn."""
        from sklearn.svm import SVC

        scaler, classes = standardiser().fit(features), nearest(targets, self.class_values)
        seen = np.unique(classes)
        machine = None
        if len(seen) > 1:
            machine = SVC(C=_PENALTY).fit(scaler.transform(features), classes)
        return _FittedMachine(scaler, machine, seen, len(self.class_values))


@dataclass(frozen=True)
class _FittedMachine:
    scaler: Any
    machine: Any
    seen: npt.NDArray[np.int64]
    n_classes: int

    def predict(self, features: Features) -> Targets:
        """Return the softmax of the decision values; they are not calibrated."""
        from scipy.special import softmax

        found = np.zeros((len(features), self.n_classes))
        if self.machine is None:
            found[:, self.seen] = 1.0
            return found
        decided = self.machine.decision_function(self.scaler.transform(features))
        if decided.ndim == 1:
            decided = np.stack([-decided, decided], axis=1)
        found[:, self.seen] = softmax(decided, axis=1)
        return found
