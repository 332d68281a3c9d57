import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchvision.transforms.v2 import functional as tv

from foldsmith.data import transforms as t
from foldsmith.data.transforms import colour
from foldsmith.steps.registry import TRANSFORMS

RNG = np.random.default_rng(0)


def noise_image(height=48, width=64, seed=0):
    """A smooth picture with noise, so that resampling has something to keep."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (6, 8, 3), np.uint8)
    large = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).astype(int)
    return np.clip(large + rng.integers(-8, 9, large.shape), 0, 255).astype(np.uint8)


def tensor(image):
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)


def array(image):
    return image.permute(1, 2, 0).numpy()


def difference(ours, theirs):
    return np.abs(ours.astype(int) - theirs.astype(int))


EVERY = [
    t.Resize(20, 30),
    t.Resize(20, 30, crop_pct=0.8),
    t.LongestMaxSize(20),
    t.SmallestMaxSize(20),
    t.PadIfNeeded(80, 80, border="wrap"),
    t.CenterCrop(20, 20),
    t.RandomResizedCrop(32, 32),
    t.RandomCrop(20, 20),
    t.HorizontalFlip(p=1),
    t.VerticalFlip(p=1),
    t.Transpose(p=1),
    t.Rotate(30, p=1),
    t.ShiftScaleRotate(0.2, 0.2, 20, p=1),
    t.RandomGridShuffle((4, 4), p=1),
    t.ColorJitter(0.4, 0.4, 0.4, 0.1, p=1),
    t.ToGray(p=1),
    t.GaussianBlur(p=1),
    t.Solarize(p=1),
    t.RandomBrightnessContrast(p=1),
    t.CoarseDropout(p=1),
    t.RandomErase(p=1),
    t.OneOf([t.ToGray(p=1), t.Solarize(p=1)], p=1),
    t.Normalize([0.5] * 3, [0.2] * 3),
]
IDS = [type(step).__name__ for step in EVERY]


@pytest.mark.parametrize("step", EVERY, ids=IDS)
def test_the_input_stays_and_the_generator_decides(step):
    image = noise_image()
    image.flags.writeable = False  # as a shared store would be
    before = image.copy()
    first = step(image, np.random.default_rng(7))
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(first, step(image, np.random.default_rng(7)))
    assert first.dtype == (np.float32 if isinstance(step, t.Normalize) else np.uint8)
    assert first.ndim == 3 and first.shape[2] == 3


@pytest.mark.parametrize("step", EVERY, ids=IDS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (7, 200)])
def test_odd_sizes_work(step, shape):
    image = np.full((*shape, 3), 100, np.uint8)
    for seed in range(3):
        result = step(image, np.random.default_rng(seed))
        assert min(result.shape[:2]) >= 1


def test_every_registered_transform_is_tested():
    assert set(IDS) == set(TRANSFORMS)


@pytest.mark.parametrize("step", [s for s in EVERY if not s.stored], ids=lambda s: type(s).__name__)
def test_what_is_not_stored_varies(step):
    always = (
        *(t.HorizontalFlip, t.VerticalFlip, t.Transpose, t.ToGray, t.Solarize, t.Normalize),
        t.PadIfNeeded,
    )
    outcomes = {step(noise_image(), np.random.default_rng(seed)).tobytes() for seed in range(8)}
    assert (len(outcomes) == 1) == isinstance(step, always)


# Deterministic parts against torchvision.


@pytest.mark.parametrize("size", [(24, 32), (96, 128), (50, 61)])
def test_linear_resize(size):
    ours = t.Resize(*size)(noise_image(), RNG)
    theirs = array(tv.resize(tensor(noise_image()), list(size), antialias=False))
    assert difference(ours, theirs).max() <= 1


@pytest.mark.parametrize(
    ("side", "resized"), [(32, 36), (64, 72), (96, 108), (128, 144), (224, 252)]
)
def test_a_crop_from_a_resized_image_is_the_given_share(side, resized):
    image = noise_image()
    step = t.Resize(side, side, "area", crop_pct=0.889)
    np.testing.assert_array_equal(step(image, RNG), t.Resize(resized, resized, "area")(image, RNG))
    assert step.size_after(*image.shape[:2], ()) == (resized, resized)


def test_area_shrinking_keeps_the_mean_and_the_aspect():
    image = noise_image(96, 128)
    small = t.LongestMaxSize(32)(image, RNG)
    assert small.shape == (24, 32, 3)
    theirs = image.reshape(24, 4, 32, 4, 3).mean(axis=(1, 3))
    assert difference(small, np.rint(theirs)).max() <= 1
    assert t.LongestMaxSize(200)(image, RNG) is image


@pytest.mark.parametrize(
    ("border", "mode"), [("constant", "constant"), ("reflect", "reflect"), ("replicate", "edge")]
)
def test_padding(border, mode):
    ours = t.PadIfNeeded(61, 80, border=border)(noise_image(), RNG)
    theirs = array(tv.pad(tensor(noise_image()), [8, 6, 8, 7], padding_mode=mode))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("shape", [(35, 224), (224, 35), (1, 1), (161, 224)])
def test_wrapping_repeats_the_image(shape):
    image = noise_image(*shape)
    padded = t.PadIfNeeded(224, 224, border="wrap")(image, RNG)
    assert padded.shape == (224, 224, 3)
    top, left = (224 - shape[0]) // 2, (224 - shape[1]) // 2
    y, x = (np.arange(224) - top) % shape[0], (np.arange(224) - left) % shape[1]
    np.testing.assert_array_equal(padded, image[np.ix_(y, x)])


def test_flips_and_centre_crop():
    image = noise_image(47, 63)
    np.testing.assert_array_equal(t.HorizontalFlip(p=1)(image, RNG), image[:, ::-1])
    np.testing.assert_array_equal(t.VerticalFlip(p=1)(image, RNG), image[::-1])
    np.testing.assert_array_equal(t.Transpose(p=1)(image, RNG), image.transpose(1, 0, 2))
    theirs = array(tv.center_crop(tensor(image), [20, 30]))
    np.testing.assert_array_equal(t.CenterCrop(20, 30)(image, RNG), theirs)


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colour_factors(name, factor):
    ours = getattr(colour, f"adjust_{name}")(noise_image(), factor)
    theirs = array(getattr(tv, f"adjust_{name}")(tensor(noise_image()), factor))
    assert difference(ours, theirs).max() <= 2  # rounding of the grey value and of the blend


@pytest.mark.parametrize("shift", [-0.5, -0.1, 0.0, 0.07, 0.4])
def test_hue(shift):
    ours = colour.adjust_hue(noise_image(), shift)
    theirs = array(tv.adjust_hue(tensor(noise_image()), shift))
    # 8-bit HSV: two values of 255 in the mean, more in single pixels of low saturation.
    assert difference(ours, theirs).mean() < 2
    assert np.quantile(difference(ours, theirs), 0.99) <= 8


def test_grey():
    ours = t.ToGray(p=1)(noise_image(), RNG)
    theirs = array(tv.rgb_to_grayscale(tensor(noise_image()), 3))
    assert difference(ours, theirs).max() <= 1


@pytest.mark.parametrize(("size", "sigma"), [(5, 0.8), (9, 1.7)])
def test_blur(size, sigma):
    ours = t.GaussianBlur((sigma, sigma), size, p=1)(noise_image(), RNG)
    theirs = array(tv.gaussian_blur(tensor(noise_image()), [size, size], [sigma, sigma]))
    assert difference(ours, theirs).max() <= 1


def test_the_derived_kernel_is_large_enough():
    narrow = t.GaussianBlur((2, 2), p=1)(noise_image(), RNG)
    wide = t.GaussianBlur((2, 2), 31, p=1)(noise_image(), RNG)
    assert difference(narrow, wide).max() <= 1


def test_solarize():
    theirs = array(tv.solarize(tensor(noise_image()), 100))
    np.testing.assert_array_equal(t.Solarize(100, p=1)(noise_image(), RNG), theirs)


def test_normalize():
    mean, std = [0.7757, 0.7424, 0.6690], [0.1146, 0.1135, 0.1139]
    ours = t.Normalize(mean, std)(noise_image(), RNG)
    theirs = array(tv.normalize(tensor(noise_image()).float() / 255, mean, std))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_rotation_turns_counter_clockwise_about_the_centre():
    step = t.ShiftScaleRotate(0, 0, 90, border="constant", p=1)
    image = noise_image(33, 33)
    np.testing.assert_array_equal(step.apply(image, (1.0, 0.0, 0.0, 0.0)), np.rot90(image))


# Distributions against their definition.


def test_areas_and_ratios_of_crops():
    step = t.RandomResizedCrop(32, 32, scale=(0.2, 1.0))
    rng = np.random.default_rng(0)
    draws = np.array([step.parameters(400, 400, rng) for _ in range(4000)])
    area = draws[:, 2] * draws[:, 3] / 400**2
    ratio = draws[:, 3] / draws[:, 2]
    assert area.min() > 0.19 and area.max() <= 1
    assert ratio.min() > 0.74 and ratio.max() < 1.35
    # Uniform in the area but for the largest, which fit only with a ratio near 1.
    small = area[area < 0.75]
    assert np.quantile(small, [0.25, 0.5, 0.75]) == pytest.approx([0.3375, 0.475, 0.6125], abs=0.02)
    assert np.log(ratio).mean() == pytest.approx(0, abs=0.01)
    for start, length in ((0, 2), (1, 3)):  # top and height, left and width
        places = draws[:, start] / np.maximum(1, 400 - draws[:, length])
        assert places[draws[:, length] < 380].mean() == pytest.approx(0.5, abs=0.02)


def test_crops_of_very_long_images_fall_back_to_the_centre():
    step = t.RandomResizedCrop(32, 32, scale=(0.9, 1.0))
    assert step.parameters(10, 1000, np.random.default_rng(0)) == (0, 493, 10, 13)


@pytest.mark.parametrize("kind", [t.HorizontalFlip, t.ToGray])
@pytest.mark.parametrize("p", [0.0, 0.2, 1.0])
def test_probabilities(kind, p):
    image, rng = noise_image(8, 8), np.random.default_rng(0)
    applied = np.mean([kind(p=p)(image, rng) is not image for _ in range(3000)])
    assert applied == pytest.approx(p, abs=0.03)


def test_jitter_ranges_and_order():
    step = t.ColorJitter(0.4, 1.5, 0.3, 0.1)
    rng = np.random.default_rng(0)
    draws = [step.parameters(8, 8, rng) for _ in range(3000)]
    amounts = np.array([amount for _, amount in draws])
    low, high = amounts.min(axis=0), amounts.max(axis=0)
    np.testing.assert_allclose(low, [0.6, 0, 0.7, -0.1], atol=0.01)
    np.testing.assert_allclose(high, [1.4, 2.5, 1.3, 0.1], atol=0.01)
    assert len({tuple(order) for order, _ in draws}) == 24


def test_jitter_applies_what_it_draws():
    step = t.ColorJitter(0.8, 0.8, 0.8, 0.3, p=1)
    changes = (
        colour.adjust_brightness,
        colour.adjust_contrast,
        colour.adjust_saturation,
        colour.adjust_hue,
    )
    for seed in range(6):
        order, amounts = step.parameters(48, 64, np.random.default_rng(seed))
        expected = noise_image()
        for k in order:
            expected = changes[k](expected, amounts[k])
        np.testing.assert_array_equal(step.apply(noise_image(), (order, amounts)), expected)


def test_shifts_stay_within_their_limit():
    # A single bright pixel in the middle shows where the centre goes.
    image = np.zeros((101, 101, 3), np.uint8)
    image[49:52, 49:52] = 255
    step = t.ShiftScaleRotate(0.2, 0, 0, border="constant", p=1)
    rng = np.random.default_rng(0)
    centres = []
    for _ in range(300):
        moved = step(image, rng)[..., 0].astype(float)
        y, x = np.mgrid[0:101, 0:101]
        centres.append([(moved * y).sum() / moved.sum(), (moved * x).sum() / moved.sum()])
    shift = (np.array(centres) - 50) / 101
    assert np.abs(shift).max() <= 0.2 + 1e-2
    assert np.abs(shift).max(axis=0).min() > 0.18
    assert np.std(shift) == pytest.approx(0.4 / 12**0.5, rel=0.1)


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 30), st.integers(1, 30), st.just(3))),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(0, 1000),
)
def test_a_grid_shuffle_keeps_every_pixel(image, rows, columns, seed):
    shuffled = t.RandomGridShuffle((rows, columns), p=1)(image, np.random.default_rng(seed))
    assert shuffled.shape == image.shape
    assert sorted(map(tuple, shuffled.reshape(-1, 3))) == sorted(map(tuple, image.reshape(-1, 3)))


def test_erased_shares():
    image = np.full((100, 100, 3), 200, np.uint8)
    rng = np.random.default_rng(0)
    erase = t.RandomErase((0.02, 0.33), p=1)
    shares = np.array([(erase(image, rng)[..., 0] == 0).mean() for _ in range(500)])
    assert shares[shares > 0].min() > 0.015 and shares.max() < 0.34
    holes = t.CoarseDropout(3, 10, 0.2, min_holes=3, fill=7, p=1)(image, rng)
    assert 0 < (holes[..., 0] == 7).mean() <= 3 * 10 * 20 / 1e4


# Compose and mistakes.


def test_the_stored_head_is_split_off():
    steps = [t.LongestMaxSize(9), t.PadIfNeeded(9, 9), t.HorizontalFlip(), t.Resize(4, 4)]
    head, rest = t.Compose(steps).split()
    assert (head.transforms, rest.transforms) == (steps[:1], steps[1:])
    whole = t.Compose(steps)(noise_image(), np.random.default_rng(1))
    parts = rest(head(noise_image(), RNG), np.random.default_rng(1))
    np.testing.assert_array_equal(whole, parts)
    assert whole.flags.c_contiguous


def test_normalize_is_not_stored():
    head, _ = t.Compose([t.Normalize([0.5] * 3, [0.2] * 3)]).split()
    assert head.transforms == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: t.HorizontalFlip(p=1.5), "p: 1.5 is not in 0..1"),
        (lambda: t.RandomResizedCrop(32, 32, scale=(1, 0.2)), "scale: .1, 0.2. is not a range"),
        (lambda: t.RandomResizedCrop(0, 32), "height: 0 is not a whole number of at least 1"),
        (
            lambda: t.PadIfNeeded(4, 4, border="mirror"),
            "none of constant, reflect, replicate, wrap",
        ),
        (lambda: t.Resize(4, 4, crop_pct=1.1), "crop_pct: 1.1 is not above 0 and at most 1"),
        (lambda: t.Resize(4, 4, "lanczos"), "interpolation: 'lanczos' is none of nearest, linear"),
        (lambda: t.ColorJitter(hue=0.7), "hue"),
        (lambda: t.GaussianBlur(kernel_size=4), "kernel_size: 4 is not odd"),
        (lambda: t.Normalize([0.5] * 3, [0.2, 0, 0.2]), "std above 0"),
        (lambda: t.RandomGridShuffle((4,)), "grid: .4. is not .rows, columns."),
        (lambda: t.OneOf([]), "must name at least one"),
    ],
)
def test_wrong_arguments_are_said(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("size", [(24, 32), (32, 24), (9, 9), (40, 8), (24, 24)])
@pytest.mark.parametrize("step", [s for s in EVERY if s.stored], ids=lambda s: type(s).__name__)
def test_what_is_said_to_keep_a_size_keeps_it(step, size):
    image = np.ascontiguousarray(np.resize(noise_image(), (*size, 3)))
    if step.keeps(*size):
        np.testing.assert_array_equal(step(image, RNG), image)
    keeping = [s for s in (t.LongestMaxSize(32), t.Resize(24, 32), t.SmallestMaxSize(24))]
    assert all(s.keeps(24, 32) for s in keeping)
    assert not any(s.keeps(40, 41) for s in keeping)
