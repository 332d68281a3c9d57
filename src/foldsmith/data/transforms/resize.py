"""Resizing, padding and centre crops: nothing random."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import torch

from foldsmith.data.transforms.base import (
    INTERPOLATIONS,
    Drawn,
    Image,
    Transform,
    check_size,
    choice,
)
from foldsmith.data.transforms.pixels import SAMPLED, Pixels, resized_parts

# numpy's names; "reflect" leaves the edge pixel single.
PAD_MODES = {
    "constant": cv2.BORDER_CONSTANT,
    "reflect": cv2.BORDER_REFLECT_101,
    "replicate": cv2.BORDER_REPLICATE,
    "wrap": cv2.BORDER_WRAP,
}
_NUMPY_MODES = {"reflect": "reflect", "replicate": "edge", "wrap": "wrap"}


def _whole(height: float, width: float) -> tuple[int, int]:
    return max(1, round(height)), max(1, round(width))


def _resized(image: Image, height: float, width: float, interpolation: str) -> Image:
    size = _whole(height, width)[::-1]
    if size == (image.shape[1], image.shape[0]):
        return image
    return cv2.resize(image, size, interpolation=INTERPOLATIONS[interpolation])


@dataclass(frozen=True)
class Resize(Transform):
    """Resize to a fixed size, whatever the aspect.

    Attributes:
        height: px of a crop from the resized image.
        width: px of such a crop.
        interpolation: ``nearest``, ``linear``, ``area`` or ``cubic``.
        crop_pct: Share of the resized sides that the crop has, as in timm, over 0 to 1; 1: the
            image has the size of the crop.
    """

    height: int
    width: int
    interpolation: str = "linear"
    crop_pct: float = 1.0
    stored: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_size("height", self.height)
        check_size("width", self.width)
        choice("interpolation", self.interpolation, INTERPOLATIONS)
        if not 0 < self.crop_pct <= 1:
            raise ValueError(f"crop_pct: {self.crop_pct} is not above 0 and at most 1")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the resized image, px."""
        return _whole(self.height / self.crop_pct, self.width / self.crop_pct)

    def apply(self, image: Image, drawn: Drawn) -> Image:
        """Return the resized image."""
        return _resized(image, *self.size, self.interpolation)

    def size_after(self, height: int, width: int, drawn: Drawn) -> tuple[int, int]:
        """Return the fixed size."""
        return self.size

    @property
    def batched(self) -> bool:
        """Whether the interpolation is one for batches."""
        return super().batched and self.interpolation in SAMPLED

    def apply_batch(self, pixels: Pixels, drawn: Sequence[Drawn]) -> Pixels:
        """Return the resized images."""
        sizes = zip(pixels.heights, pixels.widths, strict=True)
        parts = [(0, 0, int(height), int(width)) for height, width in sizes]
        return resized_parts(pixels, parts, *self.size, self.interpolation)

    def keeps(self, height: int, width: int) -> bool:
        """Return whether images of this size stay as they are."""
        return (height, width) == self.size


@dataclass(frozen=True)
class LongestMaxSize(Transform):
    """Shrink an image whose longer side exceeds a size; others stay as they are.

    Attributes:
        max_size: Longest side allowed, px.
        interpolation: As for :class:`Resize`; ``area`` averages, which shrinks cleanly.
    """

    max_size: int
    interpolation: str = "area"
    stored: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_size("max_size", self.max_size)
        choice("interpolation", self.interpolation, INTERPOLATIONS)

    def apply(self, image: Image, drawn: Drawn) -> Image:
        """Return the image, its longer side at most ``max_size``."""
        height, width = image.shape[:2]
        if self.keeps(height, width):
            return image
        return _resized(image, *self.size_after(height, width, drawn), self.interpolation)

    def size_after(self, height: int, width: int, drawn: Drawn) -> tuple[int, int]:
        """Return the size with the longer side at most ``max_size``."""
        if self.keeps(height, width):
            return height, width
        scale = self.max_size / max(height, width)
        return _whole(height * scale, width * scale)

    def keeps(self, height: int, width: int) -> bool:
        """Return whether images of this size stay as they are."""
        return max(height, width) <= self.max_size


@dataclass(frozen=True)
class SmallestMaxSize(Transform):
    """Resize, aspect kept, so that the shorter side has a given size.

    Attributes:
        max_size: Shorter side afterwards, px.
        interpolation: As for :class:`Resize`.
    """

    max_size: int
    interpolation: str = "linear"
    stored: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_size("max_size", self.max_size)
        choice("interpolation", self.interpolation, INTERPOLATIONS)

    def apply(self, image: Image, drawn: Drawn) -> Image:
        """Return the resized image."""
        height, width = image.shape[:2]
        return _resized(image, *self.size_after(height, width, drawn), self.interpolation)

    def size_after(self, height: int, width: int, drawn: Drawn) -> tuple[int, int]:
        """Return the size with the shorter side ``max_size``."""
        scale = self.max_size / min(height, width)
        return _whole(height * scale, width * scale)

    def keeps(self, height: int, width: int) -> bool:
        """Return whether images of this size stay as they are."""
        return min(height, width) == self.max_size


@dataclass(frozen=True)
class PadIfNeeded(Transform):
    """Pad to a least size, the image in the centre (an odd pixel goes to bottom and right).

    Attributes:
        min_height: px.
        min_width: px.
        border: ``constant``, ``reflect``, ``replicate`` or ``wrap`` (the image repeated).
        value: Fill of the constant border, 0..255.
    """

    min_height: int
    min_width: int
    border: str = "constant"
    value: int = 0

    def __post_init__(self) -> None:
        check_size("min_height", self.min_height)
        check_size("min_width", self.min_width)
        choice("border", self.border, PAD_MODES)

    def apply(self, image: Image, drawn: Drawn) -> Image:
        """Return the padded image."""
        height, width = image.shape[:2]
        rows, columns = max(0, self.min_height - height), max(0, self.min_width - width)
        if not rows and not columns:
            return image
        top, left = rows // 2, columns // 2
        bottom, right = rows - top, columns - left
        if self.border == "constant" or (bottom < height and right < width):
            return cv2.copyMakeBorder(
                *(image, top, bottom, left, right, PAD_MODES[self.border]),
                value=(self.value,) * 3,
            )
        # OpenCV refuses pads wider than the image; numpy repeats it as often as it takes.
        mode: Any = _NUMPY_MODES[self.border]
        padded: Image = np.pad(image, ((top, bottom), (left, right), (0, 0)), mode=mode)
        return padded

    def size_after(self, height: int, width: int, drawn: Drawn) -> tuple[int, int]:
        """Return the size, at least the least one."""
        return max(height, self.min_height), max(width, self.min_width)

    @property
    def batched(self) -> bool:
        """Whether the border needs no value of its own."""
        return super().batched and (self.border != "constant" or self.value == 0)

    def apply_batch(self, pixels: Pixels, drawn: Sequence[Drawn]) -> Pixels:
        """Return the padded images."""
        heights = np.maximum(pixels.heights, self.min_height)
        widths = np.maximum(pixels.widths, self.min_width)
        tops, lefts = (heights - pixels.heights) // 2, (widths - pixels.widths) // 2
        rows = torch.arange(int(heights.max()), device=pixels.device).view(1, -1, 1)
        columns = torch.arange(int(widths.max()), device=pixels.device).view(1, 1, -1)
        values = pixels.pick(
            rows - pixels.numbers(tops, np.int64),
            columns - pixels.numbers(lefts, np.int64),
            # Here as in numpy: "reflect" leaves the edge pixel single.
            "reflect_101" if self.border == "reflect" else self.border,
        )
        return Pixels(values, heights, widths)


@dataclass(frozen=True)
class CenterCrop(Transform):
    """Cut out the centre.

    Attributes:
        height: px, at most the height of the image.
        width: px, at most the width of the image.
    """

    height: int
    width: int
    stored: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_size("height", self.height)
        check_size("width", self.width)

    def apply(self, image: Image, drawn: Drawn) -> Image:
        """Return the centre of the image, at most the whole image."""
        top = max(0, round((image.shape[0] - self.height) / 2))
        left = max(0, round((image.shape[1] - self.width) / 2))
        return image[top : top + self.height, left : left + self.width]

    def size_after(self, height: int, width: int, drawn: Drawn) -> tuple[int, int]:
        """Return the size, at most the size of the crop."""
        return min(height, self.height), min(width, self.width)
