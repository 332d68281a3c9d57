"""Features of an image that nothing has to learn: statistics of its colours and its texture."""

import torch
from torch import nn

from foldsmith.models.devices import tell_once

# Shares of an image's pixels below the colours that are noted.
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_HUES = 12
# Colours are counted on an image halved until it is smaller than twice this: single pixels are
# noise, and sorting many is slow.
_COLOUR_SIDE = 64
# A neighbour counts as brighter from this step of the 8-bit scale on; less is noise.
_BRIGHTER = 1.5 / 255
# Offsets of the eight neighbours, in order around the pixel.
_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
_GRADIENT_LEVELS = 4
_PATTERN_LEVELS = 3
# a* and b* vary about half as much as L*: a step in L* corresponds to half a step in them.
_CHROMA = 2.0
# The layout has so many fields on each side.
_LAYOUT = 4
# Smallest side of an image in a pyramid, in pixels.
_SMALLEST = 6


class ImageDescriptors(nn.Module):
    """Statistics of colour and texture, in the place of a backbone.

    With a few hundred labelled images, plain statistics are hard to beat by a network, so
    descriptors make strong members of an ensemble in seconds. An image mirrored left to right has
    the same descriptors. All except the layout do not depend on positions.

    - Colours in RGB and CIE L*a*b*: mean, standard deviation and quantiles of each channel, the
      correlations of L*, a* and b* (colour moments: Stricker and Orengo 1995), and how much of
      which hue there is, weighted by saturation.
    - Gradients at four scales: how strong across, down and in all directions, how strong at
      most, how uneven, which direction prevails.
    - Local binary patterns of L*, a* and b* at three scales: the shares of the nine uniform,
      rotation-invariant patterns of eight neighbours and of all others (Ojala et al. 2002).
    - Layout: the mean L*, a* and b* of each of 4 x 4 fields, averaged over left and right.

    Expects RGB in 0..1: in an experiment, ``dataset/ch_mean_norm: [0, 0, 0]`` and
    ``ch_std_norm: [1, 1, 1]``.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the descriptors.

        Args:
            images: RGB in 0..1, shape (n, 3, H, W).

        Returns:
            float32, shape (n, 235).
        """
        # bf16 of a mixed precision is too coarse for these.
        with torch.autocast(images.device.type, enabled=False):
            rgb = images.float().clamp(0, 1).contiguous()
            grey = 0.299 * rgb[:, :1] + 0.587 * rgb[:, 1:2] + 0.114 * rgb[:, 2:]
            lab = _lab(rgb)
            channels = (lab[:, :1], lab[:, 1:2] * _CHROMA, lab[:, 2:] * _CHROMA)
            parts = [
                *_colours(_at_most(rgb, _COLOUR_SIDE)),
                *(_gradients(level) for level in _pyramid(grey, _GRADIENT_LEVELS)),
                *(_patterns(x) for channel in channels for x in _pyramid(channel, _PATTERN_LEVELS)),
                _layout(lab).flatten(1),
            ]
            return torch.cat(parts, dim=1)


def _at_most(images: torch.Tensor, side: int) -> torch.Tensor:
    """Halve images until their shorter side is less than twice ``side``."""
    while min(images.shape[2:]) >= 2 * side:
        images = nn.functional.avg_pool2d(images, 2)
    return images


def _colours(rgb: torch.Tensor) -> list[torch.Tensor]:
    """Return moments, quantiles, correlations and hues; (n, 42), (n, 3) and (n, 12)."""
    lab = _lab(rgb).flatten(2)
    pixels = torch.cat([rgb.flatten(2), lab], dim=1)
    std, mean = torch.std_mean(pixels, dim=2)
    ordered = pixels.sort(dim=2).values
    places = [round(q * (pixels.shape[2] - 1)) for q in _QUANTILES]
    # Noise of the size of 8-bit rounding avoids a division by zero for an image of one colour.
    spread = torch.sqrt(std[:, 3:] ** 2 + 1e-6)
    centred = (lab - mean[:, 3:, None]) / spread[:, :, None]
    correlations = torch.einsum("nip,njp->nij", centred, centred) / pixels.shape[2]
    above = torch.triu_indices(3, 3, 1)
    return [
        torch.cat([mean, std, ordered[:, :, places].flatten(1)], dim=1),
        correlations[:, above[0], above[1]],
        _hues(rgb.flatten(2)),
    ]


def _lab(rgb: torch.Tensor) -> torch.Tensor:
    """Return CIE L*a*b* of sRGB (white D65), a hundredth of it; shapes (n, 3, H, W)."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    # sRGB to CIE XYZ (IEC 61966-2-1), each row divided by the value of white.
    matrix = rgb.new_tensor(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    matrix = matrix / matrix.sum(dim=1, keepdim=True)
    xyz = torch.einsum("ij,njhw->nihw", matrix, linear)
    f = torch.where(xyz > 0.008856, xyz.clamp(min=1e-6) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = f.unbind(1)
    return torch.stack([1.16 * y - 0.16, 5 * (x - y), 2 * (y - z)], dim=1)


def _hues(pixels: torch.Tensor) -> torch.Tensor:
    """Return how much of each hue there is: saturation (of HSV) by hue, (n, 12) of (n, 3, p)."""
    high, low = pixels.amax(dim=1), pixels.amin(dim=1)
    chroma = high - low
    r, g, b = pixels.unbind(1)
    unit = chroma.clamp(min=1e-6)
    # Sixths of the circle, from red.
    sixth = torch.where(
        high == r,
        ((g - b) / unit) % 6,
        torch.where(high == g, (b - r) / unit + 2, (r - g) / unit + 4),
    )
    bins = (sixth * (_HUES / 6)).long().clamp(0, _HUES - 1)
    saturation = chroma / high.clamp(min=1e-6)
    amounts = pixels.new_zeros(len(pixels), _HUES).scatter_add_(1, bins, saturation)
    return amounts / pixels.shape[2]


def _layout(lab: torch.Tensor) -> torch.Tensor:
    """Return the mean colour of each field and its mirror image, (n, 3, 4, 4) of (n, 3, H, W)."""
    try:
        fields = nn.functional.adaptive_avg_pool2d(lab, _LAYOUT)
    except RuntimeError:
        # Apple's GPU needs sides that the fields divide.
        if lab.device.type == "cpu":
            raise
        tell_once("the mean colours of ImageDescriptors are computed on the CPU")
        fields = nn.functional.adaptive_avg_pool2d(lab.cpu(), _LAYOUT).to(lab.device)
    return (fields + fields.flip(3)) / 2


def _pyramid(grey: torch.Tensor, levels: int) -> list[torch.Tensor]:
    """Return an image at scales that halve, as often as it is large enough; then the last again."""
    result = [grey]
    while len(result) < levels:
        small = result[-1]
        if min(small.shape[2:]) >= 2 * _SMALLEST:
            small = nn.functional.avg_pool2d(small, 2)
        result.append(small)
    return result


def _gradients(grey: torch.Tensor) -> torch.Tensor:
    """Return statistics of the gradient, on a logarithmic scale, (n, 10) of (n, 1, H, W)."""
    across = grey.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])[None, None] / 8
    padded = nn.functional.pad(grey, (1, 1, 1, 1), mode="reflect")
    gx, gy = (
        nn.functional.conv2d(padded, across),
        nn.functional.conv2d(padded, across.transpose(2, 3)),
    )
    ring = grey.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    curvature = nn.functional.conv2d(padded, ring)
    strength = torch.sqrt(gx**2 + gy**2).flatten(1)
    ordered = strength.sort(dim=1).values
    last = ordered.shape[1] - 1
    total = strength.sum(dim=1) + 1e-6
    # Twice the angle, so that opposite directions are one: the structure tensor's two parts.
    lean = ((gx**2 - gy**2).flatten(1) / strength.clamp(min=1e-6)).sum(dim=1) / total
    slant = ((2 * gx * gy).flatten(1) / strength.clamp(min=1e-6)).sum(dim=1) / total
    values = torch.stack(
        [
            gx.abs().flatten(1).mean(dim=1),
            gy.abs().flatten(1).mean(dim=1),
            strength.mean(dim=1),
            strength.std(dim=1),
            ordered[:, round(0.5 * last)],
            ordered[:, round(0.9 * last)],
            curvature.abs().flatten(1).mean(dim=1),
            curvature.flatten(1).std(dim=1),
        ],
        dim=1,
    )
    return torch.cat([torch.log1p(100 * values), lean[:, None], slant.abs()[:, None]], dim=1)


def _patterns(channel: torch.Tensor) -> torch.Tensor:
    """Return the square roots of the shares of ten local binary patterns, (n, 10)."""
    height, width = channel.shape[2:]
    centre = channel[:, 0, 1:-1, 1:-1]
    brighter = torch.stack(
        [
            channel[:, 0, 1 + dy : height - 1 + dy, 1 + dx : width - 1 + dx] > centre + _BRIGHTER
            for dy, dx in _NEIGHBOURS
        ]
    )
    changes = (brighter != brighter.roll(1, dims=0)).sum(dim=0)
    # Uniform: one arc of brighter neighbours, named by its length; all others are one.
    code = torch.where(changes <= 2, brighter.sum(dim=0), 9).flatten(1)
    ones = torch.ones_like(code, dtype=channel.dtype)
    counts = channel.new_zeros(len(channel), 10).scatter_add_(1, code, ones)
    return torch.sqrt(counts / code.shape[1])
