"""Normalise images from 0..255 to the input of a network."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from foldsmith.data.transforms.base import Drawn, Image, Transform


@dataclass(frozen=True)
class Normalize(Transform):
    """Scale to 0..1, subtract the channel means and divide by the standard deviations.

    Attributes:
        mean: Per channel, 0..1.
        std: Per channel, above 0.
        max_value: Pixel value that becomes 1.
    """

    mean: Sequence[float]
    std: Sequence[float]
    max_value: float = 255.0

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or min(self.std, default=0) <= 0:
            raise ValueError(
                f"mean {list(self.mean)} and std {list(self.std)}: one each per channel, "
                "std above 0"
            )
        std = np.asarray(self.std, dtype=np.float64)
        object.__setattr__(self, "_scale", (1 / (std * self.max_value)).astype(np.float32))
        shift = -np.asarray(self.mean, dtype=np.float64) / std
        object.__setattr__(self, "_shift", shift.astype(np.float32))

    def constants(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the factor and the offset for a batch of shape (n, 3, H, W)."""
        scale, shift = (
            torch.from_numpy(values).view(1, -1, 1, 1).to(device)
            for values in (self._scale, self._shift)  # type: ignore[attr-defined]
        )
        return scale, shift

    def apply(self, image: Image, drawn: Drawn) -> Image:
        """Return float32, shape (H, W, 3)."""
        result: Image = image * self._scale  # type: ignore[attr-defined]
        result += self._shift  # type: ignore[attr-defined]
        return result
