"""A dataset of images: the views that are made of them, and batches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from foldsmith.data.epoch_order import of_stream_epoch
from foldsmith.data.transforms.base import Compose, Transform
from foldsmith.data.transforms.normalize import Normalize
from foldsmith.errors import ConfigError, DataError
from foldsmith.utils.path_list import Paths


class Batch(NamedTuple):
    """A batch of a loader.

    Attributes:
        views: One tensor per view, shape (n, 3, H, W), channels_last; uint8 if the device
            normalises, else the dtype of the transforms.
        targets: The codes that the loss is computed from, shape (n,): float32 or int64; NaN
            where an image has no target.
        rows: Row of each image in its table, int64, shape (n,).
    """

    views: tuple[torch.Tensor, ...]
    targets: torch.Tensor
    rows: torch.Tensor


@dataclass(frozen=True)
class DrawnBatch:
    """A batch of a loader whose views are made on the device: images, and drawn random numbers.

    Attributes:
        images: uint8, shape (n, H, W, 3), each image in the upper left corner; None if the
            device holds the images already.
        heights: Height of each image in px, int64, shape (n,).
        widths: Width of each image, likewise.
        indices: Position of each image in the dataset, int64, shape (n,).
        drawn: For each view and image, the numbers that each transform has drawn.
        targets: As in :class:`Batch`.
        rows: As in :class:`Batch`.
    """

    images: torch.Tensor | None
    heights: npt.NDArray[np.int64]
    widths: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]
    drawn: list[list[list[Any]]]
    targets: torch.Tensor
    rows: torch.Tensor

    def pin_memory(self) -> "DrawnBatch":
        """Return the batch in page-locked memory; torch's loader calls this."""
        images = None if self.images is None else self.images.pin_memory()
        return replace(
            self, images=images, targets=self.targets.pin_memory(), rows=self.rows.pin_memory()
        )


class View(NamedTuple):
    """How one view of an image is made.

    Attributes:
        augment: Transforms that are applied to an image in every epoch.
        normalize: Normalisation of a batch on its device; None if there is none.
    """

    augment: Compose
    normalize: Normalize | None


class ImageSequence(Protocol):
    """Images as the stored head of their transforms leaves them."""

    @property
    def sizes(self) -> npt.NDArray[np.int64] | None:
        """Height and width of each, int64, shape (n, 2); None if they are not known."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> npt.NDArray[np.uint8]: ...


class ImageSource(Protocol):
    """Where a dataset has its images from: a store, or the memory."""

    def load(self, paths: Sequence[Path], prepare: Compose, label: str) -> ImageSequence:
        """Return images after the transforms ``prepare``, which run once per image."""


class ImageDataset(Dataset[Batch | DrawnBatch]):
    """Images with transforms; every sample draws from a random stream of its own.

    A sample's key is (epoch, index): its augmentation depends on (seed, epoch, index) alone, not
    on workers, batch size or earlier random numbers. A sampler that takes an image more than once
    in an epoch counts the times in the epoch (``stream_epoch``).

    Args:
        images: Where decoded images come from.
        paths: The images.
        rows: Row of each image in its table.
        targets: Target of each image, float64, shape (n,), or None.
        transforms: Steps from uint8 RGB to normalised float32. A ``Normalize`` that ends them
            is left to the device: bytes are a quarter of the way there.
        seed: Seed of the random streams.
        n_views: Independently augmented views per image.
        n_local: Further views made by ``local_transforms`` (multi-crop).
        local_transforms: Steps of the further views; the steps that run once per image must equal
            those in ``transforms``.
        label: Name in the progress bar while decoding.

    Attributes:
        views: How each view is made.
        paths: The images' files.
        images: The images as their stored transforms leave them.
        targets: Target of each image, float64, shape (n,); NaN if there is none.
        codes: Encoded target of each image (``Task.codes``), shape (n,); the target itself until a
            training sets it.
        weights: Weight of each image in the loss, float32, shape (n,) or (n, n_labels), which a
            training sets; None for 1 each.
        metric_weights: Weight of each image in the metric, float64, shape (n,), which a training
            sets; None for 1 each.
        classes: Which classes or labels each image has, bool, shape (n, n_classes), for a sampler
            that balances them; None if the targets are no classes.
        drawing: Whether batches are :class:`DrawnBatch`, with the drawn numbers in the place of
            transformed images.
        with_images: Whether those hold the images.
    """

    def __init__(
        self,
        images: ImageSource,
        paths: Sequence[Path],
        rows: npt.NDArray[np.int64],
        targets: npt.NDArray[np.float64] | None,
        transforms: Sequence[Transform],
        seed: int,
        n_views: int = 1,
        n_local: int = 0,
        local_transforms: Sequence[Transform] = (),
        label: str = "decode",
    ) -> None:
        if not paths:
            raise DataError("no images: the table's part is empty")
        prepare, view = _split(transforms)
        self.views = (view,) * n_views
        if n_local:
            local_prepare, local = _split(local_transforms)
            if repr(local_prepare) != repr(prepare):
                raise ConfigError(
                    "local_transforms: begin with other steps that run once per image than "
                    f"transforms ({local_prepare} instead of {prepare})"
                )
            self.views += (local,) * n_local
        self.paths = Paths.of(paths)
        self.images = images.load(self.paths, prepare, label)
        self.rows = rows
        self.targets = np.full(len(paths), np.nan) if targets is None else targets
        self.codes: npt.NDArray[Any] = self.targets
        self.weights: npt.NDArray[np.float32] | None = None
        self.metric_weights: npt.NDArray[np.float64] | None = None
        self.classes: npt.NDArray[np.bool_] | None = None
        self.seed = seed
        self.drawing = False
        self.with_images = True

    def __len__(self) -> int:
        return len(self.images)

    def _stream(self, epoch: int, index: int, view: int) -> np.random.Generator:
        # Philox takes a key as it stands: a stream per sample without hashing a seed first.
        epoch, repeat = of_stream_epoch(epoch)
        key = np.array([self.seed, (epoch << 40) | (view << 32) | index], dtype=np.uint64)
        # The counter of a stream never comes to its last number by itself.
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, repeat]))

    def view(self, epoch: int, index: int, view: int = 0) -> npt.NDArray[Any]:
        """Return one augmented view of one image, shape (H, W, 3), not yet normalised."""
        augment = self.views[view].augment
        image: npt.NDArray[Any] = augment(self.images[index], self._stream(epoch, index, view))
        return image

    def __getitem__(self, key: tuple[int, int]) -> Batch | DrawnBatch:
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch | DrawnBatch:
        """Return a whole batch; called by torch's loader with the keys of one batch.

        There may be none, if a batch has fewer images than there are processes to share it.
        """
        if not keys:
            one = self._made([(0, 0)])
            return Batch(tuple(v[:0] for v in one.views), one.targets[:0], one.rows[:0])
        if self.drawing:
            return self._drawn(keys)
        return self._made(keys)

    def _made(self, keys: Sequence[tuple[int, int]]) -> Batch:
        indices = np.array([index for _, index in keys])
        targets = torch.from_numpy(self.codes[indices])
        rows = torch.from_numpy(self.rows[indices])
        views = []
        for view in range(len(self.views)):
            images = [self.view(epoch, index, view) for epoch, index in keys]
            shapes = {image.shape for image in images}
            if len(shapes) > 1:
                raise DataError(different_sizes(sorted(shapes)))
            # Channels last already: the permuted batch needs no copy.
            views.append(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
        return Batch(tuple(views), targets, rows)

    def _drawn(self, keys: Sequence[tuple[int, int]]) -> DrawnBatch:
        indices = np.array([index for _, index in keys])
        targets = torch.from_numpy(self.codes[indices])
        rows = torch.from_numpy(self.rows[indices])
        images = [self.images[index] for _, index in keys]
        heights, widths = np.array([_size(image) for image in images]).T
        drawn = [
            [
                view.augment.draw(*_size(image), self._stream(epoch, index, number))
                for image, (epoch, index) in zip(images, keys, strict=True)
            ]
            for number, view in enumerate(self.views)
        ]
        canvases = None
        if self.with_images:
            canvases = torch.zeros((len(keys), heights.max(), widths.max(), 3), dtype=torch.uint8)
            for canvas, image in zip(canvases.numpy(), images, strict=True):
                canvas[: image.shape[0], : image.shape[1]] = image
        return DrawnBatch(canvases, heights, widths, indices, drawn, targets, rows)


def different_sizes(shapes: Sequence[Sequence[int]]) -> str:
    """Return the error for views that do not fit into one batch."""
    return (
        f"the transforms leave images of different sizes ({tuple(shapes[0])}, "
        f"{tuple(shapes[1])}); end them with a crop, pad or resize to one size"
    )


def _size(image: npt.NDArray[Any]) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def stored_head(transforms: Sequence[Transform]) -> Compose:
    """Return the transforms that a dataset runs once per image, before it is stored."""
    return _split(transforms)[0]


def check_transforms(transforms: Sequence[Transform]) -> None:
    """Check that a list of transforms ends in the input of a model.

    Raises:
        ConfigError: It is empty, or its last transform is one of the package's and leaves bytes.
    """
    if not isinstance(transforms, Sequence):
        raise ConfigError(f"must be a list of transforms, not {type(transforms).__name__}")
    for k, transform in enumerate(transforms):
        if not callable(transform):
            raise ConfigError(f"item {k} is {transform!r}, not a transform ({{type: NAME, ...}})")
    last = transforms[-1] if transforms else None
    # A transform of a project's own may end in floats without being a Normalize.
    own = type(last).__module__.startswith("foldsmith.")
    if last is None or (own and not isinstance(last, Normalize)):
        ends = "is empty" if last is None else f"ends in {type(last).__name__}"
        raise ConfigError(
            f"the list {ends}; its last transform must turn bytes into numbers, as in "
            '{type: Normalize, mean: "@/dataset/ch_mean_norm", std: "@/dataset/ch_std_norm"}'
        )


def _split(transforms: Sequence[Transform]) -> tuple[Compose, View]:
    """Split transforms into a part that runs once per image and a part that makes a view."""
    steps = list(transforms)
    last = steps[-1] if steps else None
    normalize = last if isinstance(last, Normalize) else None
    prepare, augment = Compose(steps[:-1] if normalize else steps).split()
    return prepare, View(augment, normalize)
