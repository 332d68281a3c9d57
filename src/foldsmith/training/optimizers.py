"""Optimizers and schedulers that an experiment may name: torch's own, and what fine-tuning adds."""

import math
from functools import partial
from typing import Any

from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]
from torch import nn, optim
from torch.optim import lr_scheduler

from foldsmith.config import Types
from foldsmith.errors import ConfigError

# One kernel per step instead of several per tensor: a fifth of the time, on a CPU too.
_FUSED = {name: partial(getattr(optim, name), fused=True) for name in ("SGD", "Adam", "AdamW")}


class WarmupCosine(lr_scheduler.LambdaLR):
    """Linear warm-up, then a cosine, as factors of each parameter group's own learning rate.

    Groups keep their ratios all the way, which they do not under ``OneCycleLR``: its
    ``max_lr`` replaces their learning rates.

    Args:
        optimizer: Optimizer whose groups have their highest learning rates.
        total_steps: Optimizer steps of the whole training.
        warmup_steps: Share of them that rises, in 0..1.
        final: Factor that the cosine ends at.
    """

    def __init__(
        self,
        optimizer: optim.Optimizer,
        total_steps: int,
        warmup_steps: float = 0.05,
        final: float = 0.0,
    ) -> None:
        if not 0 <= warmup_steps <= 1:
            raise ConfigError(f"warmup_steps: {warmup_steps} is no share of the steps, 0 to 1")
        rising = round(warmup_steps * total_steps)

        def factor(step: int) -> float:
            if step < rising:
                return (step + 1) / rising
            passed = min(1.0, (step - rising) / max(1, total_steps - rising))
            return final + (1 - final) * (1 + math.cos(math.pi * passed)) / 2

        super().__init__(optimizer, factor)


def layer_decay_groups(
    model: nn.Module, lr: float, layer_decay: float = 0.75, weight_decay: float = 0.05
) -> list[dict[str, Any]]:
    """Return parameter groups for an optimizer: the deeper a layer, the lower its rate.

    The head trains at ``lr``, the backbone's last layer at ``lr * layer_decay``, the one
    before at ``lr * layer_decay ** 2``, and so on (Clark et al., "ELECTRA", 2020; Bao et al.,
    "BEiT", 2022; layers as timm counts them). Biases, norms and what the backbone names
    (position embeddings) have no weight decay. The schedule has to leave the groups their own
    rates, as ``WarmupCosine`` does.

    Args:
        model: A model with ``backbone``; everything else of it is the head.
        lr: Learning rate of the head.
        layer_decay: Factor from one layer to the next deeper one, above 0, at most 1.
        weight_decay: Weight decay of what has one.

    Returns:
        Groups with ``params``, ``lr`` and ``weight_decay``, those of the head first.

    Raises:
        ConfigError: ``layer_decay`` is out of range, or the model has no backbone.
    """
    if not 0 < layer_decay <= 1:
        raise ConfigError(f"layer_decay: {layer_decay} must be above 0 and at most 1")
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise ConfigError(f"layer_decay_groups: {type(model).__name__} has no backbone")
    head = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not name.startswith("backbone.")
    ]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in head if p.ndim > 1], "lr": lr, "weight_decay": weight_decay},
        {"params": [p for p in head if p.ndim <= 1], "lr": lr, "weight_decay": 0.0},
    ]
    named: Any = getattr(backbone, "no_weight_decay", tuple)
    layers = param_groups_layer_decay(
        backbone, weight_decay, no_weight_decay_list=named(), layer_decay=layer_decay
    )
    for layer in layers:
        rate = lr * layer_decay * layer["lr_scale"]
        groups.append(
            {"params": layer["params"], "lr": rate, "weight_decay": layer["weight_decay"]}
        )
    return [group for group in groups if group["params"]]


TYPES: Types = {
    **_FUSED,
    **{name: getattr(optim, name) for name in ("NAdam", "RAdam", "RMSprop")},
    **{
        name: getattr(lr_scheduler, name)
        for name in ("OneCycleLR", "CosineAnnealingLR", "LinearLR", "StepLR", "MultiStepLR")
    },
    "WarmupCosine": WarmupCosine,
    "layer_decay_groups": layer_decay_groups,
}
