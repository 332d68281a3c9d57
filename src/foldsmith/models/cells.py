"""Sums of values of pixels in cells that overlap, for histograms of gradients."""

import torch
from torch import nn


def cell_sums(values: torch.Tensor, side: int) -> torch.Tensor:
    """Return sums over square cells; a pixel counts for its four nearest cells.

    Its share falls linearly with the distance from the centre of a cell, to 0 at the centre of the
    next cell.

    Args:
        values: float32, shape (n, channels, H, W); H and W are multiples of ``side``.
        side: Side of a cell in pixels, an even number.

    Returns:
        Shape (n, channels, H / side, W / side).
    """
    offsets = torch.arange(2 * side, device=values.device, dtype=values.dtype) - side + 0.5
    triangle = 1 - offsets.abs() / side
    channels = values.shape[1]
    kernel = (triangle[:, None] * triangle).expand(channels, 1, -1, -1)
    return nn.functional.conv2d(values, kernel, stride=side, padding=side // 2, groups=channels)
