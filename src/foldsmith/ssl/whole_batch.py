"""Inputs of a self-supervised loss: the outputs of the whole batch, in float32."""

from contextlib import AbstractContextManager

import torch

from foldsmith.distributed.collectives import gathered


def whole_batch(*outputs: torch.Tensor) -> list[torch.Tensor]:
    """Return outputs of the whole batch in float32.

    A loss compares the images of a batch with each other. If several processes share a batch, it
    compares the images of all of them.

    Args:
        outputs: For this process's images, floating, shape (n_own, ...).

    Returns:
        Shape (n, ...) each.
    """
    return [gathered(output.float()) for output in outputs]


def full_precision(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """Return the context for a loss: autocast would multiply float32 matrices in bf16 again."""
    return torch.autocast(tensor.device.type, enabled=False)
