"""A dictionary of patches of images, against its definition."""

import cv2
import numpy as np
import pytest
import torch

from foldsmith.errors import ConfigError, DataError
from foldsmith.models.patch_dictionary import PatchDictionary


@pytest.fixture(scope="module")
def images():
    """Smooth coloured noise, float32 in 0..1, shape (12, 3, 20, 24)."""
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 255, (12, 20, 24, 3)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(image, (0, 0), 1) for image in noise])
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return torch.from_numpy(smooth).permute(0, 3, 1, 2).contiguous()


@pytest.fixture(scope="module", autouse=True)
def few_samples():
    """Sample fewer patches, so that learning takes no time."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("foldsmith.models.patch_dictionary._SAMPLES", 4000)
        yield


@pytest.fixture(scope="module")
def learned(images):
    return taught(images, seed=1)


def taught(images, seed, batch_size=5, **arguments):
    model = PatchDictionary(**({"n_centres": 10, "patch": 4} | arguments))
    model.learn(model.sample(images.split(batch_size), len(images), seed), seed)
    return model


def reference(model, image):
    """Return the features of one image, patch by patch."""
    side, stride, grid = model.patch, model.stride, model.grid
    mean, whitening, centres = (
        getattr(model, name).numpy().astype(np.float64) for name in ("mean", "whitening", "centres")
    )
    rows, columns = ((length - side) // stride + 1 for length in image.shape[1:])
    active = np.zeros((rows, columns, len(centres)))
    for y in range(rows):
        for x in range(columns):
            top, left = y * stride, x * stride
            patch = image[:, top : top + side, left : left + side].ravel().astype(np.float64)
            patch = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 10 / 255**2)
            distances = np.linalg.norm((patch - mean) @ whitening - centres, axis=1)
            active[y, x] = np.maximum(0, distances.mean() - distances)
    ends = [[length * k // grid for k in range(grid + 1)] for length in (rows, columns)]
    return np.concatenate(
        [
            active[ends[0][i] : ends[0][i + 1], ends[1][j] : ends[1][j + 1]].mean(axis=(0, 1))
            for i in range(grid)
            for j in range(grid)
        ]
    )


@pytest.mark.parametrize(("stride", "grid"), [(1, 2), (2, 1), (3, 3)])
def test_the_features_are_those_of_the_definition(images, stride, grid):
    model = taught(images, 0, stride=stride, grid=grid)
    wanted = np.stack([reference(model, image.numpy()) for image in images[:3]])
    assert wanted.max() > 0.1
    np.testing.assert_allclose(model(images[:3]).numpy(), wanted, atol=1e-4)


def test_the_same_from_the_same_images_and_seed_whatever_the_batches(images, learned):
    again, other = taught(images, 1, batch_size=12), taught(images, 2)
    for name, value in learned.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert not torch.equal(other.centres, learned.centres)


def test_centres_are_those_of_whitened_patches(images):
    patches = images.unfold(2, 4, 1).unfold(3, 4, 1).permute(0, 2, 3, 1, 4, 5).flatten(3)
    patches = patches.reshape(-1, 48).double()
    patches = (patches - patches.mean(1, keepdim=True)) / torch.sqrt(
        patches.var(1, keepdim=True) + 10 / 255**2
    )
    model = taught(images, 0)
    whitened = (patches - model.mean) @ model.whitening.double()
    variances = torch.linalg.eigvalsh(torch.cov(whitened.T))
    # Of each direction v / (v + 0.1), v its variance before.
    before = torch.linalg.eigvalsh(torch.cov(patches.T))
    torch.testing.assert_close(variances, before / (before + 0.1), atol=0.05, rtol=0.05)
    # Each centre is the mean of the patches that are nearest to it, but for the last batches.
    nearest = torch.cdist(whitened, model.centres.double()).argmin(dim=1)
    for k, centre in enumerate(model.centres):
        own = whitened[nearest == k].mean(dim=0)
        assert torch.nn.functional.cosine_similarity(own, centre.double(), dim=0) > 0.9


def test_the_parts_of_a_batch_change_nothing(images, learned, monkeypatch):
    whole = learned(images)
    monkeypatch.setattr("foldsmith.models.patch_dictionary._AT_ONCE", 1)
    torch.testing.assert_close(learned(images), whole, atol=1e-6, rtol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(learned(images), whole, atol=1e-6, rtol=1e-5)
    assert torch.isfinite(learned(torch.zeros(1, 3, 20, 24))).all()


@pytest.mark.parametrize("arguments", [{"n_centres": 1}, {"patch": 1}, {"stride": 0}, {"grid": 0}])
def test_arguments_that_are_too_small_are_refused(arguments):
    with pytest.raises(ConfigError, match=f"{next(iter(arguments))}: . must be at least"):
        PatchDictionary(**arguments)


def test_images_that_are_too_small_or_too_few_are_named(images, learned, monkeypatch):
    with pytest.raises(ConfigError, match="images of 24 x 3 px have no patch of 4 px; enlarge"):
        learned(images[:, :, :3])
    with pytest.raises(ConfigError, match="too small for its patch, stride and grid; enlarge"):
        learned(images[:, :, :4])
    monkeypatch.setattr("foldsmith.models.patch_dictionary._SAMPLES", 12)
    with pytest.raises(DataError, match="12 patches are too few for 40 centres; lower"):
        taught(images, 0, n_centres=40)
