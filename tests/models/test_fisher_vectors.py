"""Fisher vectors of local descriptors, against their definition."""

import cv2
import numpy as np
import pytest
import torch
from scipy.stats import norm

from foldsmith.errors import ConfigError, DataError
from foldsmith.models.fisher_vectors import FisherVectors, local_descriptors


@pytest.fixture(scope="module")
def images():
    """Smooth coloured noise, float32 in 0..1, shape (10, 3, 32, 40)."""
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 255, (10, 32, 40, 3)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(image, (0, 0), 1.5) for image in noise])
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return torch.from_numpy(smooth).permute(0, 3, 1, 2).contiguous()


def taught(images, seed=1, batch_size=4, **arguments):
    small = {"n_components": 3, "shape_axes": 5, "colour_axes": 4, "levels": 2}
    model = FisherVectors(**(small | arguments))
    model.learn(model.sample(images.split(batch_size), len(images), seed), seed)
    return model


@pytest.fixture(scope="module")
def learned(images):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("foldsmith.models.fisher_vectors._SAMPLES", 2000)
        return taught(images)


def gradients_of_likelihood(mixture, inputs):
    """Return the normalised numerical gradient of the mean log density, (components, 2, axes)."""
    weights, centres, variances = (
        getattr(mixture, name).numpy().astype(np.float64)
        for name in ("weights", "centres", "variances")
    )

    def density(moved_centres, moved_deviations):
        each = norm.pdf(inputs[:, None], moved_centres, moved_deviations).prod(axis=2)
        return np.log((each * weights).sum(axis=1)).mean()

    deviations, found, step = np.sqrt(variances), np.zeros((2, *centres.shape)), 1e-5
    for place in np.ndindex(centres.shape):
        for k, values in enumerate((centres, deviations)):
            up, down = values.copy(), values.copy()
            up[place] += step
            down[place] -= step
            pair = (
                [(up, deviations), (down, deviations)]
                if k == 0
                else [(centres, up), (centres, down)]
            )
            difference = (density(*pair[0]) - density(*pair[1])) / (2 * step)
            # Fisher information of a mean w / v, and of a deviation 2 w / v.
            information = weights[place[0]] * (k + 1) / variances[place]
            found[k][place] = difference / np.sqrt(information)
    return found.transpose(1, 0, 2)


def test_the_features_are_gradients_of_the_likelihood(images, learned):
    local = local_descriptors(images[:1], 2)
    features = learned(images[:1])[0].double().numpy()
    for mixture, values, own in (
        (learned.shapes, local.shapes, features[: 2 * 3 * 7]),
        (learned.colours, local.colours, features[2 * 3 * 7 :]),
    ):
        axes = (values[0] - mixture.mean) @ mixture.axes
        inputs = torch.cat([axes, local.places[0]], dim=1).double().numpy()
        wanted = gradients_of_likelihood(mixture, inputs).ravel()
        wanted = np.sign(wanted) * np.sqrt(np.abs(wanted))
        np.testing.assert_allclose(own, wanted / np.linalg.norm(wanted), atol=2e-3)


def test_a_mixture_fits_the_local_descriptors(images, learned):
    local = local_descriptors(images, 2)
    for mixture, values in ((learned.shapes, local.shapes), (learned.colours, local.colours)):
        inputs = ((values - mixture.mean) @ mixture.axes).flatten(0, 1)
        # On the principal axes all have the variance 1 and do not depend on each other.
        covariance = torch.cov(inputs.T)
        torch.testing.assert_close(covariance, torch.eye(len(covariance)), atol=0.15, rtol=0)
        mean = mixture.weights @ mixture.centres
        assert mean.abs().max() < 0.15
        assert float(mixture.weights.sum()) == pytest.approx(1, abs=1e-5)


def test_local_descriptors_are_those_of_their_squares(images):
    local = local_descriptors(images[:2], 1)
    assert local.shapes.shape == (2, 5 * 7, 128) and local.colours.shape == (2, 5 * 7, 96)
    # The square in row 1 and column 2 begins at the pixel (4, 8); its first cell has 4 x 4 pixels.
    cell = images[1, :, 4:8, 8:12].flatten(1)
    first = local.colours[1, 1 * 7 + 2, :6]
    wanted = torch.cat([cell.mean(dim=1), cell.std(dim=1, correction=0)])
    torch.testing.assert_close(first, wanted, atol=1e-4, rtol=0)
    # The squares of the values are shares of gradients.
    assert (local.shapes**2).sum(dim=2).max() <= 1 + 1e-5
    # Rows and columns from the top left, of mean 0 and variance about 1.
    assert local.places.mean(dim=(0, 1)).abs().max() < 1e-6
    assert ((local.places**2).mean(dim=(0, 1)) - 1).abs().max() < 0.05
    assert local.places[0, 0].max() < 0 < local.places[0, -1].min()
    down, across = local.places[0, 6]
    assert down < 0 < across


def test_a_direction_counts_for_its_bin():
    across = torch.linspace(0, 1, 32).expand(1, 3, 32, 32).contiguous()
    for image, strongest in ((across, 0), (across.transpose(2, 3), 2), (across.flip(3), 4)):
        directions = local_descriptors(image, 1).shapes[0, 12].view(16, 8)
        assert (directions.argmax(dim=1) == strongest).all()


def test_the_same_from_the_same_images_and_seed_whatever_the_batches(images, learned, monkeypatch):
    monkeypatch.setattr("foldsmith.models.fisher_vectors._SAMPLES", 2000)
    again, other = taught(images, batch_size=10), taught(images, seed=2)
    for name, value in learned.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    # Other local descriptors are drawn, too.
    assert not torch.equal(other.shapes.mean, learned.shapes.mean)
    features = learned(images)
    torch.testing.assert_close(features[3:4], learned(images[3:4]), atol=1e-5, rtol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(learned(images), features)
    assert torch.isfinite(learned(torch.zeros(1, 3, 32, 40))).all()


@pytest.mark.parametrize(
    "arguments", [{"n_components": 1}, {"shape_axes": 129}, {"colour_axes": 0}, {"levels": 0}]
)
def test_arguments_out_of_their_range_are_refused(arguments):
    with pytest.raises(ConfigError, match=f"{next(iter(arguments))}: .* must be"):
        FisherVectors(**arguments)


def test_images_that_are_too_small_or_too_few_are_named(images, learned, monkeypatch):
    with pytest.raises(ConfigError, match="images of 40 x 15 px have no square of 16 px; enlarge"):
        learned(images[:, :, :15])
    monkeypatch.setattr("foldsmith.models.fisher_vectors._SAMPLES", 20)
    with pytest.raises(DataError, match="20 local descriptors are too few for 40 Gaussians; lower"):
        taught(images, n_components=40)
