"""Features from a dictionary of patches, which is learned from images without labels."""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from foldsmith.errors import ConfigError, DataError
from foldsmith.models.learns_from_images import Samples

# Added to the variance of a patch, for colours in 0..1: noise of flat patches must not count.
# Added to the variances of whitening, relative to patches of variance 1 (both: Coates and Ng 2011).
_CONTRAST, _WHITENING = 10 / 255**2, 0.1
# Patches to learn from, of all images together.
_SAMPLES = 100_000
# Numbers of a step of the encoding on a CPU, so that they stay in its cache.
_AT_ONCE = 4_000_000
_CHANNELS = 3


class PatchDictionary(nn.Module):
    """How much of each typical patch there is in each part of an image, in the place of a backbone.

    The dictionary are the centres of k-means on patches of all images of the project, labelled or
    not. Patches have their contrast normalised and are whitened (ZCA). A patch activates each
    centre by how much nearer it is than the mean of all centres ("triangle"), and activations are
    averaged over the fields of a grid (Coates, Ng and Lee 2011; Coates and Ng 2012).

    Expects RGB in 0..1: in an experiment, ``dataset/ch_mean_norm: [0, 0, 0]`` and
    ``ch_std_norm: [1, 1, 1]``, and a ``loader/learn`` with the images to learn from.

    Args:
        n_centres: Centres of the dictionary, at least 2.
        patch: Side of a patch in px, at least 2.
        stride: Distance of neighbouring patches in px, at least 1.
        grid: Fields along each side of the image, at least 1.

    Raises:
        ConfigError: An argument is too small.
    """

    mean: torch.Tensor
    whitening: torch.Tensor
    centres: torch.Tensor

    def __init__(
        self, n_centres: int = 400, patch: int = 6, stride: int = 2, grid: int = 2
    ) -> None:
        super().__init__()
        least = {"n_centres": (n_centres, 2), "patch": (patch, 2), "stride": (stride, 1)}
        for name, (value, smallest) in (least | {"grid": (grid, 1)}).items():
            if value < smallest:
                raise ConfigError(f"PatchDictionary: {name}: {value} must be at least {smallest}")
        self.patch, self.stride, self.grid = patch, stride, grid
        n_pixels = _CHANNELS * patch**2
        self.register_buffer("mean", torch.zeros(n_pixels))
        self.register_buffer("whitening", torch.eye(n_pixels))
        self.register_buffer("centres", torch.zeros(n_centres, n_pixels))

    def sample(
        self, batches: Iterable[torch.Tensor], n_images: int, seed: int
    ) -> tuple[torch.Tensor]:
        """Return random normalised patches, shape (n, pixels of a patch).

        Args:
            batches: The images in a fixed order, RGB in 0..1, each batch of shape (n, 3, H, W).
            n_images: Their number.
            seed: Seed of the patches.
        """
        n_each = -(-_SAMPLES // n_images)
        found: list[torch.Tensor] = []
        for batch in batches:
            patches = _patches(batch.cpu(), self.patch, 1)
            rows, columns = patches.shape[2:4]
            for image in patches:
                # By the image, so that the size of batches does not matter.
                rng = np.random.default_rng([seed, len(found)])
                places = rng.integers(0, rows * columns, n_each)
                y, x = (torch.from_numpy(each) for each in np.divmod(places, columns))
                found.append(image[:, y, x].transpose(0, 1).flatten(1))
        return (_normalised(torch.cat(found).float()),)

    def learn(self, samples: Samples, seed: int) -> None:
        """Learn the dictionary.

        Args:
            samples: Patches, as :meth:`sample` returns them.
            seed: Seed of the first centres.

        Raises:
            DataError: There are fewer patches than centres.
        """
        from sklearn.cluster import MiniBatchKMeans

        n_centres = len(self.centres)
        patches = samples[0].numpy()
        if len(patches) < n_centres:
            raise DataError(
                f"PatchDictionary: {len(patches)} patches are too few for {n_centres} centres; "
                "lower model/n_centres"
            )
        mean = patches.mean(axis=0)
        patches = patches - mean
        variances, axes = np.linalg.eigh((patches.T @ patches).astype(np.float64) / len(patches))
        scaled = axes / np.sqrt(np.maximum(variances, 0) + _WHITENING)
        whitening = (scaled @ axes.T).astype(np.float32)
        clusters = MiniBatchKMeans(
            n_centres,
            batch_size=2048,
            n_init=1,
            max_iter=10,
            max_no_improvement=None,
            random_state=seed,
        ).fit(patches @ whitening)
        learned = {"mean": mean, "whitening": whitening, "centres": clusters.cluster_centers_}
        self.load_state_dict(
            {name: torch.from_numpy(value.astype(np.float32)) for name, value in learned.items()}
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the activations of the centres.

        Args:
            images: RGB in 0..1, shape (n, 3, H, W).

        Returns:
            float32, shape (n, grid^2 * n_centres): fields from the top left, in each the centres.
        """
        with torch.autocast(images.device.type, enabled=False):
            images = images.float()
            if images.device.type != "cpu" or torch.compiler.is_exporting():
                return self._encode(images)
            positions = images.shape[2] * images.shape[3] // self.stride**2
            n_each = max(1, _AT_ONCE // (positions * len(self.centres)))
            return torch.cat([self._encode(part) for part in torch.split(images, n_each)])

    def _encode(self, images: torch.Tensor) -> torch.Tensor:
        patches = _patches(images, self.patch, self.stride).permute(0, 2, 3, 1, 4, 5).flatten(3)
        whitened = (_normalised(patches) - self.mean) @ self.whitening
        # Distances from the centres: |x|^2 - 2 x c + |c|^2.
        distances = whitened @ (-2 * self.centres.T)
        distances += (self.centres**2).sum(dim=1) + (whitened**2).sum(dim=3, keepdim=True)
        distances = distances.clamp_(min=0).sqrt_()
        active = distances.neg_().sub_(distances.mean(dim=3, keepdim=True)).clamp_(min=0)
        rows, columns = (_borders(side, self.grid) for side in active.shape[1:3])
        fields = [
            active[:, top:bottom, left:right].mean(dim=(1, 2))
            for top, bottom in pairwise(rows)
            for left, right in pairwise(columns)
        ]
        return torch.cat(fields, dim=1)


def _patches(images: torch.Tensor, side: int, stride: int) -> torch.Tensor:
    """Return the patches of images, (n, 3, rows, columns, side, side) of (n, 3, H, W)."""
    if min(images.shape[2:]) < side:
        raise ConfigError(
            f"PatchDictionary: images of {images.shape[3]} x {images.shape[2]} px have no patch of "
            f"{side} px; enlarge dataset/img_size"
        )
    return images.unfold(2, side, stride).unfold(3, side, stride)


def _normalised(patches: torch.Tensor) -> torch.Tensor:
    """Return patches (..., pixels) with mean 0 and, unless they are flat, variance 1."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / torch.sqrt(variance + _CONTRAST)


def _borders(side: int, grid: int) -> list[int]:
    """Return where the fields along a side begin and end."""
    if side < grid:
        raise ConfigError(
            "PatchDictionary: the images are too small for its patch, stride and grid; enlarge "
            "dataset/img_size"
        )
    return [side * k // grid for k in range(grid + 1)]
