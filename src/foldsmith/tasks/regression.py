"""Regression on the target itself."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch


@dataclass(frozen=True)
class Regression:
    """Regression; the prediction is the output clipped to the target range.

    Attributes:
        target_range: Lowest and highest possible target.
    """

    target_range: tuple[float, float]
    name: Literal["regression"] = "regression"

    @property
    def n_outputs(self) -> int:
        """Number of outputs per photo."""
        return 1

    def codes(self, labels: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Return what the outputs are to be, shape (n,)."""
        return labels.astype(np.float32)

    def encode(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the codes as a column, float32, shape (n, 1)."""
        return codes[:, None].float()

    def targets(self, labels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the targets as they are."""
        return labels

    def check(self, targets: npt.NDArray[np.float64]) -> None:
        """Accept every target: reading the table has checked the range."""

    def predict(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the clipped outputs: shape (..., 1) becomes (...)."""
        return np.clip(logits[..., 0].astype(np.float64), *self.target_range)

    def constant_logits(self, targets: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Return the mean target as an output, shape (1,)."""
        return np.array([targets.mean()], np.float32)
