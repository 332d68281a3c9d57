"""Momentum encoders: copies of a network whose weights are averages of its past ones."""

import copy
import math
from typing import TypeVar

from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

M = TypeVar("M", bound=nn.Module)


def momentum_copy(module: M) -> M:
    """Return a copy that receives no gradients and drops nothing out.

    Its BatchNorm statistics are its own: it normalises with its batch as the original does,
    and only the weights are averaged.
    """
    # Here, not above: timm takes a second to import.
    from timm.layers.drop import DropPath

    twin = copy.deepcopy(module).requires_grad_(False)
    for part in twin.modules():
        if isinstance(part, DropPath):
            part.drop_prob = 0.0
        elif isinstance(part, nn.Dropout):
            part.p = 0.0
        # Some of timm's models drop out by a number of their own.
        if isinstance(getattr(part, "drop_rate", None), float):
            setattr(part, "drop_rate", 0.0)  # noqa: B010 - no module declares it
    return twin


def momentum_at(base: float, progress: float) -> float:
    """Return the momentum at a share of the training: from ``base`` to 1 along a cosine.

    The schedule of BYOL (Grill et al., "Bootstrap Your Own Latent", 2020, section 3.3).

    Args:
        base: At the start, 0..1.
        progress: Share of the optimizer steps that are done, 0..1.
    """
    return 1 - (1 - base) * (math.cos(math.pi * progress) + 1) / 2


def move(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Set a teacher's weights to ``momentum * teacher + (1 - momentum) * student``."""
    average = get_ema_multi_avg_fn(momentum)  # type: ignore[no-untyped-call]
    average(list(teacher.parameters()), list(student.parameters()), None)
