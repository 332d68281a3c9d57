"""The labelled images as a probe sees them."""

import numpy as np

from foldsmith.data.cache.image_store import ImageStore
from foldsmith.data.datasets import ImageDataset
from foldsmith.data.transforms.base import Transform
from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import image_paths, read_folds, targets_of


def probe_images(
    project: ProjectFolder,
    images: ImageStore,
    transforms: list[Transform],
    meta_file: str | None = None,
) -> ImageDataset:
    """Every labelled image, in the order of the fold table.

    Args:
        project: The project.
        images: Store of decoded images.
        transforms: Transforms of evaluation.
        meta_file: Table with the column ``fold``; the project's own if None.

    Raises:
        DataError: There is no fold table, or it is wrong.
    """
    try:
        table = read_folds(project, meta_file)
    except DataError as error:
        raise DataError(
            f"{error} (a probe is scored on the project's folds; probe=null leaves it out)"
        ) from None
    return ImageDataset(
        images,
        image_paths(project, table),
        np.arange(len(table)),
        targets_of(project, table),
        transforms,
        seed=0,
        label="decode probe",
    )
