"""Colour changes and blur of a batch of images on their device.

Each does to every image what its namesake in :mod:`~foldsmith.data.transforms.colour` does to
one, with an amount per image, up to the rounding of 8-bit intermediate values.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from foldsmith.data.transforms.pixels import Pixels, to_bytes, to_device

# ITU-R 601 luma, as OpenCV.
_LUMA = (0.299, 0.587, 0.114)


def _amounts(pixels: Pixels, values: Sequence[float]) -> torch.Tensor:
    return pixels.numbers(values)[..., None]


def _grey(pixels: Pixels) -> torch.Tensor:
    """Return the grey values, float32, whole numbers, shape (n, H, W, 1)."""
    values = pixels.values
    parts = (values[..., k : k + 1] * share for k, share in enumerate(_LUMA))
    return torch.round(sum(parts, start=torch.zeros((), device=pixels.device)))


def to_grey(pixels: Pixels) -> Pixels:
    """Return grey images with three equal channels."""
    return replace(pixels, values=_grey(pixels).to(torch.uint8).expand_as(pixels.values))


def adjust_brightness(pixels: Pixels, factors: Sequence[float]) -> Pixels:
    """Return the images times a factor each, clipped."""
    return replace(pixels, values=to_bytes(pixels.values * _amounts(pixels, factors)))


def adjust_contrast(pixels: Pixels, factors: Sequence[float]) -> Pixels:
    """Return the images blended with their mean grey."""
    luma = to_device(np.asarray(_LUMA, np.float32), pixels.device)
    rows = torch.arange(pixels.values.shape[1], device=pixels.device).view(1, -1, 1)
    columns = torch.arange(pixels.values.shape[2], device=pixels.device).view(1, 1, -1)
    heights = pixels.numbers(pixels.heights, np.int64)
    widths = pixels.numbers(pixels.widths, np.int64)
    inside = ((rows < heights) & (columns < widths))[..., None]
    sums = (pixels.values * inside).sum(dim=(1, 2), dtype=torch.float32)
    means = ((sums * luma).sum(dim=1) / (heights * widths).flatten()).view(-1, 1, 1, 1)
    factor = _amounts(pixels, factors)
    return replace(pixels, values=to_bytes(pixels.values * factor + means * (1 - factor)))


def adjust_saturation(pixels: Pixels, factors: Sequence[float]) -> Pixels:
    """Return the images blended with their grey versions."""
    factor = _amounts(pixels, factors)
    blended = pixels.values * factor + _grey(pixels) * (1 - factor)
    return replace(pixels, values=to_bytes(blended))


def adjust_hue(pixels: Pixels, shifts: Sequence[float]) -> Pixels:
    """Return the images, their hue moved by a fraction of the circle each, -0.5..0.5.

    By the formula of Smith ("Color gamut transform pairs", 1978) for the hexagonal hue.
    """
    values = pixels.values.float()
    red, green, blue = values.unbind(-1)
    value, _ = values.max(dim=-1)
    span = value - values.amin(dim=-1)
    divisor = span.clamp_min(1)
    hue = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    # In steps of 1/256 of the circle, as OpenCV's.
    steps = np.rint(np.asarray(shifts) * 256) * 6 / 256
    hue = hue + pixels.numbers(steps)
    channels = []
    for offset in (5, 3, 1):
        k = (offset + hue).remainder(6)
        channels.append(value - span * k.minimum(4 - k).clamp(0, 1))
    return replace(pixels, values=to_bytes(torch.stack(channels, dim=-1)))


def gaussian_blur(pixels: Pixels, sigmas: Sequence[float], sizes: Sequence[int]) -> Pixels:
    """Return the images blurred, each with its own width; the edge pixel is not doubled.

    Args:
        pixels: The images.
        sigmas: Standard deviations in px.
        sizes: Odd px; further out the kernel is 0.
    """
    radius = max(sizes) // 2
    taps = np.arange(-radius, radius + 1)
    kernels = np.exp(-0.5 * (taps / np.asarray(sigmas)[:, None]) ** 2)
    kernels *= np.abs(taps) <= np.asarray(sizes)[:, None] // 2
    kernels /= kernels.sum(axis=1, keepdims=True)
    rows = torch.arange(pixels.values.shape[1], device=pixels.device).view(1, -1, 1)
    columns = torch.arange(pixels.values.shape[2], device=pixels.device).view(1, 1, -1)
    # Along the rows, then along the columns: a sum of shifted images.
    across = torch.zeros((), device=pixels.device)
    for tap, weights in zip(taps.tolist(), kernels.T, strict=True):
        across = across + pixels.pick(rows, columns + tap, "reflect_101") * _amounts(
            pixels, weights
        )
    between = replace(pixels, values=across)
    both = torch.zeros((), device=pixels.device)
    for tap, weights in zip(taps.tolist(), kernels.T, strict=True):
        both = both + between.pick(rows + tap, columns, "reflect_101") * _amounts(pixels, weights)
    return replace(pixels, values=to_bytes(both))


def solarize(pixels: Pixels, threshold: int) -> Pixels:
    """Return the images with all values at or above a threshold inverted."""
    values = pixels.values
    # Not as bytes: a threshold of 256 leaves all as it is, and would wrap to 0.
    above = values.short() >= threshold
    return replace(pixels, values=torch.where(above, 255 - values, values))
