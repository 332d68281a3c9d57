"""Transforms in batches on a card are those of single images on the CPU."""

import numpy as np
import pytest
import torch
from transform_cases import CASES, SIZES, assert_alike, both, noise_image

from foldsmith.data.cache.image_store import ImageStore
from foldsmith.data.datasets import ImageDataset
from foldsmith.data.loader import ImageLoader
from foldsmith.data.transforms import ColorJitter, HorizontalFlip, Normalize, RandomResizedCrop
from foldsmith.utils.hashing import FileHashes

pytestmark = pytest.mark.cuda

SEEDS = 2


@pytest.mark.parametrize(
    ("step", "tolerance"), CASES, ids=[f"{k}-{type(c[0]).__name__}" for k, c in enumerate(CASES)]
)
def test_a_batch_on_the_card_is_what_each_image_becomes(step, tolerance, device):
    assert assert_alike(step, tolerance, SEEDS, device) > 0


def test_a_batch_is_the_same_on_the_card_and_on_the_cpu(device):
    images = [noise_image(*size, seed) for seed, size in enumerate(SIZES)]
    for step, _ in CASES:
        for ours, theirs in zip(
            both(step, images, 1, device)[1], both(step, images, 1)[1], strict=True
        ):
            off = np.abs(ours.astype(int) - theirs.astype(int))
            # A rounding that falls the other way; in hue a step of one 256th of the circle.
            assert np.quantile(off, 0.99) <= 1 and off.mean() < 0.05, step


@pytest.fixture
def loader_of(write_images, tmp_path):
    paths = write_images(12, 40, 52)

    def make(workers=0):
        store = ImageStore(tmp_path / "store", FileHashes(tmp_path / "h" / "h.json"))
        steps = [
            RandomResizedCrop(32, 32),
            ColorJitter(0.3, 0.3, 0, 0, p=0.8),
            HorizontalFlip(),
            Normalize([0.5] * 3, [0.2] * 3),
        ]
        targets = np.arange(12.0)
        data = ImageDataset(store, paths, np.arange(12), targets, steps, seed=0, n_views=2)
        return ImageLoader(data, 5, num_workers=workers, shuffle=True)

    return make


def views_of(loader, runtime, epochs=2):
    """Return all views of some epochs, brought to the device as a training does."""
    loader.serve(runtime.device)
    found = []
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        for raw in loader:
            batch = runtime.transfer(raw, loader.on_device)
            found += [view.float().cpu() for view in batch.views]
    return found


@pytest.mark.parametrize("workers", [0, 1])
def test_resident_images_give_what_streamed_ones_give(loader_of, runtime_of, workers):
    runtime = runtime_of()
    on_cpu = views_of(loader_of(workers), runtime)
    resident, streamed = loader_of(workers), loader_of(workers)
    resident.on_device.augment_here(runtime.device, float("inf"))
    streamed.on_device.augment_here(runtime.device, 0)
    runtime.wait()
    assert resident.on_device.resident and not streamed.on_device.resident
    first, second = views_of(resident, runtime), views_of(streamed, runtime)
    assert len(first) == len(second) == len(on_cpu) == 12
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for made, expected in zip(first, on_cpu, strict=True):
        # Bytes that were rounded the other way, over the standard deviation.
        off = (made - expected).abs() * 0.2 * 255
        assert off.mean() < 0.6 and off.flatten().quantile(0.99) < 6.5
