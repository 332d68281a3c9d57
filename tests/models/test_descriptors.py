"""What the descriptors say of images of which it is known."""

import cv2
import numpy as np
import pytest
import torch

from foldsmith.models.descriptors import ImageDescriptors, _gradients, _hues, _lab, _patterns

SIDE = 48


@pytest.fixture
def images():
    """Smooth coloured noise, float32, shape (4, 3, 48, 48)."""
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 255, (4, SIDE, SIDE, 3)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(image, (0, 0), 2) for image in noise])
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return torch.from_numpy(smooth).permute(0, 3, 1, 2).contiguous()


def test_numbers_for_every_image_even_of_one_colour(images):
    descriptors = ImageDescriptors()(images)
    assert descriptors.shape == (4, 235)
    assert descriptors.dtype == torch.float32
    for value in (0.0, 0.5, 1.0):
        assert torch.isfinite(ImageDescriptors()(torch.full((1, 3, SIDE, SIDE), value))).all()
    # An image's descriptors are its own, and no two are alike.
    torch.testing.assert_close(ImageDescriptors()(images[1:2])[0], descriptors[1])
    assert (descriptors[0] - descriptors[1]).abs().max() > 1e-3


def test_mirror_images_have_the_same(images):
    descriptors = ImageDescriptors()(images)
    for dims in ((3,), (2,)):
        mirrored = ImageDescriptors()(images.flip(dims))
        same, layout = (mirrored - descriptors).abs().split([187, 48], dim=1)
        assert same.max() < 1e-3
        # Which side is left does not matter to the layout, what is above does.
        assert (layout.max() < 1e-3) == (dims == (3,))


def test_the_layout_says_where(images):
    red = torch.zeros(1, 3, SIDE, SIDE)
    red[:, 0, :12, -12:] = 1
    layout = ImageDescriptors()(red)[0, -48:].reshape(3, 4, 4)
    expected = torch.zeros(4, 4)
    expected[0, [0, 3]] = 0.5324 / 2  # L* of sRGB red, on either side
    torch.testing.assert_close(layout[0], expected, atol=2e-3, rtol=0)


def test_mixed_precision_changes_nothing(images):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = ImageDescriptors()(images)
    torch.testing.assert_close(mixed, ImageDescriptors()(images), atol=0, rtol=0)


def test_small_and_large_images_are_described(images):
    for side in (8, 300):
        resized = torch.nn.functional.interpolate(images, (side, side))
        assert torch.isfinite(ImageDescriptors()(resized)).all()


def test_lab_is_that_of_opencv(images):
    for image, found in zip(images, _lab(images), strict=True):
        wanted = cv2.cvtColor(image.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2LAB)
        # OpenCV computes L*a*b* with tables: to a third of a unit.
        np.testing.assert_allclose(found.permute(1, 2, 0).numpy() * 100, wanted, atol=0.35, rtol=0)


def test_hues_are_those_of_opencv(images):
    pixels = images[0].permute(1, 2, 0).numpy()
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV).reshape(-1, 3)
    wanted = np.histogram(hsv[:, 0], 12, (0, 360), weights=hsv[:, 1])[0] / len(hsv)
    np.testing.assert_allclose(_hues(images.flatten(2))[0].numpy(), wanted, atol=2e-3)
    red = torch.tensor([1.0, 0.0, 0.0])[None, :, None].expand(1, 3, 10)
    assert _hues(red)[0].tolist() == [1.0] + [0.0] * 11


def test_the_gradient_of_a_ramp():
    ramp = torch.arange(SIDE, dtype=torch.float32).expand(1, 1, SIDE, SIDE) / SIDE
    across = _gradients(ramp)[0]
    # One step per pixel, but at the mirrored border; nothing down; all of it leans one way.
    assert across[0].item() == pytest.approx(np.log1p(100 * (SIDE - 2) / SIDE / SIDE), rel=1e-4)
    assert across[1].item() == pytest.approx(0, abs=1e-4)
    assert across[8].item() == pytest.approx(1, abs=1e-3)
    down = _gradients(ramp.transpose(2, 3))[0]
    assert down[1].item() == across[0].item()
    assert down[8].item() == pytest.approx(-1, abs=1e-3)
    diagonal = (ramp + ramp.transpose(2, 3)) / 2
    assert _gradients(diagonal)[0, 9].item() == pytest.approx(1, abs=0.1)


def test_patterns_are_shares_that_a_quarter_turn_leaves(images):
    grey = images.mean(dim=1, keepdim=True)
    patterns = _patterns(grey)
    torch.testing.assert_close((patterns**2).sum(dim=1), torch.ones(4))
    torch.testing.assert_close(_patterns(grey.rot90(1, (2, 3))), patterns)
    flat = _patterns(torch.full((1, 1, SIDE, SIDE), 0.5))[0]
    assert flat.tolist() == [1.0] + [0.0] * 9


def test_a_single_bright_pixel_has_the_patterns_of_its_neighbours():
    grey = torch.zeros(1, 1, 9, 9)
    grey[..., 4, 4] = 1
    # Its eight neighbours see one brighter pixel; itself and all others see none.
    counts = (_patterns(grey)[0] ** 2 * 49).round().tolist()
    assert counts == [41, 8, 0, 0, 0, 0, 0, 0, 0, 0]


def test_two_arcs_of_brighter_neighbours_are_no_uniform_pattern():
    stripes = (torch.arange(9) % 2).float().expand(1, 1, 9, 9)
    shares = _patterns(stripes)[0] ** 2
    # A dark column has a bright one on either side; a bright one sees nothing brighter.
    assert shares[9].item() == pytest.approx(21 / 49)
    assert shares[0].item() == pytest.approx(28 / 49)
