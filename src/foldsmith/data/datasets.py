"""Datasets: which photos, which views of them, which targets."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from foldsmith.config import Project, Types
from foldsmith.data.store import PhotoStore
from foldsmith.data.tables import (
    FOLD_COLUMN,
    photo_paths,
    read_folds,
    read_test,
    read_train,
    readable_test,
    targets_of,
)
from foldsmith.data.transforms import Compose, Normalize, Transform
from foldsmith.errors import DataError


class Batch(NamedTuple):
    """What a loader yields.

    Attributes:
        views: One tensor per view, shape (n, 3, H, W), channels_last; uint8 if the dataset's
            normalisation is left to the device, else what the transforms give.
        targets: float32, shape (n,); NaN where there is none.
        rows: Row of each photo in its table, int64, shape (n,).
    """

    views: tuple[torch.Tensor, ...]
    targets: torch.Tensor
    rows: torch.Tensor


class PhotoDataset(Dataset[Batch]):
    """Photos with transforms; every sample draws from a random stream of its own.

    A sample's key is (epoch, index): its augmentation depends on (seed, epoch, index) alone,
    not on workers, batch size or what was drawn before.

    Args:
        images: Store of decoded photos.
        paths: The photos.
        rows: Row of each photo in its table.
        targets: Target of each photo, or None.
        transforms: Steps from uint8 RGB to normalised float32. A ``Normalize`` that ends them
            is left to the device: bytes are a quarter of the way there.
        seed: Seed of the random streams.
        n_views: Independently augmented views per photo.
        label: Name in the progress bar while decoding.

    Attributes:
        augment: What is done to a photo each time.
        normalize: What is left to do to a batch on its device; None if nothing is.
    """

    def __init__(
        self,
        images: PhotoStore,
        paths: Sequence[Path],
        rows: npt.NDArray[np.int64],
        targets: npt.NDArray[np.float32] | None,
        transforms: Sequence[Transform],
        seed: int,
        n_views: int = 1,
        label: str = "decode",
    ) -> None:
        if not paths:
            raise DataError("no photos: the table's part is empty")
        steps = list(transforms)
        last = steps.pop() if steps and isinstance(steps[-1], Normalize) else None
        self.normalize = last if isinstance(last, Normalize) else None
        prepare, self.augment = Compose(steps).split()
        self.photos = images.load(paths, prepare, label)
        self.rows = rows
        self.targets = np.full(len(paths), np.nan, np.float32) if targets is None else targets
        self.seed = seed
        self.n_views = n_views

    def __len__(self) -> int:
        return len(self.photos)

    def view(self, epoch: int, index: int, view: int = 0) -> npt.NDArray[Any]:
        """Return one augmented view of one photo, shape (H, W, 3), not yet normalised."""
        # Philox takes a key as it stands: a stream per sample without hashing a seed first.
        key = np.array([self.seed, (epoch << 40) | (view << 32) | index], dtype=np.uint64)
        rng = np.random.Generator(np.random.Philox(key=key))
        image: npt.NDArray[Any] = self.augment(self.photos[index], rng)
        return image

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """Return a whole batch; called by torch's loader with the keys of one batch."""
        indices = np.array([index for _, index in keys])
        views = []
        for view in range(self.n_views):
            images = [self.view(epoch, index, view) for epoch, index in keys]
            shapes = {image.shape for image in images}
            if len(shapes) > 1:
                raise DataError(
                    f"the transforms leave photos of different sizes ({sorted(shapes)[0]}, "
                    f"{sorted(shapes)[1]}); end them with a crop, pad or resize to one size"
                )
            # Channels last already: the permuted batch needs no copy.
            views.append(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
        return Batch(
            tuple(views),
            torch.from_numpy(self.targets[indices]),
            torch.from_numpy(self.rows[indices]),
        )


def labelled_photos(
    project: Project,
    images: PhotoStore,
    part: Literal["train", "val"],
    transforms: list[Transform],
    seed: int,
    meta_file: str | None = None,
    val_fold: int | None = None,
) -> PhotoDataset:
    """Labelled photos: those of one fold (``val``) or of all others (``train``).

    Args:
        project: The project.
        images: Store of decoded photos.
        part: ``train`` or ``val``.
        transforms: Transforms.
        seed: Seed of the augmentations.
        meta_file: Table with the column ``fold``; the project's own if None.
        val_fold: The validation fold. None: ``train`` is every labelled photo.
    """
    if part not in ("train", "val"):
        raise DataError(f"part: {part!r} is neither train nor val")
    if val_fold is None:
        if part == "val":
            raise DataError("part val needs globals/val_fold")
        table = read_train(project)
        rows = np.arange(len(table))
    else:
        table = read_folds(project, meta_file)
        in_fold = table[FOLD_COLUMN].to_numpy() == val_fold
        rows = np.flatnonzero(in_fold if part == "val" else ~in_fold)
    chosen = table.iloc[rows]
    targets = targets_of(project, chosen)
    paths = photo_paths(project, chosen)
    return PhotoDataset(images, paths, rows, targets, transforms, seed, label=f"decode {part}")


def test_photos(
    project: Project, images: PhotoStore, transforms: list[Transform], seed: int = 0
) -> PhotoDataset:
    """The photos to predict, in the order of the test table, less those that are unreadable."""
    table = read_test(project)
    rows = readable_test(project, table)
    paths = photo_paths(project, table.iloc[rows])
    return PhotoDataset(images, paths, rows, None, transforms, seed, label="decode test")


def all_photos(
    project: Project,
    images: PhotoStore,
    transforms: list[Transform],
    seed: int,
    n_views: int = 2,
) -> PhotoDataset:
    """Every photo, labelled or not, without its label: for self-supervised pretraining."""
    test = read_test(project)
    readable = test.iloc[readable_test(project, test)]
    paths = photo_paths(project, read_train(project)) + photo_paths(project, readable)
    rows = np.arange(len(paths))
    return PhotoDataset(images, paths, rows, None, transforms, seed, n_views, label="decode")


TYPES: Types = {
    "LabelledPhotos": labelled_photos,
    "TestPhotos": test_photos,
    "AllPhotos": all_photos,
}
