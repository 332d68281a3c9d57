"""Losses that an experiment may name: torch's own."""

from collections.abc import Callable

import torch
from torch import nn

from foldsmith.config import Types

# From (logits, encoded targets) to a scalar.
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

TYPES: Types = {
    name: getattr(nn, name)
    for name in ("CrossEntropyLoss", "MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss")
}
