"""Images in another size, by operations that every device and export has."""

import torch


def resized(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return images in another size; images that become smaller are smoothed.

    The same as ``interpolate(mode="bilinear", antialias=True)``, which not all devices have.

    Args:
        images: Shape (n, channels, H, W).
        height: New height in pixels.
        width: New width in pixels.
    """
    if tuple(images.shape[2:]) == (height, width):
        return images
    down, across = (
        _shares(old, new).to(images.device)
        for old, new in zip(images.shape[2:], (height, width), strict=True)
    )
    return down @ images @ across.T


def _shares(old: int, new: int) -> torch.Tensor:
    """Return the matrix that resizes ``old`` pixels to ``new``: triangles around their places."""
    step = old / new
    places = (torch.arange(new, dtype=torch.float64) + 0.5) * step - 0.5
    distances = (torch.arange(old, dtype=torch.float64) - places[:, None]).abs()
    shares = (1 - distances / max(step, 1.0)).clamp(min=0)
    return (shares / shares.sum(dim=1, keepdim=True)).float()
