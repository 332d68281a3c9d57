"""Batches on a device against single images: the same draws, the same pixels."""

import numpy as np
import pytest
from transform_cases import CASES, SIZES, assert_alike, both, noise_image

from foldsmith.data import transforms as t
from foldsmith.steps.registry import TRANSFORMS


@pytest.mark.parametrize(
    ("step", "tolerance"), CASES, ids=[f"{k}-{type(c[0]).__name__}" for k, c in enumerate(CASES)]
)
def test_a_batch_is_what_each_image_alone_becomes(step, tolerance):
    assert assert_alike(step, tolerance, seeds=6) > 6


def test_every_transform_with_a_version_for_batches_is_compared():
    compared = {type(step).__name__ for step, _ in CASES}
    assert compared == {name for name in TRANSFORMS if name not in ("Normalize", *NOT_BATCHED)}


# Stored once per image (before any batch), but for Normalize, which ends the transforms.
NOT_BATCHED = ("LongestMaxSize", "SmallestMaxSize", "CenterCrop")


def test_what_has_no_version_for_batches_is_named():
    steps = [
        t.LongestMaxSize(9),
        t.CenterCrop(3, 3),
        t.Resize(9, 9, "area"),
        t.RandomResizedCrop(9, 9, interpolation="cubic"),
        t.ShiftScaleRotate(interpolation="area"),
        t.PadIfNeeded(9, 9, border="constant", value=3),
        t.OneOf([t.ToGray(), t.Resize(9, 9, "cubic")]),
        t.HorizontalFlip(),
    ]
    assert t.Compose(steps).not_batched == [type(step).__name__ for step in steps[:-1]]
    assert t.Compose([step for step, _ in CASES]).not_batched == []


def test_a_whole_pipeline_draws_the_same_numbers():
    steps = t.Compose(
        [
            t.HorizontalFlip(),
            t.Transpose(),
            t.RandomCrop(40, 40, p=0.5),
            t.PadIfNeeded(64, 64, border="reflect"),
            t.RandomErase((0.1, 0.2)),
            t.RandomGridShuffle((2, 2)),
            t.RandomResizedCrop(24, 24, scale=(0.3, 1)),
            t.ColorJitter(0.4, 0.4, 0.4, 0.1),
            t.GaussianBlur(),
        ]
    )
    images = [noise_image(*size, seed) for seed, size in enumerate(SIZES)]
    single, batch, _ = both(steps, images, 3)
    off = np.abs(np.stack(single).astype(int) - np.stack(batch).astype(int))
    assert off.mean() < 1.0
    # Another draw is another picture: the comparison would notice.
    other = np.stack(both(steps, images, 4)[1]).astype(int)
    assert np.abs(np.stack(single).astype(int) - other).mean() > 10


@pytest.mark.parametrize("threshold", [0, 256])
def test_the_ends_of_solarize(threshold):
    images = [noise_image(*size, seed) for seed, size in enumerate(SIZES)]
    single, batch, _ = both(t.Solarize(threshold, p=1), images)
    for image, expected, found in zip(images, single, batch, strict=True):
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(expected, image if threshold else 255 - image)


def test_a_transform_of_ones_own_is_not_sent_through_its_parents_batches():
    class Twice(t.HorizontalFlip):
        def change(self, image, drawn):
            return image // 2

    class Sharper(t.Resize):
        def apply(self, image, drawn):
            return super().apply(image, drawn) // 2

    class Same(t.HorizontalFlip):
        pass

    assert not Twice().batched and not Sharper(4, 4).batched
    assert Same().batched
