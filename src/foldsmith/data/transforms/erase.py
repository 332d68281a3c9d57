"""Erasing random parts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from foldsmith.data.transforms.base import (
    Drawn,
    Image,
    RandomTransform,
    check_range,
    check_size,
)
from foldsmith.data.transforms.pixels import Pixels


@dataclass(frozen=True)
class RandomErase(RandomTransform):
    """Erase one rectangle (Zhong et al., "Random Erasing Data Augmentation", 2020).

    Attributes:
        p: Probability.
        scale: Range of its share of the area, 0..1.
        ratio: Range of its height over width, uniform in the logarithm.
        fill: Value inside, 0..255.
    """

    scale: Sequence[float] = (0.02, 0.33)
    ratio: Sequence[float] = (0.3, 3.3)
    fill: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("scale", self.scale, 0, 1)
        check_range("ratio", self.ratio, 1e-6)

    def parameters(self, height: int, width: int, rng: np.random.Generator) -> Drawn:
        """Draw top, left, height and width; None if ten rectangles do not fit."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = height * width * rng.uniform(self.scale[0], self.scale[1])
            ratio = math.exp(rng.uniform(low, high))
            rows, columns = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if rows < height and columns < width:
                top = int(rng.integers(height - rows + 1))
                left = int(rng.integers(width - columns + 1))
                return top, left, rows, columns
        return None

    def change(self, image: Image, drawn: Drawn) -> Image:
        """Return the image with a rectangle erased."""
        return _erased(image, [drawn], self.fill)

    def change_batch(self, pixels: Pixels, drawn: Sequence[Drawn]) -> Pixels:
        """Return the images with a rectangle erased in each."""
        return _erased_batch(pixels, [[one] for one in drawn], self.fill)


@dataclass(frozen=True)
class CoarseDropout(RandomTransform):
    """Erase several rectangles (DeVries and Taylor, "Cutout", 2017).

    Attributes:
        p: Probability.
        max_holes: Most rectangles.
        max_height: Largest height in px; a float is a share of the image.
        max_width: Largest width, likewise.
        min_holes: Fewest rectangles.
        min_height: Smallest height; the largest if null.
        min_width: Smallest width; the largest if null.
        fill: Value inside, 0..255.
    """

    max_holes: int = 8
    max_height: float = 8
    max_width: float = 8
    min_holes: int = 1
    min_height: float | None = None
    min_width: float | None = None
    fill: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size("min_holes", self.min_holes)
        check_range("min_holes, max_holes", (self.min_holes, self.max_holes), 1)
        for name in ("height", "width"):
            high = getattr(self, f"max_{name}")
            low = getattr(self, f"min_{name}")
            check_range(f"min_{name}, max_{name}", (high if low is None else low, high), 0)

    def parameters(self, height: int, width: int, rng: np.random.Generator) -> Drawn:
        """Draw top, left, height and width of each rectangle."""
        holes = []
        for _ in range(rng.integers(self.min_holes, self.max_holes + 1)):
            rows = _side(self.min_height, self.max_height, height, rng)
            columns = _side(self.min_width, self.max_width, width, rng)
            top = int(rng.integers(height - rows + 1))
            left = int(rng.integers(width - columns + 1))
            holes.append((top, left, rows, columns))
        return holes

    def change(self, image: Image, drawn: Drawn) -> Image:
        """Return the image with rectangles erased."""
        return _erased(image, drawn, self.fill)

    def change_batch(self, pixels: Pixels, drawn: Sequence[Drawn]) -> Pixels:
        """Return the images with rectangles erased."""
        return _erased_batch(pixels, drawn, self.fill)


def _erased(image: Image, holes: Sequence[tuple[int, int, int, int]], fill: int) -> Image:
    result = image.copy()
    for top, left, height, width in holes:
        result[top : top + height, left : left + width] = fill
    return result


def _erased_batch(
    pixels: Pixels, holes: Sequence[Sequence[tuple[int, int, int, int]]], fill: int
) -> Pixels:
    most = max(len(of_image) for of_image in holes)
    # Images with fewer holes get some of no size.
    padded = [[*of_image, *[(0, 0, 0, 0)] * (most - len(of_image))] for of_image in holes]
    rows = torch.arange(pixels.values.shape[1], device=pixels.device).view(1, -1, 1)
    columns = torch.arange(pixels.values.shape[2], device=pixels.device).view(1, 1, -1)
    values = pixels.values
    for k in range(most):
        top, left, height, width = (
            pixels.numbers(side, np.int64)
            for side in np.array([of_image[k] for of_image in padded]).T
        )
        inside = (rows >= top) & (rows < top + height)
        inside = inside & (columns >= left) & (columns < left + width)
        values = values.masked_fill(inside[..., None], fill)
    return Pixels(values, pixels.heights, pixels.widths)


def _side(low: float | None, high: float, length: int, rng: np.random.Generator) -> int:
    """Draw a side in px from limits that are px (int) or shares of ``length`` (float)."""
    ends = [
        round(end * length) if isinstance(end, float) else end
        for end in (high if low is None else low, high)
    ]
    return int(rng.integers(min(ends[0], length), min(ends[1], length) + 1))
