"""A contact sheet of real images and their augmentations."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from foldsmith.data.datasets import ImageDataset, View
from foldsmith.data.images import decode
from foldsmith.data.intensity import IntensityRange
from foldsmith.data.transforms.base import Compose
from foldsmith.data.transforms.normalize import Normalize

GAP = 4


def contact_sheet(
    dataset: ImageDataset,
    intensity: IntensityRange | None = None,
    n_images: int = 8,
    n_samples: int = 7,
    cell: int = 128,
) -> npt.NDArray[np.uint8]:
    """Draw a row per image: the image as it is on disk, then augmented samples of it.

    The samples are those of successive epochs, without the normalisation.

    Args:
        dataset: Images and transforms.
        intensity: Scale of images with more than 8 bits per channel.
        n_images: Rows, spread evenly over the dataset.
        n_samples: Samples per image.
        cell: Side of a cell in px.

    Returns:
        RGB, uint8.
    """
    # One that ends the transforms is left to the device; another may stand in their midst.
    steps = [
        step for step in dataset.views[0].augment.transforms if not isinstance(step, Normalize)
    ]
    views, dataset.views = dataset.views, (View(Compose(steps), None),)
    try:
        chosen = np.linspace(0, len(dataset) - 1, min(n_images, len(dataset))).astype(int)
        rows = [
            [
                decode(dataset.paths[k], intensity),
                *(dataset.view(e, int(k)) for e in range(n_samples)),
            ]
            for k in chosen
        ]
    finally:
        dataset.views = views
    side = cell + GAP
    sheet = np.full((len(rows) * side + GAP, (n_samples + 1) * side + GAP, 3), 255, np.uint8)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            fitted = _fit(image, cell)
            height, width = fitted.shape[:2]
            top = GAP + r * side + (cell - height) // 2
            left = GAP + c * side + (cell - width) // 2
            sheet[top : top + height, left : left + width] = fitted
    return sheet


def _fit(image: npt.NDArray[Any], cell: int) -> npt.NDArray[Any]:
    scale = cell / max(image.shape[:2])
    size = [max(1, round(length * scale)) for length in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
