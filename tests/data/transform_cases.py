"""Batches on a device against single images on the CPU: the cases, and how far they may differ."""

import numpy as np
import torch

from foldsmith.data import transforms as t
from foldsmith.data.transforms.pixels import Pixels

# Sizes that have nothing in common, one of them a single pixel.
SIZES = [(48, 64), (64, 48), (31, 31), (1, 1), (50, 7), (48, 64)]

# 8-bit steps within an OpenCV function: largest mean difference, and that of 99 % of the values.
EXACT, ROUNDED, STEPPED = (0.0, 0), (0.6, 1), (1.5, 6)
# OpenCV's 8-bit hue and saturation, which later changes of the contrast enlarge.
HUE = (1.5, 12)

CASES = [
    (t.Resize(20, 30), ROUNDED),
    (t.Resize(80, 30, "nearest"), EXACT),
    (t.PadIfNeeded(80, 90, border="wrap"), EXACT),
    (t.PadIfNeeded(80, 60, border="reflect"), EXACT),
    (t.PadIfNeeded(80, 60, border="replicate"), EXACT),
    (t.PadIfNeeded(30, 80, border="constant"), EXACT),
    (t.RandomResizedCrop(32, 40, scale=(0.2, 1.0)), ROUNDED),
    (t.RandomResizedCrop(32, 40, p=0.5), ROUNDED),
    (t.RandomResizedCrop(32, 40, interpolation="nearest"), EXACT),
    (t.RandomCrop(20, 20, p=0.7), EXACT),
    (t.HorizontalFlip(p=0.5), EXACT),
    (t.VerticalFlip(p=0.5), EXACT),
    (t.Transpose(p=0.5), EXACT),
    (t.Rotate(30, p=0.7), STEPPED),
    (t.ShiftScaleRotate(0.2, 0.2, 20, border="constant", p=0.7), STEPPED),
    (t.ShiftScaleRotate(0.2, 0.2, 20, border="reflect", p=0.7), STEPPED),
    (t.ShiftScaleRotate(0.2, 0.2, 20, border="wrap", p=0.7), STEPPED),
    (t.ShiftScaleRotate(0.2, 0.2, 20, border="replicate", interpolation="nearest"), STEPPED),
    (t.RandomGridShuffle((4, 3), p=0.7), EXACT),
    (t.ColorJitter(0.4, 0.4, 0.4, 0.0, p=0.8), HUE),
    (t.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8), HUE),
    (t.RandomBrightnessContrast(0.3, 0.3, p=0.8), ROUNDED),
    (t.ToGray(p=0.5), ROUNDED),
    (t.GaussianBlur((0.1, 2.0), p=0.5), ROUNDED),
    (t.GaussianBlur((0.5, 3.0), 7, p=1), ROUNDED),
    (t.Solarize(100, p=0.5), EXACT),
    (t.RandomErase((0.1, 0.4), fill=7, p=0.8), EXACT),
    (t.CoarseDropout(6, 0.3, 12, min_holes=1, min_width=3, fill=9, p=0.8), EXACT),
    (t.OneOf([t.ToGray(p=0.5), t.Transpose(p=1), t.Resize(9, 11)], p=0.8), ROUNDED),
]


def noise_image(height, width, seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / rng.uniform(3, 9) + y / rng.uniform(3, 9) + k) for k in range(3)]
    return np.clip(128 + 110 * np.stack(waves, axis=-1), 0, 255).astype(np.uint8)


def on_canvas(images, device="cpu"):
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    # What lies beside an image must never be seen.
    values = np.full((len(images), height, width, 3), 77, np.uint8)
    for canvas, image in zip(values, images, strict=True):
        canvas[: image.shape[0], : image.shape[1]] = image
    sizes = np.array([image.shape[:2] for image in images])
    return Pixels(torch.from_numpy(values).to(device), sizes[:, 0], sizes[:, 1])


def both(step, images, seed=0, device="cpu"):
    """Return what a step makes of images one by one, and of the batch, as lists."""
    single = [step(image, np.random.default_rng([seed, k])) for k, image in enumerate(images)]
    drawn = [
        step.draw(*image.shape[:2], np.random.default_rng([seed, k]))
        for k, image in enumerate(images)
    ]
    pixels = step.apply_batch(on_canvas(images, device), drawn)
    batch = [
        values[:height, :width].cpu().numpy()
        for values, height, width in zip(pixels.values, pixels.heights, pixels.widths, strict=True)
    ]
    return single, batch, drawn


def assert_alike(step, tolerance, seeds, device="cpu"):
    """Compare a batch on a device with each image alone on the CPU."""
    mean, most = tolerance
    images = [noise_image(*size, seed) for seed, size in enumerate(SIZES)]
    changed = 0
    for seed in range(seeds):
        single, batch, drawn = both(step, images, seed, device)
        for image, expected, found, what in zip(images, single, batch, drawn, strict=True):
            assert found.shape == expected.shape
            assert step.size_after(*image.shape[:2], what) == expected.shape[:2]
            off = np.abs(expected.astype(int) - found.astype(int))
            assert off.mean() <= mean
            assert np.quantile(off, 0.99) <= most
            changed += not np.array_equal(expected, image)
    return changed
