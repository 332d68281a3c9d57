"""Groups of parameters that an optimizer treats differently."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from foldsmith.config import Types
from foldsmith.config.suggest import did_you_mean
from foldsmith.errors import ConfigError
from foldsmith.training.schedules import FIXED_LR


def parameter_groups(model: nn.Module, fixed_lr: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return a model's trainable parameters in groups, for an optimizer's ``params``.

    Biases, and the scales and shifts of norms (parameters of at most one dimension), get no
    weight decay: it would pull them to values that mean nothing (Goyal et al. 2017, section
    5.3). The others have the optimizer's.

    Args:
        model: The model.
        fixed_lr: Names of its sub-modules whose learning rate no schedule changes, as
            ``prediction`` of SimSiam, whose predictor learns better at a constant rate (Chen
            and He 2021, appendix).

    Raises:
        ConfigError: The model has no sub-module of that name.
    """
    known = dict(model.named_modules())
    for name in fixed_lr:
        if name not in known:
            children = [child for child, _ in model.named_children()]
            raise ConfigError(
                f"fixed_lr: {type(model).__name__} has no part {name!r}"
                f"{did_you_mean(name, children)}"
            )
    fixed = {id(parameter) for name in fixed_lr for parameter in known[name].parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            key = parameter.ndim > 1, id(parameter) in fixed
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters}
        | ({} if decays else {"weight_decay": 0.0})
        | ({FIXED_LR: True} if keeps_lr else {})
        for (decays, keeps_lr), parameters in groups.items()
    ]


TYPES: Types = {"parameter_groups": parameter_groups}
