"""Features from distributions of local descriptors, learned from images without labels."""

import math
import warnings
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from foldsmith.errors import ConfigError, DataError
from foldsmith.models.cells import cell_sums
from foldsmith.models.learns_from_images import Samples
from foldsmith.models.resizing import resized

# A descriptor has 4 x 4 cells of so many pixels, in each 8 directions of gradients (Lowe 2004).
_CELL, _CELLS, _BINS = 4, 4, 8
# Neighbouring levels of the pyramid differ by this factor of the side.
_STEP = 2**-0.5
# Strength of gradients that a descriptor needs, for colours in 0..1: noise of flat parts must not
# count.
_FLAT = 0.16
# A place along a side, times this, has the variance 1, like the principal axes of descriptors.
_PLACE = math.sqrt(12)
# Local descriptors to learn from, of all images together.
_SAMPLES = 30_000
# Rounds that fit a mixture; 100,000 samples and 15 rounds give no better features.
_ROUNDS, _LEAST_VARIANCE = 10, 1e-3


class FisherVectors(nn.Module):
    """How the local descriptors of an image differ from those of all images, instead of a backbone.

    Gradients (SIFT: Lowe 2004; square roots of shares: Arandjelovic and Zisserman 2012) and local
    means and deviations of colour (Clinchant et al. 2007) are computed at every fourth pixel of a
    pyramid of the image, each reduced to its principal axes, with the place in the image beside
    them. A mixture of Gaussians is fitted to those of all images of the project, labelled or not.
    An image is then described by the gradient of its likelihood with respect to means and
    deviations of the mixture, with square roots of the values and length 1 (Perronnin, Sanchez and
    Mensink 2010; Sanchez et al. 2013).

    Features are alike in scale: a head on them should scale all by one number
    (``scaling: common``).

    Expects RGB in 0..1: in an experiment, ``dataset/ch_mean_norm: [0, 0, 0]`` and
    ``ch_std_norm: [1, 1, 1]``, and a ``loader/learn`` with the images to learn from.

    Args:
        n_components: Gaussians of each mixture, at least 2.
        shape_axes: Principal axes of the gradients, 1 to 128.
        colour_axes: Principal axes of the colours, 1 to 96.
        levels: Levels of the pyramid, at least 1; those below 16 px are left out.

    Raises:
        ConfigError: An argument is out of its range.
    """

    def __init__(
        self, n_components: int = 64, shape_axes: int = 64, colour_axes: int = 32, levels: int = 4
    ) -> None:
        super().__init__()
        n_shape, n_colour = _CELLS**2 * _BINS, _CELLS**2 * 6
        ranges = {
            "n_components": (n_components, 2, 10_000),
            "shape_axes": (shape_axes, 1, n_shape),
            "colour_axes": (colour_axes, 1, n_colour),
            "levels": (levels, 1, 20),
        }
        for name, (value, least, most) in ranges.items():
            if not least <= value <= most:
                raise ConfigError(f"FisherVectors: {name}: {value} must be {least} to {most}")
        self.levels = levels
        self.shapes = _Mixture(n_shape, shape_axes, n_components)
        self.colours = _Mixture(n_colour, colour_axes, n_components)

    def sample(self, batches: Iterable[torch.Tensor], n_images: int, seed: int) -> "_Local":
        """Return random local descriptors, without the axis of images.

        Args:
            batches: The images in a fixed order, RGB in 0..1, each batch of shape (n, 3, H, W).
            n_images: Their number.
            seed: Seed of the samples.
        """
        n_each = -(-_SAMPLES // n_images)
        found: list[_Local] = []
        for batch in batches:
            for image in batch.cpu().float():
                local = local_descriptors(image[None], self.levels)
                # By the image, so that the size of batches does not matter.
                rng = np.random.default_rng([seed, len(found)])
                chosen = torch.from_numpy(rng.integers(0, local.places.shape[1], n_each))
                found.append(_Local(*(part[0, chosen] for part in local)))
        return _Local(*(torch.cat(parts) for parts in zip(*found, strict=True)))

    def learn(self, samples: Samples, seed: int) -> None:
        """Learn the principal axes and the mixtures.

        Args:
            samples: Local descriptors, as :meth:`sample` returns them.
            seed: Seed of the first Gaussians.

        Raises:
            DataError: There are fewer local descriptors than Gaussians.
        """
        sampled = _Local(*samples)
        n_components = len(self.shapes.weights)
        if len(sampled.places) < n_components:
            raise DataError(
                f"FisherVectors: {len(sampled.places)} local descriptors are too few for "
                f"{n_components} Gaussians; lower model/n_components"
            )
        for mixture, values in ((self.shapes, sampled.shapes), (self.colours, sampled.colours)):
            mixture.learn(values, sampled.places, seed)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the Fisher vectors.

        Args:
            images: RGB in 0..1, shape (n, 3, H, W), the shorter side at least 16 px.

        Returns:
            float32, shape (n, 2 * n_components * (shape_axes + colour_axes + 4)): of the shapes,
            then of the colours; each half has length 1. In a half there are for each Gaussian the
            derivatives by its means, then by its deviations.
        """
        with torch.autocast(images.device.type, enabled=False):
            local = local_descriptors(images.float(), self.levels)
            shapes = self.shapes(local.shapes, local.places)
            return torch.cat([shapes, self.colours(local.colours, local.places)], dim=1)


class _Local(NamedTuple):
    """Local descriptors.

    Attributes:
        shapes: Shape (n, n_local, 128).
        colours: Shape (n, n_local, 96).
        places: Row and column, of mean 0 and variance about 1, shape (n, n_local, 2).
    """

    shapes: torch.Tensor
    colours: torch.Tensor
    places: torch.Tensor


class _Mixture(nn.Module):
    """A mixture of Gaussians of local descriptors on their principal axes, and of their places."""

    mean: torch.Tensor
    axes: torch.Tensor
    centres: torch.Tensor
    variances: torch.Tensor
    weights: torch.Tensor

    def __init__(self, n_values: int, n_axes: int, n_components: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_values))
        self.register_buffer("axes", torch.zeros(n_values, n_axes))
        self.register_buffer("centres", torch.zeros(n_components, n_axes + 2))
        self.register_buffer("variances", torch.ones(n_components, n_axes + 2))
        self.register_buffer("weights", torch.full((n_components,), 1 / n_components))

    def learn(self, values: torch.Tensor, places: torch.Tensor, seed: int) -> None:
        """Fit to local descriptors, shape (n, n_values), at places, shape (n, 2)."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        numbers = values.double().numpy()
        mean = numbers.mean(axis=0)
        variances, axes = np.linalg.eigh(np.cov(numbers - mean, rowvar=False))
        largest = np.argsort(variances)[::-1][: self.axes.shape[1]]
        whitening = axes[:, largest] / np.sqrt(np.maximum(variances[largest], 0) + 1e-8)
        inputs = np.concatenate([(numbers - mean) @ whitening, places.double().numpy()], axis=1)
        mixture = GaussianMixture(
            len(self.weights),
            covariance_type="diag",
            max_iter=_ROUNDS,
            init_params="k-means++",
            reg_covar=_LEAST_VARIANCE,
            random_state=seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(inputs)
        learned: dict[str, npt.NDArray[np.float64]] = {
            "mean": mean,
            "axes": whitening,
            "centres": mixture.means_,
            "variances": mixture.covariances_,
            "weights": mixture.weights_,
        }
        self.load_state_dict(
            {name: torch.from_numpy(value.astype(np.float32)) for name, value in learned.items()}
        )

    def forward(self, values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Return the Fisher vectors, shape (n, 2 * n_components * (n_axes + 2))."""
        inputs = torch.cat([(values - self.mean) @ self.axes, places], dim=2)
        squares = inputs**2
        precisions, centres = 1 / self.variances, self.centres
        # Logarithms of the densities, up to a constant: (x - c)^2 = x^2 - 2 x c + c^2.
        distances = squares @ precisions.T - 2 * inputs @ (centres * precisions).T
        distances = distances + (centres**2 * precisions + self.variances.log()).sum(dim=1)
        shares = (self.weights.log() - distances / 2).softmax(dim=2).transpose(1, 2)
        # Sums over the local descriptors, (n, n_components) and (n, n_components, n_axes + 2).
        total, first, second = shares.sum(dim=2)[..., None], shares @ inputs, shares @ squares
        means = (first - total * centres) * precisions.sqrt()
        deviations = (second - 2 * centres * first + total * centres**2) * precisions - total
        root = self.weights.sqrt()[:, None]
        vectors = torch.cat([means / root, deviations / (root * math.sqrt(2))], dim=2).flatten(1)
        vectors = vectors / inputs.shape[1]
        return nn.functional.normalize(vectors.sign() * (vectors.abs() + 1e-12).sqrt())


def local_descriptors(images: torch.Tensor, levels: int = 4) -> _Local:
    """Return descriptors of squares of 16 px, at every fourth pixel of a pyramid of the images.

    Args:
        images: RGB in 0..1, shape (n, 3, H, W).
        levels: Levels of the pyramid, each smaller by the square root of 2.

    Raises:
        ConfigError: The images are smaller than a square.
    """
    height, width = images.shape[2:]
    side = _CELL * _CELLS
    if min(height, width) < side:
        raise ConfigError(
            f"FisherVectors: images of {width} x {height} px have no square of {side} px; enlarge "
            "dataset/img_size"
        )
    found: list[_Local] = []
    for level in range(levels):
        size = [round(each * _STEP**level) for each in (height, width)]
        if min(size) < side:
            break
        found.append(_of_level(resized(images, *size)))
    return _Local(*(torch.cat(parts, dim=1) for parts in zip(*found, strict=True)))


def _of_level(images: torch.Tensor) -> _Local:
    """Return the descriptors of one level."""
    # Whole cells only.
    height, width = (each - each % _CELL for each in images.shape[2:])
    images = images[:, :, :height, :width]
    shapes = _neighbours(_gradients(images))
    shares = shapes / (shapes.sum(dim=1, keepdim=True) + _FLAT)
    means = nn.functional.avg_pool2d(images, _CELL)
    squares = nn.functional.avg_pool2d(images**2, _CELL)
    deviations = ((squares - means**2).clamp(min=0) + 1e-12).sqrt()
    colours = _neighbours(torch.cat([means, deviations], dim=1))
    rows, columns = shares.shape[2:]
    down, across = (
        ((torch.arange(n, device=images.device) + 0.5) / n - 0.5) * _PLACE for n in (rows, columns)
    )
    places = torch.stack([down[:, None].expand(rows, columns), across.expand(rows, columns)])
    parts = ((shares + 1e-12).sqrt(), colours, places[None].expand(len(images), -1, -1, -1))
    return _Local(*(part.flatten(2).transpose(1, 2) for part in parts))


def _gradients(images: torch.Tensor) -> torch.Tensor:
    """Return the gradients of each direction around each cell, (n, 8, rows, columns)."""
    grey = 0.299 * images[:, :1] + 0.587 * images[:, 1:2] + 0.114 * images[:, 2:]
    padded = nn.functional.pad(grey, (1, 1, 1, 1), mode="replicate")
    across = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
    down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
    strength = torch.sqrt(across**2 + down**2 + 1e-12)
    # A gradient counts for the two nearest directions.
    direction = torch.atan2(down, across) * (_BINS / (2 * math.pi))
    bins = torch.arange(_BINS, device=images.device, dtype=images.dtype)[:, None, None]
    away = (direction - bins + _BINS / 2) % _BINS - _BINS / 2
    votes = strength * (1 - away.abs()).clamp(min=0)
    return cell_sums(votes, _CELL) / _CELL**2


def _neighbours(cells: torch.Tensor) -> torch.Tensor:
    """Return the values of each 4 x 4 neighbouring cells, (n, 16 * values, rows, columns)."""
    rows, columns = (each - _CELLS + 1 for each in cells.shape[2:])
    found = [
        cells[:, :, y : y + rows, x : x + columns] for y in range(_CELLS) for x in range(_CELLS)
    ]
    return torch.cat(found, dim=1)
