"""Functions shared by the self-supervised methods: views, precision, spread of features."""

from contextlib import AbstractContextManager

import torch
from torch.nn import functional

from foldsmith.distributed.collectives import gathered
from foldsmith.errors import ConfigError


def pair(views: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the two views of a method that compares two.

    Raises:
        ConfigError: There are more or fewer.
    """
    if len(views) != 2:
        raise ConfigError(
            f"this method compares 2 views of a photo, but the dataset makes {len(views)}; set "
            "dataset/train/n_views to 2 and leave out local crops, or take DINO"
        )
    return views[0], views[1]


def of_all(*outputs: torch.Tensor) -> list[torch.Tensor]:
    """Return outputs in float32, their rows those of the whole batch.

    Whatever a loss compares, it compares it across the batch: where several processes share one,
    across all of them.

    Args:
        outputs: Of this process's photos, floating, shape (n_own, ...).

    Returns:
        Shape (n, ...) each.
    """
    return [gathered(output.float()) for output in outputs]


def full_precision(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """Return the context for a loss: autocast would multiply float32 matrices in bf16 again."""
    return torch.autocast(tensor.device.type, enabled=False)


def feature_std(features: torch.Tensor) -> torch.Tensor:
    """Return the standard deviation of L2-normalised features, averaged over their dimensions.

    Near 1/sqrt(dim) when features spread, near 0 when they have collapsed to one point (Chen
    and He 2021, section 4.1).

    Args:
        features: Floating, shape (n, dim).

    Returns:
        float32 scalar without a gradient, 0..1/sqrt(dim).
    """
    return functional.normalize(features.detach().float(), dim=1).std(dim=0, correction=0).mean()
