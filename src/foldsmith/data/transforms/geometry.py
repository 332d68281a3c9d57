"""Random crops, flips, shifts and shuffles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from foldsmith.data.transforms.base import (
    INTERPOLATIONS,
    Image,
    RandomTransform,
    check_range,
    check_size,
    choice,
)

BORDERS = {
    "constant": cv2.BORDER_CONSTANT,
    "reflect": cv2.BORDER_REFLECT,
    "reflect_101": cv2.BORDER_REFLECT_101,
    "replicate": cv2.BORDER_REPLICATE,
    "wrap": cv2.BORDER_WRAP,
}


@dataclass(frozen=True)
class RandomResizedCrop(RandomTransform):
    """Cut out a random part and resize it (Szegedy et al., "Going deeper with convolutions").

    Attributes:
        p: Probability; without the crop the whole image is resized.
        height: px afterwards.
        width: px afterwards.
        scale: Range of the part's share of the area, 0..1.
        ratio: Range of its width over height, drawn uniformly in the logarithm.
        interpolation: ``nearest``, ``linear``, ``area`` or ``cubic``.
    """

    height: int
    width: int
    p: float = field(default=1.0, kw_only=True)
    scale: Sequence[float] = (0.08, 1.0)
    ratio: Sequence[float] = (3 / 4, 4 / 3)
    interpolation: str = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size("height", self.height)
        check_size("width", self.width)
        check_range("scale", self.scale, 0, 1)
        check_range("ratio", self.ratio, 1e-6)
        choice("interpolation", self.interpolation, INTERPOLATIONS)

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Return the part, or with probability 1 - p the whole image, resized."""
        part = self.apply(image, rng) if rng.random() < self.p else image
        if part.shape[:2] == (self.height, self.width):
            return part
        code = INTERPOLATIONS[self.interpolation]
        return cv2.resize(part, (self.width, self.height), interpolation=code)

    def apply(self, image: Image, rng: np.random.Generator) -> Image:
        """Return the part, not yet resized."""
        top, left, height, width = self.draw(image.shape[0], image.shape[1], rng)
        return image[top : top + height, left : left + width]

    def draw(self, rows: int, columns: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Draw top, left, height and width of the part in an image of rows x columns px."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = rows * columns * rng.uniform(self.scale[0], self.scale[1])
            ratio = math.exp(rng.uniform(low, high))
            width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < width <= columns and 0 < height <= rows:
                top = int(rng.integers(rows - height + 1))
                left = int(rng.integers(columns - width + 1))
                return top, left, height, width
        # An image too long or too tall for any drawn part: its centre, in the nearest ratio.
        ratio = min(max(columns / rows, self.ratio[0]), self.ratio[1])
        width = min(columns, max(1, round(rows * ratio)))
        height = min(rows, max(1, round(columns / ratio)))
        return (rows - height) // 2, (columns - width) // 2, height, width


@dataclass(frozen=True)
class RandomCrop(RandomTransform):
    """Cut out a part of fixed size at a random place; an image too small stays as it is.

    Attributes:
        p: Probability.
        height: px.
        width: px.
    """

    height: int
    width: int
    p: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size("height", self.height)
        check_size("width", self.width)

    def apply(self, image: Image, rng: np.random.Generator) -> Image:
        """Return the part."""
        top = int(rng.integers(max(0, image.shape[0] - self.height) + 1))
        left = int(rng.integers(max(0, image.shape[1] - self.width) + 1))
        return image[top : top + self.height, left : left + self.width]


@dataclass(frozen=True)
class HorizontalFlip(RandomTransform):
    """Swap left and right."""

    def apply(self, image: Image, rng: np.random.Generator) -> Image:
        """Return the mirrored image."""
        return cv2.flip(image, 1)


@dataclass(frozen=True)
class VerticalFlip(RandomTransform):
    """Swap top and bottom."""

    def apply(self, image: Image, rng: np.random.Generator) -> Image:
        """Return the mirrored image."""
        return cv2.flip(image, 0)


@dataclass(frozen=True)
class Transpose(RandomTransform):
    """Swap rows and columns."""

    def apply(self, image: Image, rng: np.random.Generator) -> Image:
        """Return the transposed image."""
        return cv2.transpose(image)


@dataclass(frozen=True)
class ShiftScaleRotate(RandomTransform):
    """Shift, scale and rotate about the centre in one resampling.

    Attributes:
        p: Probability.
        shift_limit: Largest shift as a share of width and height, uniform on both sides of 0.
        scale_limit: The image is scaled by 1 + U(-scale_limit, scale_limit).
        rotate_limit: Largest angle in degrees, uniform on both sides of 0.
        interpolation: ``nearest``, ``linear``, ``area`` or ``cubic``.
        border: ``constant``, ``reflect``, ``reflect_101``, ``replicate`` or ``wrap``.
    """

    shift_limit: float = 0.0625
    scale_limit: float = 0.1
    rotate_limit: float = 45
    interpolation: str = "linear"
    border: str = "reflect_101"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("shift_limit", (0, self.shift_limit), 0)
        check_range("scale_limit", (0, self.scale_limit), 0, 0.99)
        check_range("rotate_limit", (0, self.rotate_limit), 0)
        choice("interpolation", self.interpolation, INTERPOLATIONS)
        choice("border", self.border, BORDERS)

    def apply(self, image: Image, rng: np.random.Generator) -> Image:
        """Return the moved image, of the same size."""
        rotate, scale, shift_x, shift_y = rng.uniform(-1, 1, 4)
        height, width = image.shape[:2]
        centre = ((width - 1) / 2, (height - 1) / 2)
        matrix = cv2.getRotationMatrix2D(
            centre, float(rotate * self.rotate_limit), float(1 + scale * self.scale_limit)
        )
        matrix[0, 2] += shift_x * self.shift_limit * width
        matrix[1, 2] += shift_y * self.shift_limit * height
        return cv2.warpAffine(
            image,
            matrix,
            (width, height),
            flags=INTERPOLATIONS[self.interpolation],
            borderMode=BORDERS[self.border],
        )


@dataclass(frozen=True)
class Rotate(RandomTransform):
    """Rotate about the centre.

    Attributes:
        p: Probability.
        limit: Largest angle in degrees, uniform on both sides of 0.
        border: As for :class:`ShiftScaleRotate`.
    """

    limit: float = 90
    border: str = "reflect_101"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._move()

    def _move(self) -> ShiftScaleRotate:
        return ShiftScaleRotate(0, 0, self.limit, border=self.border)

    def apply(self, image: Image, rng: np.random.Generator) -> Image:
        """Return the rotated image, of the same size."""
        return self._move().apply(image, rng)


@dataclass(frozen=True)
class RandomGridShuffle(RandomTransform):
    """Cut the image into a grid and shuffle its cells.

    Where the size is not divisible, cells differ by a pixel; only cells of one shape swap
    places, so that every pixel is kept.

    Attributes:
        p: Probability.
        grid: Rows and columns of the grid.
    """

    grid: Sequence[int] = (3, 3)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.grid) != 2:
            raise ValueError(f"grid: {list(self.grid)} is not [rows, columns]")
        check_size("grid", self.grid[0])
        check_size("grid", self.grid[1])

    def apply(self, image: Image, rng: np.random.Generator) -> Image:
        """Return the image with its cells shuffled."""
        rows = np.linspace(0, image.shape[0], self.grid[0] + 1).astype(int)
        columns = np.linspace(0, image.shape[1], self.grid[1] + 1).astype(int)
        cells: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for row in range(self.grid[0]):
            for column in range(self.grid[1]):
                shape = (rows[row + 1] - rows[row], columns[column + 1] - columns[column])
                cells.setdefault(shape, []).append((int(rows[row]), int(columns[column])))
        result = np.empty_like(image)
        for (height, width), places in cells.items():
            for (top, left), k in zip(places, rng.permutation(len(places)), strict=True):
                source_top, source_left = places[k]
                result[top : top + height, left : left + width] = image[
                    source_top : source_top + height, source_left : source_left + width
                ]
        return result
