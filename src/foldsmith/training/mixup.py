"""Mixup of images and their targets."""

from dataclasses import dataclass

import numpy as np
import torch

from foldsmith.config import Types
from foldsmith.errors import ConfigError


@dataclass(frozen=True)
class Mixup:
    """Mixup (Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018).

    Attributes:
        alpha: Parameter of the Beta distribution of the mixing share, above 0.
        start_epoch: First epoch (counted from 0) that mixes.
        end_epoch: First epoch that no longer mixes; null for none, negative counted from
            the end: -5 leaves the last five epochs unmixed.
    """

    alpha: float = 1.0
    start_epoch: int = 0
    end_epoch: int | None = None

    def __post_init__(self) -> None:
        if self.alpha <= 0:
            raise ConfigError(f"alpha: {self.alpha} must be above 0")

    def active(self, epoch: int, max_epoch: int) -> bool:
        """Return whether this epoch (counted from 0) mixes."""
        end = max_epoch if self.end_epoch is None else self.end_epoch
        if end < 0:
            end += max_epoch
        return self.start_epoch <= epoch < end

    def draw(self, n: int, rng: np.random.Generator) -> tuple[float, torch.Tensor]:
        """Draw the mixing share and each image's partner.

        Args:
            n: Size of the batch.
            rng: Generator.

        Returns:
            The share of the image itself, in 0..1, and the partners' indices, shape (n,).
        """
        share = float(rng.beta(self.alpha, self.alpha))
        return share, torch.from_numpy(rng.permutation(n))


TYPES: Types = {"Mixup": Mixup}
