"""Transforms of a loader's batches on the device: normalising, or making the views."""

import numpy as np
import numpy.typing as npt
import torch

from foldsmith.data.datasets import (
    Batch,
    DrawnBatch,
    ImageDataset,
    ImageSequence,
    different_sizes,
)
from foldsmith.data.transforms.normalize import Normalize
from foldsmith.data.transforms.pixels import Pixels, to_device
from foldsmith.errors import DataError

# Bytes that go to the device at a time.
_CHUNK = 64 * 2**20


class ResidentImages:
    """All images of a dataset in the memory of a device, one behind the other.

    Args:
        images: Stored images.
        sizes: Height and width of each, int64, shape (n, 2).
        device: Where to.
    """

    def __init__(
        self, images: ImageSequence, sizes: npt.NDArray[np.int64], device: torch.device
    ) -> None:
        self._sizes = sizes
        ends = np.cumsum(sizes.prod(axis=1))
        self._starts = np.concatenate([[0], ends[:-1]])
        self._pixels = torch.empty((int(ends[-1]), 3), dtype=torch.uint8, device=device)
        first, waiting = 0, 0
        for index in range(len(images)):
            waiting += int(sizes[index].prod()) * 3
            if waiting >= _CHUNK or index == len(images) - 1:
                part = np.concatenate([images[k].reshape(-1, 3) for k in range(first, index + 1)])
                start = int(self._starts[first])
                self._pixels[start : start + len(part)] = torch.from_numpy(part).to(device)
                first, waiting = index + 1, 0

    def take(self, indices: npt.NDArray[np.int64]) -> Pixels:
        """Return some of the images, each in the upper left corner of its canvas."""
        device = self._pixels.device
        heights, widths = self._sizes[indices].T
        start, height, width = (
            to_device(values, device).view(-1, 1, 1)
            for values in (self._starts[indices], heights, widths)
        )
        rows = torch.arange(int(heights.max()), device=device).view(1, -1, 1)
        columns = torch.arange(int(widths.max()), device=device).view(1, 1, -1)
        # Beside an image its edge is repeated: nothing looks there.
        places = start + rows.minimum(height - 1) * width + columns.minimum(width - 1)
        return Pixels(self._pixels[places], heights, widths)


class OnDevice:
    """The part of a dataset's work that is done on the device.

    By default the views come ready from the loader and are normalised here. After
    :meth:`augment_here` the loader only draws the random numbers, the very same, and the views
    are made here.

    Args:
        dataset: Where the batches come from.
    """

    def __init__(self, dataset: ImageDataset) -> None:
        self._dataset = dataset
        self._resident: ResidentImages | None = None
        # Brought to the device once, not with every batch.
        self._constants: dict[tuple[str, torch.device], tuple[torch.Tensor, torch.Tensor]] = {}

    def augment_here(self, device: torch.device, room_bytes: float) -> None:
        """Make the views on the device from now on; call it before the loader's first batch.

        Args:
            device: The device.
            room_bytes: The images are kept there if they take no more than this.
        """
        sizes = self._dataset.images.sizes
        if sizes is not None and self.fits(room_bytes):
            self._resident = ResidentImages(self._dataset.images, sizes, device)
        self._dataset.drawing = True
        self._dataset.with_images = self._resident is None

    def fits(self, room_bytes: float) -> bool:
        """Return whether all images of the dataset take no more than this on a device."""
        sizes = self._dataset.images.sizes
        return sizes is not None and int(sizes.prod(axis=1).sum()) * 3 <= room_bytes

    @property
    def resident(self) -> bool:
        """Whether the device holds the images."""
        return self._resident is not None

    def views(self, batch: Batch | DrawnBatch, device: torch.device) -> list[torch.Tensor]:
        """Return the views of a batch on the device, normalised, each of shape (n, 3, H, W)."""
        if isinstance(batch, Batch):
            ready = [view.to(device, non_blocking=device.type == "cuda") for view in batch.views]
        else:
            pixels = self._pixels(batch, device)
            ready = [
                _images(view.augment.apply_batch(pixels, drawn))
                for view, drawn in zip(self._dataset.views, batch.drawn, strict=True)
            ]
        return [
            self._normalized(images, view.normalize, device)
            for images, view in zip(ready, self._dataset.views, strict=True)
        ]

    def _pixels(self, batch: DrawnBatch, device: torch.device) -> Pixels:
        if batch.images is not None:
            images = batch.images.to(device, non_blocking=True)
            return Pixels(images, batch.heights, batch.widths)
        assert self._resident is not None, "a batch without images needs images on the device"
        return self._resident.take(batch.indices)

    def _normalized(
        self, images: torch.Tensor, normalize: Normalize | None, device: torch.device
    ) -> torch.Tensor:
        if normalize is None:
            return images
        key = repr(normalize), device
        if key not in self._constants:
            self._constants[key] = normalize.constants(device)
        scale, shift = self._constants[key]
        return images.float().mul_(scale).add_(shift)


def _images(pixels: Pixels) -> torch.Tensor:
    sizes = np.unique(np.stack([pixels.heights, pixels.widths], axis=1), axis=0)
    if len(sizes) > 1:
        raise DataError(different_sizes(sizes.tolist()))
    return pixels.values.permute(0, 3, 1, 2)
