"""Mixup and CutMix: mixing the images of a batch, and their targets with them."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch

from foldsmith.data.transforms.pixels import to_device
from foldsmith.errors import ConfigError


class MixedBatch(NamedTuple):
    """A mixed batch.

    Attributes:
        images: Shape (n, 3, H, W).
        partner: Index of the image that each one is mixed with, int64, shape (n,).
        lam: Weight of the image itself, in 0..1 (lambda in the papers); the partner has the rest.
    """

    images: torch.Tensor
    partner: torch.Tensor
    lam: float


class BatchMixing(Protocol):
    """Mixup, CutMix or another way to mix batches, in some of the epochs."""

    def active(self, epoch: int, max_epoch: int) -> bool:
        """Return whether this epoch (counted from 0) mixes."""

    def mix(self, images: torch.Tensor, rng: np.random.Generator) -> MixedBatch:
        """Mix a batch.

        Args:
            images: Shape (n, 3, H, W); left as it is.
            rng: Generator of the batch.
        """


@dataclass(frozen=True)
class Mixup:
    """Mixup (Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018).

    Attributes:
        alpha: Parameter of the Beta distribution of lambda, above 0.
        start_epoch: First epoch (counted from 0) that mixes.
        end_epoch: First epoch that no longer mixes; null for none, negative counted from
            the end: -5 leaves the last five epochs unmixed.
        p: Probability that a batch is mixed, in 0..1.
    """

    alpha: float = 1.0
    start_epoch: int = 0
    end_epoch: int | None = None
    p: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("alpha", self.alpha)
        _check_probability("p", self.p)

    def active(self, epoch: int, max_epoch: int) -> bool:
        """Return whether this epoch (counted from 0) mixes."""
        return _within(self.start_epoch, self.end_epoch, epoch, max_epoch)

    def draw(self, n: int, rng: np.random.Generator) -> tuple[float, torch.Tensor]:
        """Draw lambda and each image's partner.

        Args:
            n: Size of the batch.
            rng: Generator.

        Returns:
            The weight of the image itself, in 0..1, and the partners' indices, shape (n,).
        """
        return _draw(self.alpha, n, rng)

    def mix(self, images: torch.Tensor, rng: np.random.Generator) -> MixedBatch:
        """Return weighted means of the images and their partners."""
        if _spared(self.p, rng):
            return _unmixed(images)
        lam, partner = self.draw(len(images), rng)
        partner = to_device(partner.numpy(), images.device)
        return MixedBatch(images.lerp(images[partner], 1 - lam), partner, lam)


@dataclass(frozen=True)
class CutMix:
    """CutMix (Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers", 2019).

    A box of each image is replaced by the same box of its partner; the box of a batch has a
    drawn area and place, and is cut off at the edges of the image. Lambda is the
    fraction of the pixels that stay.

    Attributes:
        alpha: Parameter of the Beta distribution of the kept area, above 0.
        start_epoch: As for :class:`Mixup`.
        end_epoch: As for :class:`Mixup`.
        p: As for :class:`Mixup`.
    """

    alpha: float = 1.0
    start_epoch: int = 0
    end_epoch: int | None = None
    p: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("alpha", self.alpha)
        _check_probability("p", self.p)

    def active(self, epoch: int, max_epoch: int) -> bool:
        """Return whether this epoch (counted from 0) mixes."""
        return _within(self.start_epoch, self.end_epoch, epoch, max_epoch)

    def mix(self, images: torch.Tensor, rng: np.random.Generator) -> MixedBatch:
        """Return copies of the images with a box of their partners."""
        if _spared(self.p, rng):
            return _unmixed(images)
        lam, partner = _draw(self.alpha, len(images), rng)
        partner = to_device(partner.numpy(), images.device)
        height, width = images.shape[-2:]
        box = []
        for side in (height, width):
            half = side * float(np.sqrt(1 - lam)) / 2
            middle = rng.uniform(0, side)
            box.append((max(0, round(middle - half)), min(side, round(middle + half))))
        (top, bottom), (left, right) = box
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = images[..., top:bottom, left:right][partner]
        return MixedBatch(mixed, partner, 1 - (bottom - top) * (right - left) / (height * width))


@dataclass(frozen=True)
class MixupOrCutMix:
    """Mixup or CutMix, drawn for each batch.

    Attributes:
        mixup_alpha: Parameter of mixup's Beta distribution, above 0.
        cutmix_alpha: Parameter of CutMix's, above 0.
        switch_prob: Probability that CutMix mixes a batch, in 0..1.
        start_epoch: As for :class:`Mixup`.
        end_epoch: As for :class:`Mixup`.
        p: As for :class:`Mixup`.
    """

    mixup_alpha: float = 1.0
    cutmix_alpha: float = 1.0
    switch_prob: float = 0.5
    start_epoch: int = 0
    end_epoch: int | None = None
    p: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("mixup_alpha", self.mixup_alpha)
        _check_positive("cutmix_alpha", self.cutmix_alpha)
        _check_probability("switch_prob", self.switch_prob)
        _check_probability("p", self.p)

    def active(self, epoch: int, max_epoch: int) -> bool:
        """Return whether this epoch (counted from 0) mixes."""
        return _within(self.start_epoch, self.end_epoch, epoch, max_epoch)

    def mix(self, images: torch.Tensor, rng: np.random.Generator) -> MixedBatch:
        """Return the images mixed by one of the two."""
        if _spared(self.p, rng):
            return _unmixed(images)
        chosen: BatchMixing = Mixup(self.mixup_alpha)
        if rng.random() < self.switch_prob:
            chosen = CutMix(self.cutmix_alpha)
        return chosen.mix(images, rng)


def _spared(p: float, rng: np.random.Generator) -> bool:
    """Draw whether a batch stays as it is."""
    return p < 1 and bool(rng.random() >= p)


def _unmixed(images: torch.Tensor) -> MixedBatch:
    """Return a batch of which each image is its own partner."""
    return MixedBatch(images, torch.arange(len(images), device=images.device), 1.0)


def _draw(alpha: float, n: int, rng: np.random.Generator) -> tuple[float, torch.Tensor]:
    lam = float(rng.beta(alpha, alpha))
    return lam, torch.from_numpy(rng.permutation(n))


def _within(start: int, end: int | None, epoch: int, max_epoch: int) -> bool:
    end = max_epoch if end is None else end
    return start <= epoch < (end + max_epoch if end < 0 else end)


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name}: {value} must be in 0 to 1")


def _check_positive(name: str, value: float) -> None:
    if value <= 0:
        raise ConfigError(f"{name}: {value} must be above 0")
