"""Groups of parameters that an optimizer treats differently."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from foldsmith.errors import ConfigError
from foldsmith.training.schedules import FIXED_LR
from foldsmith.utils.suggest import did_you_mean


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


def layer_decay_groups(
    model: nn.Module, lr: float, layer_decay: float = 0.75, weight_decay: float = 0.05
) -> list[dict[str, Any]]:
    """Return parameter groups for an optimizer: the deeper a layer, the lower its rate.

    The head trains at ``lr``, the backbone's last layer at ``lr * layer_decay``, the one
    before at ``lr * layer_decay ** 2``, and so on (Clark et al., "ELECTRA", 2020; Bao et al.,
    "BEiT", 2022; layers as timm counts them). Biases, norms and parameters that the backbone lists
    (position embeddings) have no weight decay. The schedule has to leave the groups their own
    rates, as ``WarmupCosine`` does.

    Args:
        model: A model with ``backbone``; everything else of it is the head.
        lr: Learning rate of the head.
        layer_decay: Factor from one layer to the next deeper one, above 0, at most 1.
        weight_decay: Weight decay of the other parameters.

    Returns:
        Groups with ``params``, ``lr`` and ``weight_decay``, those of the head first.

    Raises:
        ConfigError: ``layer_decay`` is out of range, or the model has no backbone.
    """
    # Here, not above: timm takes a second, which `status` and `check` never need.
    from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]

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
