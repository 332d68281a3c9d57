"""Regression on the target itself."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from foldsmith.targets.scale import Form, TargetScale


@dataclass(frozen=True)
class Regression:
    """Regression; the prediction is the output in units of the target, clipped to its range.

    Attributes:
        target_range: Lowest and highest possible target.
        scale: What the outputs are in units of, fitted to the training targets of a fold; None for
            the target itself.
    """

    target_range: tuple[float, float]
    scale: TargetScale | None = None
    name: Literal["regression"] = "regression"

    # The form of the target that is learned can be chosen.
    scales = True

    @property
    def n_outputs(self) -> int:
        """Number of outputs per photo."""
        return 1

    def fitted(self, labels: npt.NDArray[np.float64], form: Form | None) -> "Regression":
        """Return the task with the scale of these training labels, shape (n,)."""
        return self.with_scale(None if form is None else TargetScale.fit(labels, form))

    def with_scale(self, scale: TargetScale | None) -> "Regression":
        """Return the task with a scale that was fitted before."""
        return replace(self, scale=scale)

    def codes(self, labels: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Return what the outputs are to be, shape (n,)."""
        learned = labels if self.scale is None else self.scale.forward(labels)
        return learned.astype(np.float32)

    def encode(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the codes as a column, float32, shape (n, 1)."""
        return codes[:, None].float()

    def targets(self, labels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the targets as they are."""
        return labels

    def check(self, targets: npt.NDArray[np.float64]) -> None:
        """Accept every target: reading the table has checked the range."""

    def predict(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the clipped outputs in units of the target: shape (..., 1) becomes (...)."""
        outputs = logits[..., 0].astype(np.float64)
        values = outputs if self.scale is None else self.scale.inverse(outputs)
        return values.clip(*self.target_range)

    def constant_logits(self, targets: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Return the mean target as an output, shape (1,)."""
        mean = np.array([targets.mean()])
        learned = mean if self.scale is None else self.scale.forward(mean, clip=False)
        return learned.astype(np.float32)
