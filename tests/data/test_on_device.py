"""Views made from draws on the device, against views made by the loader."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from foldsmith.data.cache.image_store import ImageStore
from foldsmith.data.datasets import Batch, DrawnBatch, ImageDataset
from foldsmith.data.loader import ImageLoader
from foldsmith.data.on_device import ResidentImages
from foldsmith.data.transforms import (
    ColorJitter,
    HorizontalFlip,
    LongestMaxSize,
    Normalize,
    RandomCrop,
    RandomResizedCrop,
)
from foldsmith.errors import ConfigError, DataError
from foldsmith.utils.hashing import FileHashes

CPU = torch.device("cpu")
HEAD = LongestMaxSize(40)
NORMALIZE = Normalize([0.5, 0.4, 0.3], [0.2, 0.25, 0.3])
TRANSFORMS = [
    HEAD,
    RandomResizedCrop(16, 16, scale=(0.3, 1)),
    ColorJitter(0.3, 0.3, 0, 0, p=0.8),
    HorizontalFlip(p=0.5),
    NORMALIZE,
]
LOCAL = [HEAD, RandomResizedCrop(8, 8, scale=(0.1, 0.3)), HorizontalFlip(p=0.5), NORMALIZE]


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{k}.png" for k in range(9)]
    for k, path in enumerate(paths):
        small = rng.integers(0, 255, (4, 5, 3), np.uint8)
        cv2.imwrite(str(path), cv2.resize(small, (20 + 5 * k, 30), interpolation=cv2.INTER_CUBIC))
    return paths


def dataset(paths, stored=True, **options):
    folder = paths[0].parent / "store" if stored else None
    store = ImageStore(folder, FileHashes((folder or Path("no such folder")) / "hashes.json"))
    options = {"transforms": TRANSFORMS, "seed": 5, "n_views": 2} | options
    targets = np.arange(len(paths), dtype=np.float32)
    return ImageDataset(store, paths, np.arange(len(paths)) + 100, targets, **options)


def epoch_of(loader, epoch):
    loader.set_epoch(epoch)
    return [(batch, loader.on_device.views(batch, CPU)) for batch in loader]


@pytest.mark.parametrize("room", [float("inf"), 0.0], ids=["resident", "sent"])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_device_makes_the_views_that_the_loader_would(paths, room, workers):
    made = ImageLoader(dataset(paths, n_local=3, local_transforms=LOCAL), 4, shuffle=True, seed=1)
    drawn = ImageLoader(
        dataset(paths, n_local=3, local_transforms=LOCAL), 4, workers, shuffle=True, seed=1
    )
    drawn.on_device.augment_here(CPU, room)
    assert drawn.on_device.resident == (room > 0)
    for epoch in (0, 2):
        pairs = zip(epoch_of(made, epoch), epoch_of(drawn, epoch), strict=True)
        for (batch, expected), (raw, found) in pairs:
            assert isinstance(batch, Batch) and isinstance(raw, DrawnBatch)
            assert (raw.images is None) == (room > 0)
            assert torch.equal(batch.targets, raw.targets) and torch.equal(batch.rows, raw.rows)
            assert [tuple(view.shape[1:]) for view in found] == [(3, 16, 16)] * 2 + [(3, 8, 8)] * 3
            for one, other in zip(expected, found, strict=True):
                assert one.dtype == other.dtype == torch.float32
                # One step of 255 is 0.02 of these standard deviations.
                assert (one - other).abs().mean() < 0.02


def test_epochs_differ_on_the_device(paths):
    loader = ImageLoader(dataset(paths), 9)
    loader.on_device.augment_here(CPU, float("inf"))
    ((_, first),), ((_, second),) = epoch_of(loader, 0), epoch_of(loader, 1)
    assert (first[0] - second[0]).abs().mean() > 0.1
    assert (first[0] - first[1]).abs().mean() > 0.1


def test_images_that_are_not_stored_are_sent(paths):
    loader = ImageLoader(dataset(paths, stored=False), 4)
    loader.on_device.augment_here(CPU, float("inf"))
    assert not loader.on_device.resident
    made = epoch_of(ImageLoader(dataset(paths, stored=False), 4), 0)
    for (_, expected), (_, found) in zip(made, epoch_of(loader, 0), strict=True):
        assert (expected[0] - found[0]).abs().mean() < 0.02


def test_resident_images_are_the_stored_ones(paths, monkeypatch):
    monkeypatch.setattr("foldsmith.data.on_device._CHUNK", 5_000)  # two images or so
    # The last one is the smallest: beside it in the memory there is nothing.
    images = dataset(paths[::-1]).images
    resident = ResidentImages(images, images.sizes, CPU)
    chosen = np.array([7, 0, 8, 3, 7])
    pixels = resident.take(chosen)
    for values, height, width, index in zip(
        pixels.values.numpy(), pixels.heights, pixels.widths, chosen, strict=True
    ):
        np.testing.assert_array_equal(values[:height, :width], images[index])


def test_views_of_different_sizes_are_said(paths):
    loader = ImageLoader(dataset(paths, transforms=[RandomCrop(25, 25), NORMALIZE]), 9)
    loader.on_device.augment_here(CPU, float("inf"))
    with pytest.raises(DataError, match="images of different sizes"):
        epoch_of(loader, 0)


def test_local_views_share_what_is_done_once(paths):
    with pytest.raises(ConfigError, match="local_transforms: begin with other steps"):
        dataset(paths, n_local=1, local_transforms=[LongestMaxSize(9), *LOCAL[1:]])
