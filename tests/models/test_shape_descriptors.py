"""Histograms of gradients of images whose gradients are known."""

import cv2
import numpy as np
import pytest
import torch

from foldsmith.errors import ConfigError
from foldsmith.models.resizing import resized
from foldsmith.models.shape_descriptors import ShapeDescriptors, gradient_histograms


@pytest.fixture
def images():
    """Smooth coloured noise, float32 in 0..1, shape (4, 3, 64, 64)."""
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 255, (4, 64, 64, 3)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(image, (0, 0), 2) for image in noise])
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return torch.from_numpy(smooth).permute(0, 3, 1, 2).contiguous()


def in_blocks(histograms, cells=8):
    """Return histograms as (n, rows, columns, 2, 2, 9)."""
    return histograms.reshape(-1, cells - 1, cells - 1, 2, 2, 9)


def reference(image, cells):
    """Return the histograms of one image of 8 px per cell, pixel by pixel as in the paper."""
    _, height, width = image.shape
    edged = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
    votes = np.zeros((cells, cells, 9))
    for y in range(height):
        for x in range(width):
            across = edged[:, y + 1, x + 2] - edged[:, y + 1, x]
            down = edged[:, y + 2, x + 1] - edged[:, y, x + 1]
            k = int(np.argmax(across**2 + down**2))
            strength = np.hypot(across[k], down[k])
            place = np.degrees(np.arctan2(down[k], across[k])) % 180 / 20 - 0.5
            for bin_ in (int(np.floor(place)), int(np.floor(place)) + 1):
                for row in range(cells):
                    for column in range(cells):
                        shares = [
                            max(0.0, 1 - abs(place - bin_)),
                            max(0.0, 1 - abs(y + 0.5 - (row * 8 + 4)) / 8),
                            max(0.0, 1 - abs(x + 0.5 - (column * 8 + 4)) / 8),
                        ]
                        votes[row, column, bin_ % 9] += strength * np.prod(shares)
    found = []
    for row in range(cells - 1):
        for column in range(cells - 1):
            block = votes[row : row + 2, column : column + 2].ravel()
            block = np.minimum(block / np.sqrt((block**2).sum() + 1e-4), 0.2)
            found.append(block / np.sqrt((block**2).sum() + 1e-4))
    return np.concatenate(found)


def test_the_histograms_are_those_of_the_paper(images):
    small = images[:2, :, :24, :24]
    wanted = np.stack([reference(image, 3) for image in small.numpy().astype(np.float64)])
    np.testing.assert_allclose(gradient_histograms(small, 3).numpy(), wanted, atol=1e-4)


def test_an_edge_has_one_direction():
    image = torch.zeros(1, 1, 64, 64)
    image[..., 32:] = 1
    blocks = in_blocks(gradient_histograms(image))[0]
    # A gradient straight across lies between the last bin and the first.
    assert blocks[:, 3, ..., [0, 8]].min() > 0.3
    assert blocks[..., 1:8].abs().max() < 1e-6
    assert blocks[:, [0, 1, 5, 6]].abs().max() < 1e-6
    down = in_blocks(gradient_histograms(image.transpose(2, 3)))[0]
    assert down[3, ..., 4].min() > 0.3
    assert down[..., [0, 1, 2, 3, 5, 6, 7, 8]].abs().max() < 1e-3


def test_mirroring_exchanges_cells_and_directions(images):
    blocks = in_blocks(gradient_histograms(images))
    mirrored = in_blocks(gradient_histograms(images.flip(3)))
    torch.testing.assert_close(mirrored, blocks.flip(2).flip(4).flip(5), atol=1e-5, rtol=1e-4)


def test_contrast_hardly_matters(images):
    full, half = gradient_histograms(images), gradient_histograms(images / 2 + 0.3)
    torch.testing.assert_close(full, half, atol=5e-3, rtol=0)


@pytest.mark.parametrize("shape", [(3, 48, 96), (1, 8, 8), (3, 200, 150)])
def test_every_size_of_image_has_as_many_numbers(shape):
    found = gradient_histograms(torch.rand(2, *shape))
    assert found.shape == (2, 1764)
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    assert gradient_histograms(torch.zeros(1, *shape)).abs().max() == 0


def test_mixed_precision_changes_nothing(images):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = gradient_histograms(images)
    torch.testing.assert_close(mixed, gradient_histograms(images), atol=0, rtol=0)


@pytest.mark.parametrize("side", [8, 48, 80])
def test_images_are_resized_as_torch_does(images, side):
    cropped = images[:, :, :40]
    wanted = torch.nn.functional.interpolate(cropped, (side, side), mode="bilinear", antialias=True)
    torch.testing.assert_close(resized(cropped, side, side), wanted, atol=1e-5, rtol=0)


def test_descriptors_are_histograms_and_the_pixels_of_a_small_image(images):
    found = ShapeDescriptors(cells=4, pixels=5)(images)
    histograms, pixels = found.split([324, 75], dim=1)
    torch.testing.assert_close(histograms, gradient_histograms(images, 4), atol=0, rtol=0)
    torch.testing.assert_close(pixels.reshape(4, 3, 5, 5), resized(images, 5, 5), atol=0, rtol=0)
    assert ShapeDescriptors()(images).shape == (4, 1092)


@pytest.mark.parametrize("arguments", [{"cells": 1}, {"pixels": 0}])
def test_too_few_cells_or_pixels_are_refused(arguments):
    with pytest.raises(ConfigError, match="cells must be at least 2, and pixels at least 1"):
        ShapeDescriptors(**arguments)
