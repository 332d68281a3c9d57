"""Random colour changes and blur."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from foldsmith.data.transforms import batch_colour
from foldsmith.data.transforms.base import (
    Drawn,
    Image,
    RandomTransform,
    check_range,
    check_size,
)
from foldsmith.data.transforms.pixels import Pixels

_LEVELS = np.arange(256, dtype=np.float32)
# ITU-R 601 luma, as torchvision and Pillow.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def _table(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _grey(image: Image) -> Image:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def adjust_brightness(image: Image, factor: float) -> Image:
    """Return the image times ``factor``, clipped."""
    return cv2.LUT(image, _table(_LEVELS * factor))


def adjust_contrast(image: Image, factor: float) -> Image:
    """Return the image blended with its mean grey: 0 is all grey, 1 the image itself."""
    mean = float(cv2.mean(image)[:3] @ _LUMA)
    return cv2.LUT(image, _table(_LEVELS * factor + mean * (1 - factor)))


def adjust_saturation(image: Image, factor: float) -> Image:
    """Return the image blended with its grey version: 0 is grey, 1 the image itself."""
    grey = cv2.cvtColor(_grey(image), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(image, factor, grey, 1 - factor, 0)


def adjust_hue(image: Image, shift: float) -> Image:
    """Return the image, its hue moved by a fraction of the circle, -0.5..0.5."""
    # OpenCV's full-range HSV has 256 steps of hue; uint8 wraps around by itself.
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(shift * 256) % 256)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


@dataclass(frozen=True)
class ColorJitter(RandomTransform):
    """Change brightness, contrast, saturation and hue, in random order.

    Attributes:
        p: Probability.
        brightness: The factor is uniform in max(0, 1 - x)..1 + x.
        contrast: As brightness.
        saturation: As brightness.
        hue: The shift is uniform in -x..x, x at most 0.5 of the circle.
    """

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("brightness", "contrast", "saturation"):
            check_range(name, (0, getattr(self, name)), 0)
        check_range("hue", (0, self.hue), 0, 0.5)

    def parameters(self, height: int, width: int, rng: np.random.Generator) -> Drawn:
        """Draw the order of the four changes and their amounts."""
        order = [int(k) for k in rng.permutation(4)]
        limits = (self.brightness, self.contrast, self.saturation)
        factors = [float(rng.uniform(max(0, 1 - limit), 1 + limit)) for limit in limits]
        return order, [*factors, float(rng.uniform(-self.hue, self.hue))]

    def change(self, image: Image, drawn: Drawn) -> Image:
        """Return the changed image."""
        order, amounts = drawn
        changes = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
        for k in order:
            image = changes[k](image, amounts[k])
        return image

    def change_batch(self, pixels: Pixels, drawn: Sequence[Drawn]) -> Pixels:
        """Return the changed images."""
        changes = (
            batch_colour.adjust_brightness,
            batch_colour.adjust_contrast,
            batch_colour.adjust_saturation,
            batch_colour.adjust_hue,
        )
        # Each image has its own order: in every place, each change takes those it comes to.
        for place in range(4):
            for k, change in enumerate(changes):
                chosen = [n for n, (order, _) in enumerate(drawn) if order[place] == k]
                if chosen:
                    amounts = [drawn[n][1][k] for n in chosen]
                    pixels = pixels.put(chosen, change(pixels.take(chosen), amounts))
        return pixels


@dataclass(frozen=True)
class RandomBrightnessContrast(RandomTransform):
    """Change brightness and contrast.

    Attributes:
        p: Probability.
        brightness_limit: The factor is uniform in max(0, 1 - x)..1 + x.
        contrast_limit: As brightness_limit.
    """

    brightness_limit: float = 0.2
    contrast_limit: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("brightness_limit", (0, self.brightness_limit), 0)
        check_range("contrast_limit", (0, self.contrast_limit), 0)

    def parameters(self, height: int, width: int, rng: np.random.Generator) -> Drawn:
        """Draw the two factors."""
        return tuple(
            float(rng.uniform(max(0, 1 - limit), 1 + limit))
            for limit in (self.brightness_limit, self.contrast_limit)
        )

    def change(self, image: Image, drawn: Drawn) -> Image:
        """Return the changed image."""
        brightness, contrast = drawn
        return adjust_contrast(adjust_brightness(image, brightness), contrast)

    def change_batch(self, pixels: Pixels, drawn: Sequence[Drawn]) -> Pixels:
        """Return the changed images."""
        brighter = batch_colour.adjust_brightness(pixels, [one[0] for one in drawn])
        return batch_colour.adjust_contrast(brighter, [one[1] for one in drawn])


@dataclass(frozen=True)
class ToGray(RandomTransform):
    """Make the image grey, with three equal channels."""

    def parameters(self, height: int, width: int, rng: np.random.Generator) -> Drawn:
        """Draw nothing."""
        return ()

    def change(self, image: Image, drawn: Drawn) -> Image:
        """Return the grey image."""
        return cv2.cvtColor(_grey(image), cv2.COLOR_GRAY2RGB)

    def change_batch(self, pixels: Pixels, drawn: Sequence[Drawn]) -> Pixels:
        """Return the grey images."""
        return batch_colour.to_grey(pixels)


@dataclass(frozen=True)
class GaussianBlur(RandomTransform):
    """Blur with a Gaussian of random width.

    Attributes:
        p: Probability.
        sigma: Range of the standard deviation in px, uniform.
        kernel_size: Odd px; derived from sigma (four on either side) if null.
    """

    sigma: Sequence[float] = (0.1, 2.0)
    kernel_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("sigma", self.sigma, 1e-6)
        if self.kernel_size is not None:
            check_size("kernel_size", self.kernel_size)
            if self.kernel_size % 2 == 0:
                raise ValueError(f"kernel_size: {self.kernel_size} is not odd")

    def parameters(self, height: int, width: int, rng: np.random.Generator) -> Drawn:
        """Draw sigma, in px; behind it the size of the kernel."""
        sigma = float(rng.uniform(self.sigma[0], self.sigma[1]))
        return sigma, self.kernel_size or 2 * max(1, round(4 * sigma)) + 1

    def change_batch(self, pixels: Pixels, drawn: Sequence[Drawn]) -> Pixels:
        """Return the blurred images."""
        sigmas, sizes = zip(*drawn, strict=True)
        return batch_colour.gaussian_blur(pixels, sigmas, sizes)

    def change(self, image: Image, drawn: Drawn) -> Image:
        """Return the blurred image."""
        sigma, size = drawn
        return cv2.GaussianBlur(image, (size, size), sigma, borderType=cv2.BORDER_REFLECT_101)


@dataclass(frozen=True)
class Solarize(RandomTransform):
    """Invert all values at or above a threshold.

    Attributes:
        p: Probability.
        threshold: 0..256.
    """

    threshold: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("threshold", (0, self.threshold), 0, 256)

    def parameters(self, height: int, width: int, rng: np.random.Generator) -> Drawn:
        """Draw nothing."""
        return ()

    def change_batch(self, pixels: Pixels, drawn: Sequence[Drawn]) -> Pixels:
        """Return the solarised images."""
        return batch_colour.solarize(pixels, self.threshold)

    def change(self, image: Image, drawn: Drawn) -> Image:
        """Return the solarised image."""
        table = np.where(self.threshold <= _LEVELS, 255 - _LEVELS, _LEVELS)
        return cv2.LUT(image, table.astype(np.uint8))
