"""Heads on frozen features that give the classes of several targets per image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foldsmith.errors import ConfigError
from foldsmith.models.feature_heads import (
    FeatureHead,
    fit_head,
    gives_probabilities,
    with_classes,
)
from foldsmith.models.fitted_arrays import ArrayFields, Arrays, part, prefixed
from foldsmith.models.fitted_heads import Features, FittedHead, Targets

# Name of the array of a target that no image has.
_UNIFORM = "uniform"


@dataclass(frozen=True)
class ClassTargetsHead:
    """A head of classes for each of several targets, all on the same features.

    Attributes:
        sizes: Number of classes of each target: ``"@/project.block_sizes"``.
        head: One with ``class_values``, which are replaced by the class numbers of each target. It
            is fitted to each target by itself, on the images that have it.
    """

    sizes: Sequence[int]
    head: FeatureHead

    gives_class_targets = True

    def __post_init__(self) -> None:
        if not self.sizes:
            raise ConfigError(
                "ClassTargetsHead: sizes is empty: the target in project.yml is not several class "
                "targets; take its head alone"
            )
        if not gives_probabilities(self.head):
            raise ConfigError(
                f"ClassTargetsHead: head: {type(self.head).__name__} must give probabilities of "
                "classes; take LogisticHead, KernelHead, or TreesHead with class_values: [0, 1]"
            )

    def fit(
        self,
        features: Features,
        targets: Targets,
        groups: npt.NDArray[np.int64],
        seed: int,
        weights: Targets | None = None,
    ) -> "FittedClassTargets":
        """Fit one head per target; targets are class numbers, (n, n_targets), NaN where missing.

        All classes of a target that no image has are predicted alike.
        """
        fitted: list[FittedHead] = []
        for k, size in enumerate(self.sizes):
            rows = np.flatnonzero(~np.isnan(targets[:, k]))
            if not len(rows):
                fitted.append(FittedUniform(np.full(size, 1 / size)))
                continue
            of_rows = None
            if weights is not None:
                of_rows = (weights if weights.ndim == 1 else weights[:, k])[rows]
            head, values = self._of(size), targets[rows, k]
            fitted.append(fit_head(head, features[rows], values, groups[rows], seed, of_rows))
        return FittedClassTargets(fitted)

    def restore(self, arrays: Arrays) -> "FittedClassTargets":
        """Return the head of each target."""
        heads: list[FittedHead] = []
        for k, size in enumerate(self.sizes):
            own = part(arrays, str(k))
            uniform = _UNIFORM in own
            heads.append(FittedUniform(**own) if uniform else self._of(size).restore(own))
        return FittedClassTargets(heads)

    def _of(self, size: int) -> FeatureHead:
        return with_classes(self.head, tuple(map(float, range(size))))


@dataclass(frozen=True)
class FittedUniform(ArrayFields):
    """Equal probabilities of all classes.

    Attributes:
        uniform: Shape (n_classes,).
    """

    uniform: Targets

    def predict(self, features: Features) -> Targets:
        """Return the probabilities, shape (n, n_classes)."""
        return np.tile(self.uniform, (len(features), 1))


@dataclass(frozen=True)
class FittedClassTargets:
    """One fitted head per target.

    Attributes:
        heads: The heads.
    """

    heads: Sequence[FittedHead]

    gives_class_targets = True

    def predict(self, features: Features) -> Targets:
        """Return the probabilities of all targets, shape (n, n_outputs)."""
        return np.concatenate([head.predict(features) for head in self.heads], axis=1)

    def arrays(self) -> Arrays:
        """Return the heads' arrays, by the numbers of the targets."""
        found: Arrays = {}
        for number, head in enumerate(self.heads):
            found |= prefixed(str(number), head.arrays())
        return found


def gives_class_targets(head: FeatureHead | FittedHead) -> bool:
    """Return whether a head, fitted or not, gives the classes of several targets."""
    return bool(getattr(head, "gives_class_targets", False))
