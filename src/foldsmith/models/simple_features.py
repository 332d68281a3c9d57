"""Features for simple baselines: what a script of a few lines would compute from an image."""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import torch

from foldsmith.models.shape_descriptors import gradient_histograms

Images = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float32]

# Side of the images that the features are computed from, in pixels.
SIDE = 64

_PIXELS = 16
_FIELDS = 4
# Bins of hue, saturation and brightness, and the end of each range in OpenCV's 8-bit HSV.
_HSV_BINS, _HSV_ENDS = [8, 4, 4], [0, 180, 0, 256, 0, 256]
_CELLS = 6


def small_copy(image: Images) -> Images:
    """Return an image as a square of :data:`SIDE` px, whatever its proportions."""
    smaller = min(image.shape[:2]) > SIDE
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return cv2.resize(image, (SIDE, SIDE), interpolation=how).astype(np.uint8, copy=False)


def pixels(images: Images) -> Features:
    """Return the colours of 16 x 16 pixels, 0..1, (n, 768) of uint8 RGB (n, 64, 64, 3)."""
    means: Features = _fields(images, _PIXELS).mean(axis=(2, 4)).reshape(len(images), -1)
    return means


def colour_layout(images: Images) -> Features:
    """Return mean and standard deviation of each colour in 4 x 4 fields, (n, 96)."""
    fields = _fields(images, _FIELDS)
    moments = [fields.mean(axis=(2, 4)), fields.std(axis=(2, 4))]
    layout: Features = np.stack(moments, axis=-1).reshape(len(images), -1)
    return layout


def colour_histogram(images: Images) -> Features:
    """Return the square roots of the shares of 8 x 4 x 4 colours of HSV, (n, 128)."""
    found = np.empty((len(images), int(np.prod(_HSV_BINS))), np.float32)
    for k, image in enumerate(images):
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        counts = cv2.calcHist([hsv], [0, 1, 2], None, _HSV_BINS, _HSV_ENDS)
        found[k] = np.sqrt(counts.ravel() / (SIDE * SIDE))
    return found


def shapes(images: Images) -> Features:
    """Return histograms of oriented gradients of 6 x 6 cells, (n, 900)."""
    found = [
        gradient_histograms(torch.from_numpy(batch).permute(0, 3, 1, 2) / 255, _CELLS).numpy()
        for batch in np.array_split(images, -(-len(images) // 256))
    ]
    return np.concatenate(found)


# Name -> from uint8 RGB, shape (n, SIDE, SIDE, 3), to float32, shape (n, n_features).
SIMPLE_FEATURES: dict[str, Callable[[Images], Features]] = {
    "pixels": pixels,
    "colour histogram": colour_histogram,
    "colour layout": colour_layout,
    "HOG": shapes,
}


def _fields(images: Images, n: int) -> Features:
    """Return images in 0..1 as (n_images, n, rows, n, columns, 3)."""
    each = SIDE // n
    return images.reshape(len(images), n, each, n, each, 3).astype(np.float32) / np.float32(255)
