"""Erasing random parts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foldsmith.data.transforms.base import Image, RandomTransform, check_range, check_size


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

    def apply(self, image: Image, rng: np.random.Generator) -> Image:
        """Return the image with a rectangle erased; unchanged if ten draws do not fit."""
        rows, columns = image.shape[:2]
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = rows * columns * rng.uniform(self.scale[0], self.scale[1])
            ratio = math.exp(rng.uniform(low, high))
            height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if height < rows and width < columns:
                top = int(rng.integers(rows - height + 1))
                left = int(rng.integers(columns - width + 1))
                result = image.copy()
                result[top : top + height, left : left + width] = self.fill
                return result
        return image


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

    def apply(self, image: Image, rng: np.random.Generator) -> Image:
        """Return the image with rectangles erased."""
        result = image.copy()
        rows, columns = image.shape[:2]
        for _ in range(rng.integers(self.min_holes, self.max_holes + 1)):
            height = _side(self.min_height, self.max_height, rows, rng)
            width = _side(self.min_width, self.max_width, columns, rng)
            top = int(rng.integers(rows - height + 1))
            left = int(rng.integers(columns - width + 1))
            result[top : top + height, left : left + width] = self.fill
        return result


def _side(low: float | None, high: float, length: int, rng: np.random.Generator) -> int:
    """Draw a side in px from limits that are px (int) or shares of ``length`` (float)."""
    ends = [
        round(end * length) if isinstance(end, float) else end
        for end in (high if low is None else low, high)
    ]
    return int(rng.integers(min(ends[0], length), min(ends[1], length) + 1))
