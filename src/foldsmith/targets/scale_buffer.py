"""The target scale of a model, kept as a buffer in its ``state_dict``.

The buffer holds the bits of the float64 numbers as integers: no moving average, lower precision or
device changes them.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from foldsmith.targets.column_scales import Scale, restore_scale

if TYPE_CHECKING:  # weights are loaded without the tables that labels come from
    from foldsmith.targets.task import Task

# Key of the target scale that a snapshot of a fine-tuning may hold beside the weights.
TARGET_SCALE = "target_scale"


def keep_scale(model: nn.Module, scale: Scale | None) -> None:
    """Register the scale of the learned targets as a buffer of a model.

    Args:
        model: Any model.
        scale: The scale; None registers nothing.
    """
    if scale is not None:
        model.register_buffer(TARGET_SCALE, torch.from_numpy(scale.array().view(np.int64).copy()))


def scale_kept(model: nn.Module) -> Scale | None:
    """Return the scale that a model keeps; None if it has none.

    Raises:
        OutputError: It is damaged.
    """
    bits = getattr(model, TARGET_SCALE, None)
    if not torch.is_tensor(bits):
        return None
    return restore_scale(bits.detach().cpu().numpy().view(np.float64))


def take_scale(module: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Register an empty buffer in a module if the weights to be loaded have a target scale."""
    if TARGET_SCALE in state and TARGET_SCALE not in module.state_dict():
        module.register_buffer(TARGET_SCALE, torch.zeros_like(state[TARGET_SCALE]))


def task_kept(task: "Task", model: nn.Module) -> "Task":
    """Return a task with the target scale that a model stores, if it stores one.

    Args:
        task: The task of the experiment.
        model: A model with the weights of a snapshot.

    Raises:
        OutputError: The scale is damaged.
    """
    return task.with_scale(scale_kept(model))
