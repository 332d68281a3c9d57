"""Mixing the images of a batch, and with them their targets: mixup, CutMix, or either."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch

from foldsmith.data.transforms.pixels import to_device
from foldsmith.errors import ConfigError


class Mixed(NamedTuple):
    """A mixed batch.

    Attributes:
        images: Shape (n, 3, H, W).
        partner: Index of the image that each one is mixed with, int64, shape (n,).
        share: Share of the image itself, in 0..1; the partner has the rest.
    """

    images: torch.Tensor
    partner: torch.Tensor
    share: float


class Mixer(Protocol):
    """Something that mixes batches in some of the epochs."""

    def active(self, epoch: int, max_epoch: int) -> bool:
        """Return whether this epoch (counted from 0) mixes."""

    def mix(self, images: torch.Tensor, rng: np.random.Generator) -> Mixed:
        """Mix a batch.

        Args:
            images: Shape (n, 3, H, W); left as it is.
            rng: Generator of the batch.
        """


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
        _check_positive("alpha", self.alpha)

    def active(self, epoch: int, max_epoch: int) -> bool:
        """Return whether this epoch (counted from 0) mixes."""
        return _within(self.start_epoch, self.end_epoch, epoch, max_epoch)

    def draw(self, n: int, rng: np.random.Generator) -> tuple[float, torch.Tensor]:
        """Draw the mixing share and each image's partner.

        Args:
            n: Size of the batch.
            rng: Generator.

        Returns:
            The share of the image itself, in 0..1, and the partners' indices, shape (n,).
        """
        return _draw(self.alpha, n, rng)

    def mix(self, images: torch.Tensor, rng: np.random.Generator) -> Mixed:
        """Return weighted means of the images and their partners."""
        share, partner = self.draw(len(images), rng)
        partner = to_device(partner.numpy(), images.device)
        return Mixed(images.lerp(images[partner], 1 - share), partner, share)


@dataclass(frozen=True)
class CutMix:
    """CutMix (Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers", 2019).

    A box of each image is replaced by the same box of its partner; the box of a batch has a
    drawn area and place, and what lies outside the image is cut off. The share of the targets
    is that of the pixels.

    Attributes:
        alpha: Parameter of the Beta distribution of the kept area, above 0.
        start_epoch: As for :class:`Mixup`.
        end_epoch: As for :class:`Mixup`.
    """

    alpha: float = 1.0
    start_epoch: int = 0
    end_epoch: int | None = None

    def __post_init__(self) -> None:
        _check_positive("alpha", self.alpha)

    def active(self, epoch: int, max_epoch: int) -> bool:
        """Return whether this epoch (counted from 0) mixes."""
        return _within(self.start_epoch, self.end_epoch, epoch, max_epoch)

    def mix(self, images: torch.Tensor, rng: np.random.Generator) -> Mixed:
        """Return copies of the images with a box of their partners."""
        share, partner = _draw(self.alpha, len(images), rng)
        partner = to_device(partner.numpy(), images.device)
        height, width = images.shape[-2:]
        box = []
        for side in (height, width):
            half = side * float(np.sqrt(1 - share)) / 2
            middle = rng.uniform(0, side)
            box.append((max(0, round(middle - half)), min(side, round(middle + half))))
        (top, bottom), (left, right) = box
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = images[..., top:bottom, left:right][partner]
        return Mixed(mixed, partner, 1 - (bottom - top) * (right - left) / (height * width))


@dataclass(frozen=True)
class MixupOrCutMix:
    """Mixup or CutMix, drawn for each batch.

    Attributes:
        alpha: Parameter of mixup's Beta distribution, above 0.
        cutmix_alpha: Parameter of CutMix's, above 0.
        cutmix_share: Share of the batches that CutMix mixes, in 0..1.
        start_epoch: As for :class:`Mixup`.
        end_epoch: As for :class:`Mixup`.
    """

    alpha: float = 1.0
    cutmix_alpha: float = 1.0
    cutmix_share: float = 0.5
    start_epoch: int = 0
    end_epoch: int | None = None

    def __post_init__(self) -> None:
        _check_positive("alpha", self.alpha)
        _check_positive("cutmix_alpha", self.cutmix_alpha)
        if not 0 <= self.cutmix_share <= 1:
            raise ConfigError(f"cutmix_share: {self.cutmix_share} must be in 0 to 1")

    def active(self, epoch: int, max_epoch: int) -> bool:
        """Return whether this epoch (counted from 0) mixes."""
        return _within(self.start_epoch, self.end_epoch, epoch, max_epoch)

    def mix(self, images: torch.Tensor, rng: np.random.Generator) -> Mixed:
        """Return what the one or the other makes of the images."""
        chosen: Mixer = Mixup(self.alpha)
        if rng.random() < self.cutmix_share:
            chosen = CutMix(self.cutmix_alpha)
        return chosen.mix(images, rng)


def _draw(alpha: float, n: int, rng: np.random.Generator) -> tuple[float, torch.Tensor]:
    share = float(rng.beta(alpha, alpha))
    return share, torch.from_numpy(rng.permutation(n))


def _within(start: int, end: int | None, epoch: int, max_epoch: int) -> bool:
    end = max_epoch if end is None else end
    return start <= epoch < (end + max_epoch if end < 0 else end)


def _check_positive(name: str, value: float) -> None:
    if value <= 0:
        raise ConfigError(f"{name}: {value} must be above 0")
