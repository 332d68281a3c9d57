"""The datasets of a project: its labelled images, the images to predict, and all of them."""

from typing import Literal

import numpy as np

from foldsmith.data.cache.image_store import ImageStore
from foldsmith.data.datasets import ImageDataset
from foldsmith.data.transforms.base import Transform
from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import (
    FOLD_COLUMN,
    image_paths,
    read_folds,
    read_test,
    read_train,
    readable_test,
    targets_of,
)


def labelled_images(
    project: ProjectFolder,
    images: ImageStore,
    part: Literal["train", "val"],
    transforms: list[Transform],
    seed: int,
    meta_file: str | None = None,
    val_fold: int | None = None,
) -> ImageDataset:
    """Labelled images: those of one fold (``val``) or of all others (``train``).

    Args:
        project: The project.
        images: Store of decoded images.
        part: ``train`` or ``val``.
        transforms: Transforms.
        seed: Seed of the augmentations.
        meta_file: Table with the column ``fold``; the project's own if None.
        val_fold: The validation fold. None: ``train`` is every labelled image.
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
    paths = image_paths(project, chosen)
    dataset = ImageDataset(images, paths, rows, targets, transforms, seed, label=f"decode {part}")
    dataset.classes = project.form.classes(targets)
    return dataset


def test_images(
    project: ProjectFolder, images: ImageStore, transforms: list[Transform], seed: int = 0
) -> ImageDataset:
    """The images to predict, in the order of the test table, without unreadable ones.

    Args:
        project: The project.
        images: Store of decoded images.
        transforms: Transforms.
        seed: Seed of the transforms, should one be random.
    """
    table = read_test(project)
    rows = readable_test(project, table)
    paths = image_paths(project, table.iloc[rows])
    return ImageDataset(images, paths, rows, None, transforms, seed, label="decode test")


def all_images(
    project: ProjectFolder,
    images: ImageStore,
    transforms: list[Transform],
    seed: int,
    n_views: int = 2,
    n_local: int = 0,
    local_transforms: list[Transform] | None = None,
    most: int | None = None,
) -> ImageDataset:
    """Every image, labelled or not, without its label: for learning without labels.

    Args:
        project: The project.
        images: Store of decoded images.
        transforms: Transforms of the views.
        seed: Seed of the augmentations.
        n_views: Views per image.
        n_local: Further views, by ``local_transforms``: the small crops of DINO.
        local_transforms: Transforms of the further views.
        most: Largest number of images. If there are more, this many are taken, evenly spaced in
            the order of the tables.
    """
    test = read_test(project)
    readable = test.iloc[readable_test(project, test)]
    paths = image_paths(project, read_train(project)) + image_paths(project, readable)
    rows = np.arange(len(paths))
    if most is not None and most < len(rows):
        rows = np.arange(most) * len(rows) // most
    return ImageDataset(
        *(images, paths.take(rows), rows, None, transforms, seed, n_views, n_local),
        local_transforms=local_transforms or (),
    )
