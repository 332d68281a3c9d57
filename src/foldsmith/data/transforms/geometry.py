"""Random crops, flips, shifts and shuffles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch

from foldsmith.data.transforms.base import (
    INTERPOLATIONS,
    Drawn,
    Image,
    RandomTransform,
    check_range,
    check_size,
    choice,
)
from foldsmith.data.transforms.pixels import SAMPLED, Pixels, resized_parts, to_device

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

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Drawn:
        """Draw top, left, height and width of the part; 1 - p of the time it is the whole."""
        if rng.random() < self.p:
            return self.parameters(height, width, rng)
        return 0, 0, height, width

    def change(self, image: Image, drawn: Drawn) -> Image:
        """Return the part, resized."""
        top, left, height, width = drawn
        part = image[top : top + height, left : left + width]
        if part.shape[:2] == (self.height, self.width):
            return part
        code = INTERPOLATIONS[self.interpolation]
        return cv2.resize(part, (self.width, self.height), interpolation=code)

    def size_after(self, height: int, width: int, drawn: Drawn) -> tuple[int, int]:
        """Return the fixed size."""
        return self.height, self.width

    @property
    def batched(self) -> bool:
        """Whether the interpolation is one for batches."""
        return super().batched and self.interpolation in SAMPLED

    def change_batch(self, pixels: Pixels, drawn: Sequence[Drawn]) -> Pixels:
        """Return the parts, resized."""
        return resized_parts(pixels, drawn, self.height, self.width, self.interpolation)

    def parameters(self, height: int, width: int, rng: np.random.Generator) -> Drawn:
        """Draw top, left, height and width of the part."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = height * width * rng.uniform(self.scale[0], self.scale[1])
            ratio = math.exp(rng.uniform(low, high))
            columns, rows = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < columns <= width and 0 < rows <= height:
                top = int(rng.integers(height - rows + 1))
                left = int(rng.integers(width - columns + 1))
                return top, left, rows, columns
        # An image too long or too tall for any drawn part: its centre, in the nearest ratio.
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        columns = min(width, max(1, round(height * ratio)))
        rows = min(height, max(1, round(width / ratio)))
        return (height - rows) // 2, (width - columns) // 2, rows, columns


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

    def parameters(self, height: int, width: int, rng: np.random.Generator) -> Drawn:
        """Draw top and left of the part; behind them its height and width."""
        top = int(rng.integers(max(0, height - self.height) + 1))
        left = int(rng.integers(max(0, width - self.width) + 1))
        return top, left, min(height, self.height), min(width, self.width)

    def change(self, image: Image, drawn: Drawn) -> Image:
        """Return the part."""
        top, left, height, width = drawn
        return image[top : top + height, left : left + width]

    def size_after(self, height: int, width: int, drawn: Drawn) -> tuple[int, int]:
        """Return the size of the part."""
        return (height, width) if drawn is None else (drawn[2], drawn[3])

    def change_batch(self, pixels: Pixels, drawn: Sequence[Drawn]) -> Pixels:
        """Return the parts."""
        tops, lefts, heights, widths = np.asarray(drawn, np.int64).T
        rows = torch.arange(int(heights.max()), device=pixels.device).view(1, -1, 1)
        columns = torch.arange(int(widths.max()), device=pixels.device).view(1, 1, -1)
        values = pixels.pick(
            rows + pixels.numbers(tops, np.int64), columns + pixels.numbers(lefts, np.int64)
        )
        return Pixels(values, heights, widths)


@dataclass(frozen=True)
class HorizontalFlip(RandomTransform):
    """Swap left and right."""

    def parameters(self, height: int, width: int, rng: np.random.Generator) -> Drawn:
        """Draw nothing."""
        return ()

    def change(self, image: Image, drawn: Drawn) -> Image:
        """Return the mirrored image."""
        return cv2.flip(image, 1)

    def change_batch(self, pixels: Pixels, drawn: Sequence[Drawn]) -> Pixels:
        """Return the mirrored images."""
        return _mirrored(pixels, rows=False)


@dataclass(frozen=True)
class VerticalFlip(RandomTransform):
    """Swap top and bottom."""

    def parameters(self, height: int, width: int, rng: np.random.Generator) -> Drawn:
        """Draw nothing."""
        return ()

    def change(self, image: Image, drawn: Drawn) -> Image:
        """Return the mirrored image."""
        return cv2.flip(image, 0)

    def change_batch(self, pixels: Pixels, drawn: Sequence[Drawn]) -> Pixels:
        """Return the mirrored images."""
        return _mirrored(pixels, rows=True)


@dataclass(frozen=True)
class Transpose(RandomTransform):
    """Swap rows and columns."""

    def parameters(self, height: int, width: int, rng: np.random.Generator) -> Drawn:
        """Draw nothing."""
        return ()

    def change(self, image: Image, drawn: Drawn) -> Image:
        """Return the transposed image."""
        return cv2.transpose(image)

    def size_after(self, height: int, width: int, drawn: Drawn) -> tuple[int, int]:
        """Return the sides, swapped if the image is."""
        return (height, width) if drawn is None else (width, height)

    def change_batch(self, pixels: Pixels, drawn: Sequence[Drawn]) -> Pixels:
        """Return the transposed images."""
        return Pixels(pixels.values.transpose(1, 2), pixels.widths, pixels.heights)


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

    def parameters(self, height: int, width: int, rng: np.random.Generator) -> Drawn:
        """Draw angle, scale, and shift to the right and down, as shares of their limits."""
        return tuple(float(share) for share in rng.uniform(-1, 1, 4))

    def _matrix(self, height: int, width: int, drawn: Drawn) -> Image:
        """Return where pixels go, as OpenCV has it: float64, shape (2, 3)."""
        rotate, scale, shift_x, shift_y = drawn
        centre = ((width - 1) / 2, (height - 1) / 2)
        matrix = cv2.getRotationMatrix2D(
            centre, float(rotate * self.rotate_limit), float(1 + scale * self.scale_limit)
        )
        matrix[0, 2] += shift_x * self.shift_limit * width
        matrix[1, 2] += shift_y * self.shift_limit * height
        return matrix

    def change(self, image: Image, drawn: Drawn) -> Image:
        """Return the moved image, of the same size."""
        height, width = image.shape[:2]
        return cv2.warpAffine(
            image,
            self._matrix(height, width, drawn),
            (width, height),
            flags=INTERPOLATIONS[self.interpolation],
            borderMode=BORDERS[self.border],
        )

    @property
    def batched(self) -> bool:
        """Whether the interpolation is one for batches."""
        return super().batched and self.interpolation in SAMPLED

    def change_batch(self, pixels: Pixels, drawn: Sequence[Drawn]) -> Pixels:
        """Return the moved images."""
        sizes = zip(pixels.heights.tolist(), pixels.widths.tolist(), drawn, strict=True)
        # Where each new pixel comes from.
        back = np.stack([cv2.invertAffineTransform(self._matrix(*size)) for size in sizes])
        rows = torch.arange(pixels.values.shape[1], device=pixels.device).view(1, -1, 1)
        columns = torch.arange(pixels.values.shape[2], device=pixels.device).view(1, 1, -1)
        (xx, xy, x), (yx, yy, y) = (
            [pixels.numbers(back[:, row, column]) for column in range(3)] for row in range(2)
        )
        values = pixels.sample(
            yx * columns + yy * rows + y,
            xx * columns + xy * rows + x,
            self.interpolation,
            self.border,
        )
        return Pixels(values, pixels.heights, pixels.widths)


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

    def parameters(self, height: int, width: int, rng: np.random.Generator) -> Drawn:
        """Draw as :class:`ShiftScaleRotate`, of which this is the rotation alone."""
        return self._move().parameters(height, width, rng)

    def change(self, image: Image, drawn: Drawn) -> Image:
        """Return the rotated image, of the same size."""
        return self._move().change(image, drawn)

    def change_batch(self, pixels: Pixels, drawn: Sequence[Drawn]) -> Pixels:
        """Return the rotated images."""
        return self._move().change_batch(pixels, drawn)


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

    def parameters(self, height: int, width: int, rng: np.random.Generator) -> Drawn:
        """Draw top, left, height and width of each cell, then where it comes from."""
        rows = np.linspace(0, height, self.grid[0] + 1).astype(int)
        columns = np.linspace(0, width, self.grid[1] + 1).astype(int)
        cells: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for row in range(self.grid[0]):
            for column in range(self.grid[1]):
                shape = (rows[row + 1] - rows[row], columns[column + 1] - columns[column])
                cells.setdefault(shape, []).append((int(rows[row]), int(columns[column])))
        return [
            (top, left, int(rows), int(columns), *places[k])
            for (rows, columns), places in cells.items()
            for (top, left), k in zip(places, rng.permutation(len(places)), strict=True)
        ]

    def change(self, image: Image, drawn: Drawn) -> Image:
        """Return the image with its cells shuffled."""
        result = np.empty_like(image)
        for top, left, height, width, from_top, from_left in drawn:
            result[top : top + height, left : left + width] = image[
                from_top : from_top + height, from_left : from_left + width
            ]
        return result

    def change_batch(self, pixels: Pixels, drawn: Sequence[Drawn]) -> Pixels:
        """Return the images with their cells shuffled."""
        canvas = pixels.values.shape[1:3]
        moves = np.zeros((2, len(drawn), *self.grid), np.int64)
        cell_of = [np.zeros((len(drawn), length), np.int64) for length in canvas]
        for k, cells in enumerate(drawn):
            edges = [
                np.linspace(0, length, parts + 1).astype(int)
                for length, parts in zip(
                    (pixels.heights[k], pixels.widths[k]), self.grid, strict=True
                )
            ]
            for axis in (0, 1):
                places = np.searchsorted(edges[axis], np.arange(canvas[axis]), "right") - 1
                cell_of[axis][k] = np.minimum(places, self.grid[axis] - 1)
            for top, left, height, width, from_top, from_left in cells:
                if height and width:
                    row, column = cell_of[0][k, top], cell_of[1][k, left]
                    moves[:, k, row, column] = from_top - top, from_left - left
        down, right = to_device(moves, pixels.device)
        n = torch.arange(len(pixels), device=pixels.device).view(-1, 1, 1)
        of_row = to_device(cell_of[0], pixels.device)[:, :, None]
        of_column = to_device(cell_of[1], pixels.device)[:, None, :]
        y = torch.arange(canvas[0], device=pixels.device).view(1, -1, 1)
        x = torch.arange(canvas[1], device=pixels.device).view(1, 1, -1)
        values = pixels.pick(y + down[n, of_row, of_column], x + right[n, of_row, of_column])
        return Pixels(values, pixels.heights, pixels.widths)


def _mirrored(pixels: Pixels, rows: bool) -> Pixels:
    """Return images with top and bottom swapped (``rows``), or left and right."""
    y = torch.arange(pixels.values.shape[1], device=pixels.device).view(1, -1, 1)
    x = torch.arange(pixels.values.shape[2], device=pixels.device).view(1, 1, -1)
    if rows:
        y = pixels.numbers(pixels.heights, np.int64) - 1 - y
    else:
        x = pixels.numbers(pixels.widths, np.int64) - 1 - x
    return Pixels(pixels.pick(y, x), pixels.heights, pixels.widths)
