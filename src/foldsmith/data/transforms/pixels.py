"""A batch of images on a device, and sampling from it, for batched transforms."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch


@dataclass(frozen=True)
class Pixels:
    """Images of a batch, each in the upper left corner of its own canvas.

    Attributes:
        values: uint8 RGB, shape (n, H, W, 3), on any device.
        heights: Height of each image in px, at most H, int64, shape (n,), on the host.
        widths: Width of each image, likewise.
    """

    values: torch.Tensor
    heights: npt.NDArray[np.int64]
    widths: npt.NDArray[np.int64]

    @classmethod
    def of_size(cls, values: torch.Tensor) -> "Pixels":
        """Return images that fill their canvas: uint8, shape (n, H, W, 3)."""
        n, height, width = values.shape[:3]
        return cls(values, np.full(n, height), np.full(n, width))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self.values.device

    def numbers(self, values: Any, dtype: Any = np.float32) -> torch.Tensor:
        """Bring a number per image to the device, shape (n, 1, 1)."""
        return to_device(np.asarray(values, dtype), self.device).view(-1, 1, 1)

    def take(self, chosen: Sequence[int]) -> "Pixels":
        """Return some of the images."""
        if len(chosen) == len(self):
            return self
        where = to_device(np.asarray(chosen, np.int64), self.device)
        return Pixels(self.values[where], self.heights[chosen], self.widths[chosen])

    def put(self, chosen: Sequence[int], part: "Pixels") -> "Pixels":
        """Return the images with some of them replaced."""
        (height, width), (rows, columns) = self.values.shape[1:3], part.values.shape[1:3]
        values = self.values.new_zeros((len(self), max(height, rows), max(width, columns), 3))
        values[:, :height, :width] = self.values
        where = to_device(np.asarray(chosen, np.int64), self.device)
        values[where, :rows, :columns] = part.values
        heights, widths = self.heights.copy(), self.widths.copy()
        heights[chosen], widths[chosen] = part.heights, part.widths
        return Pixels(values[:, : heights.max(), : widths.max()], heights, widths)

    def pick(
        self, rows: torch.Tensor, columns: torch.Tensor, border: str = "replicate"
    ) -> torch.Tensor:
        """Return pixels of every image, uint8, shape (n, h, w, 3).

        Args:
            rows: Row of each pixel, int64, shape (n, h, w) or one that broadcasts to it.
            columns: Column of each pixel, likewise.
            border: Values outside an image: ``constant`` (0), ``reflect``,
                ``reflect_101``, ``replicate`` or ``wrap``.
        """
        heights = self.numbers(self.heights, np.int64)
        widths = self.numbers(self.widths, np.int64)
        n = torch.arange(len(self), device=self.device).view(-1, 1, 1)
        found = self.values[n, _inside(rows, heights, border), _inside(columns, widths, border)]
        if border == "constant":
            inside = (rows >= 0) & (rows < heights) & (columns >= 0) & (columns < widths)
            found = found * inside[..., None]
        return found

    def sample(
        self,
        rows: torch.Tensor,
        columns: torch.Tensor,
        interpolation: str = "linear",
        border: str = "replicate",
    ) -> torch.Tensor:
        """Return the images at places between their pixels, uint8, shape (n, h, w, 3).

        Args:
            rows: Place of each new pixel, float32, counted from the centre of the first row,
                shape (n, h, w) or one that broadcasts to it.
            columns: Likewise.
            interpolation: ``nearest`` or ``linear``.
            border: As for :meth:`pick`.
        """
        if interpolation == "nearest":
            return self.pick(rows.round().long(), columns.round().long(), border)
        top, left = rows.floor(), columns.floor()
        down, right = (rows - top)[..., None], (columns - left)[..., None]
        y, x = top.long(), left.long()
        upper = self.pick(y, x, border) * (1 - right) + self.pick(y, x + 1, border) * right
        lower = self.pick(y + 1, x, border) * (1 - right) + self.pick(y + 1, x + 1, border) * right
        return to_bytes(upper * (1 - down) + lower * down)


def resized_parts(
    pixels: Pixels,
    parts: Sequence[tuple[int, int, int, int]],
    height: int,
    width: int,
    interpolation: str,
) -> Pixels:
    """Cut a rectangle out of each image and resize it, as ``cv2.resize`` does.

    Args:
        pixels: The images.
        parts: Top, left, height and width of each rectangle, in px.
        height: px afterwards.
        width: px afterwards.
        interpolation: ``nearest`` or ``linear``.
    """
    tops, lefts, heights, widths = np.asarray(parts, np.float64).T
    places = []
    for start, length, size in ((tops, heights, height), (lefts, widths, width)):
        steps = torch.arange(size, dtype=torch.float64, device=pixels.device)
        # In double precision and this order, so that "nearest" falls on the same side.
        scale = pixels.numbers(1 / (size / length), np.float64)
        if interpolation == "nearest":
            place = (steps * scale).floor()
        else:
            place = (steps + 0.5) * scale - 0.5
        # Outside of the part is its edge, not what lies beside it in the image.
        place = place.clamp_min(0).minimum(pixels.numbers(length - 1))
        places.append((place + pixels.numbers(start)).float())
    rows, columns = places[0].transpose(1, 2), places[1]
    return Pixels.of_size(pixels.sample(rows, columns, interpolation))


# Modes that Pixels.sample supports.
SAMPLED = ("nearest", "linear")


def to_bytes(values: torch.Tensor) -> torch.Tensor:
    """Round values to 0..255, uint8."""
    return values.round_().clamp_(0, 255).to(torch.uint8)


def to_device(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """Copy a small array to a device without waiting for the device."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type != "cuda":
        return tensor.to(device)
    # From ordinary memory, a copy would wait for everything before it.
    return tensor.pin_memory().to(device, non_blocking=True)


def _inside(places: torch.Tensor, length: torch.Tensor, border: str) -> torch.Tensor:
    """Map places in a row or column of some length to places inside of it."""
    if border in ("constant", "replicate"):
        return places.clamp_min(0).minimum(length - 1)
    if border == "wrap":
        return places.remainder(length)
    if border == "reflect":
        places = places.remainder(2 * length)
        return places.minimum(2 * length - 1 - places)
    period = (2 * length - 2).clamp_min(1)  # reflect_101: the edge stands once
    places = places.remainder(period)
    return places.minimum(period - places).minimum(length - 1)
