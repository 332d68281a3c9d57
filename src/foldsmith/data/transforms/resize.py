"""Resizing, padding and centre crops: nothing random."""

from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np

from foldsmith.data.transforms.base import (
    INTERPOLATIONS,
    Image,
    Transform,
    check_size,
    choice,
)

# numpy's names; "reflect" leaves the edge pixel single, as OpenCV's reflect_101.
PAD_MODES = {"constant": 0, "reflect": 1, "replicate": 2, "wrap": 3}
_NUMPY_MODES = {"reflect": "reflect", "replicate": "edge", "wrap": "wrap"}


def _resized(image: Image, height: float, width: float, interpolation: str) -> Image:
    size = (max(1, round(width)), max(1, round(height)))
    if size == (image.shape[1], image.shape[0]):
        return image
    return cv2.resize(image, size, interpolation=INTERPOLATIONS[interpolation])


@dataclass(frozen=True)
class Resize(Transform):
    """Resize to a fixed size, whatever the aspect.

    Attributes:
        height: px.
        width: px.
        interpolation: ``nearest``, ``linear``, ``area`` or ``cubic``.
    """

    height: int
    width: int
    interpolation: str = "linear"
    deterministic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_size("height", self.height)
        check_size("width", self.width)
        choice("interpolation", self.interpolation, INTERPOLATIONS)

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Return the resized image."""
        return _resized(image, self.height, self.width, self.interpolation)


@dataclass(frozen=True)
class LongestMaxSize(Transform):
    """Shrink a photo whose longer side exceeds a size; others stay as they are.

    Attributes:
        max_size: Longest side allowed, px.
        interpolation: As for :class:`Resize`; ``area`` averages, which shrinks cleanly.
    """

    max_size: int
    interpolation: str = "area"
    deterministic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_size("max_size", self.max_size)
        choice("interpolation", self.interpolation, INTERPOLATIONS)

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Return the image, its longer side at most ``max_size``."""
        height, width = image.shape[:2]
        scale = self.max_size / max(height, width)
        if scale >= 1:
            return image
        return _resized(image, height * scale, width * scale, self.interpolation)


@dataclass(frozen=True)
class SmallestMaxSize(Transform):
    """Resize, aspect kept, so that the shorter side has a given size.

    Attributes:
        max_size: Shorter side afterwards, px.
        interpolation: As for :class:`Resize`.
    """

    max_size: int
    interpolation: str = "linear"
    deterministic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_size("max_size", self.max_size)
        choice("interpolation", self.interpolation, INTERPOLATIONS)

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Return the resized image."""
        height, width = image.shape[:2]
        scale = self.max_size / min(height, width)
        return _resized(image, height * scale, width * scale, self.interpolation)


@dataclass(frozen=True)
class PadIfNeeded(Transform):
    """Pad to a least size, the photo in the centre (an odd pixel goes to bottom and right).

    Attributes:
        min_height: px.
        min_width: px.
        border: ``constant``, ``reflect``, ``replicate`` or ``wrap`` (the photo repeated).
        value: Fill of the constant border, 0..255.
    """

    min_height: int
    min_width: int
    border: str = "constant"
    value: int = 0
    deterministic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_size("min_height", self.min_height)
        check_size("min_width", self.min_width)
        choice("border", self.border, PAD_MODES)

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Return the padded image."""
        height, width = image.shape[:2]
        rows, columns = max(0, self.min_height - height), max(0, self.min_width - width)
        if not rows and not columns:
            return image
        pads = ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0))
        if self.border == "constant":
            return np.pad(image, pads, constant_values=self.value)
        # np.pad repeats as often as it takes; OpenCV refuses pads wider than the photo.
        mode: Any = _NUMPY_MODES[self.border]
        padded: Image = np.pad(image, pads, mode=mode)
        return padded


@dataclass(frozen=True)
class CenterCrop(Transform):
    """Cut out the centre.

    Attributes:
        height: px, at most that of the image.
        width: px, at most that of the image.
    """

    height: int
    width: int
    deterministic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_size("height", self.height)
        check_size("width", self.width)

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Return the centre; what the image lacks is left out."""
        top = max(0, round((image.shape[0] - self.height) / 2))
        left = max(0, round((image.shape[1] - self.width) / 2))
        return image[top : top + self.height, left : left + self.width]
