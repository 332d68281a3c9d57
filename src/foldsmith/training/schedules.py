"""Learning rates over the optimizer steps of a training."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from foldsmith.errors import ConfigError

# A parameter group with this key set keeps its learning rate.
FIXED_LR = "fixed_lr"


def warmup_cosine(
    optimizer: Optimizer,
    total_steps: int,
    warmup_fraction: float = 0.05,
    final_fraction: float = 0.0,
) -> LambdaLR:
    """Raise the learning rate linearly, then lower it along a cosine (Loshchilov and Hutter 2017).

    Groups of parameters with ``fixed_lr`` set keep theirs.

    Args:
        optimizer: Its groups' learning rates are the highest ones.
        total_steps: Optimizer steps of the whole training.
        warmup_fraction: Fraction of them in which the rate rises, 0..1.
        final_fraction: Fraction of the highest rate after the last step, 0..1.

    Raises:
        ConfigError: A fraction is outside 0..1.
    """
    if not 0 <= warmup_fraction <= 1 or not 0 <= final_fraction <= 1:
        raise ConfigError("warmup_fraction and final_fraction must be in 0..1")
    warmup = round(warmup_fraction * total_steps)

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, total_steps - warmup))
        return final_fraction + (1 - final_fraction) * (1 + math.cos(math.pi * done)) / 2

    def fixed(step: int) -> float:
        return 1.0

    return LambdaLR(
        optimizer, [fixed if group.get(FIXED_LR) else rate for group in optimizer.param_groups]
    )
