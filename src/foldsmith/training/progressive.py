"""Images that grow during a training."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch.nn import functional

from foldsmith.errors import ConfigError


class ProgressiveResize:
    """Smaller views in the first epochs (Howard 2018; Tan and Le, "EfficientNetV2", 2021).

    Most of a training costs in proportion to the pixels, and its first part learns what small
    views show as well. A function of the epoch alone.

    Args:
        sizes: Height of the first view in each part of the training, ascending or not; the
            other views, and the width, shrink by the same factor. None may be larger than the
            dataset's views. Vision transformers want multiples of their patch, of the local
            crops too.
        fractions: Fraction of the epochs of each part, summing to 1.

    Raises:
        ConfigError: The two do not fit together.
    """

    def __init__(self, sizes: Sequence[int], fractions: Sequence[float]) -> None:
        if len(sizes) != len(fractions) or not sizes:
            raise ConfigError("sizes and fractions must be as many, at least one")
        if min(sizes) < 1 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
            raise ConfigError("sizes must be at least 1, and fractions must sum to 1")
        self.sizes = tuple(sizes)
        self.ends = tuple(accumulate(fractions))

    def size(self, epoch: int, max_epoch: int) -> int:
        """Return the height of the first view in an epoch (counted from 0)."""
        for size, end in zip(self.sizes, self.ends, strict=True):
            if epoch < round(end * max_epoch):
                return size
        return self.sizes[-1]

    def __call__(
        self, views: tuple[torch.Tensor, ...], epoch: int, max_epoch: int
    ) -> tuple[torch.Tensor, ...]:
        """Return the views at the epoch's size.

        Args:
            views: Floating, shape (n, 3, H, W) each, on any device.
            epoch: Counted from 0.
            max_epoch: Number of epochs of the training.

        Raises:
            ConfigError: The dataset's views are smaller than the epoch's size.
        """
        size, full = self.size(epoch, max_epoch), views[0].shape[-2]
        if size == full:
            return views
        if size > full:
            raise ConfigError(
                f"progressive: the size {size} is larger than the dataset's views ({full}); set "
                f"dataset/img_size={size}, or lower progressive/sizes"
            )
        return tuple(
            functional.interpolate(
                view,
                size=[round(side * size / full) for side in view.shape[-2:]],
                mode="bilinear",
                antialias=True,
            )
            for view in views
        )
