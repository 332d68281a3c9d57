"""Features of an image that describe its shapes: histograms of gradients and small pixels."""

import math

import torch
from torch import nn

from foldsmith.errors import ConfigError
from foldsmith.models.cells import cell_sums
from foldsmith.models.resizing import resized

# A cell is so many pixels wide, and a block so many cells (Dalal and Triggs 2005).
_CELL = 8
_BLOCK = 2
# Directions between 0 and 180 degrees.
_BINS = 9
# No value of a normalised block is larger: one strong edge must not hide all others.
_CLIP = 0.2
# Added to the norm of a block: blocks of a single colour remain zero.
_LEAST = 1e-2


class ShapeDescriptors(nn.Module):
    """Histograms of oriented gradients and small pixels, in the place of a backbone.

    Statistics of colour and texture (:class:`~foldsmith.models.descriptors.ImageDescriptors`)
    hardly depend on positions. These describe shapes and their places. They are a member of their
    own, so that a blend can leave either out. A mirror image has other descriptors, because some
    shapes are defined by their direction.

    Expects RGB in 0..1: in an experiment, ``dataset/ch_mean_norm: [0, 0, 0]`` and
    ``ch_std_norm: [1, 1, 1]``.

    Args:
        cells: Cells of the histograms along each side, at least 2: :func:`gradient_histograms`.
        pixels: Side of the small image whose pixels are descriptors, at least 1.

    Raises:
        ConfigError: An argument is too small.
    """

    def __init__(self, cells: int = 6, pixels: int = 8) -> None:
        super().__init__()
        if cells < 2 or pixels < 1:
            raise ConfigError("ShapeDescriptors: cells must be at least 2, and pixels at least 1")
        self.cells, self.pixels = cells, pixels

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the descriptors.

        Args:
            images: RGB in 0..1, shape (n, 3, H, W).

        Returns:
            float32, shape (n, (cells - 1)^2 * 36 + pixels^2 * 3).
        """
        with torch.autocast(images.device.type, enabled=False):
            small = resized(images.float(), self.pixels, self.pixels).flatten(1)
            return torch.cat([gradient_histograms(images, self.cells), small], dim=1)


def gradient_histograms(images: torch.Tensor, cells: int = 8) -> torch.Tensor:
    """Return histograms of oriented gradients, HOG (Dalal and Triggs, CVPR 2005).

    Images are resized so that a cell is 8 px wide. The gradient of a pixel is taken from the
    channel where it is the largest. It votes for the two nearest of nine unsigned directions and
    for the four nearest cells. Blocks of 2 x 2 cells overlap; each is normalised to length 1,
    clipped at 0.2 and normalised again.

    Args:
        images: RGB or grey in 0..1, shape (n, channels, H, W).
        cells: Cells along each side, at least 2.

    Returns:
        float32, shape (n, (cells - 1)^2 * 36): rows of blocks from the top, in each from the left;
        in a block the cells in the same order, in a cell the directions.
    """
    with torch.autocast(images.device.type, enabled=False):
        squares = resized(images.float(), cells * _CELL, cells * _CELL)
        return _blocks(_cells(*_gradient(squares))).flatten(1)


def _gradient(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradient of the channel where it is the largest: across and down, (n, 1, H, W)."""
    padded = nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    strongest = (across**2 + down**2).argmax(dim=1, keepdim=True)
    return across.gather(1, strongest), down.gather(1, strongest)


def _cells(across: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """Return the histogram of each cell, (n, 9, cells, cells) of gradients (n, 1, H, W)."""
    strength = torch.sqrt(across**2 + down**2)
    # The centre of a bin is at half of its width, so that mirroring exchanges whole bins.
    place = torch.atan2(down, across) * (_BINS / math.pi) - 0.5
    lower = place.floor()
    upper_share = place - lower
    first = lower.long() % _BINS
    n, _, height, width = strength.shape
    votes = strength.new_zeros(n, _BINS, height, width)
    votes.scatter_(1, first, strength * (1 - upper_share))
    votes.scatter_(1, (first + 1) % _BINS, strength * upper_share)
    return cell_sums(votes, _CELL)


def _blocks(cells: torch.Tensor) -> torch.Tensor:
    """Return the normalised blocks, (n, blocks, 36) of the histograms (n, 9, cells, cells)."""
    # (n, 9, rows, columns, 2, 2) -> (n, rows, columns, 2, 2, 9)
    blocks = cells.unfold(2, _BLOCK, 1).unfold(3, _BLOCK, 1).permute(0, 2, 3, 4, 5, 1)
    blocks = blocks.flatten(3).flatten(1, 2)
    clipped = _unit(blocks).clamp(max=_CLIP)
    return _unit(clipped)


def _unit(blocks: torch.Tensor) -> torch.Tensor:
    return blocks / torch.sqrt((blocks**2).sum(dim=2, keepdim=True) + _LEAST**2)
