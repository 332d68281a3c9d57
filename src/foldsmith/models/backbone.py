"""Backbones: models of timm, and those registered with it, without their classifier."""

from pathlib import Path
from typing import Any

from torch import nn

from foldsmith.errors import ConfigError, one_line
from foldsmith.models.snapshots import load_backbone
from foldsmith.models.timm_import import import_timm
from foldsmith.utils.suggest import did_you_mean

# Arguments of timm by which it would read weights itself, or fetch them.
_FROM_ELSEWHERE = frozenset(
    ("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
)


def create_backbone(
    model_name: str,
    drop_path_rate: float = 0.0,
    img_size: int | None = None,
    options: dict[str, Any] | None = None,
) -> nn.Module:
    """Create a timm model that returns pooled features, with random weights.

    Args:
        model_name: Any name of ``timm.list_models()``, or of
            :mod:`~foldsmith.models.wide_resnet`.
        drop_path_rate: Stochastic depth (Huang et al. 2016), 0..1.
        img_size: Input side, for models that need it (vision transformers).
        options: Further arguments of the timm model.

    Returns:
        A module from (n, 3, H, W) to features (n, ``num_features``).

    Raises:
        ConfigError: timm has no such model, or the model refuses an argument.
    """
    # Here, not above: with torchvision it takes a second, which commands without a model save.
    timm = import_timm()
    import foldsmith.models.wide_resnet  # noqa: F401  (registers its models)

    if not timm.is_model(model_name):
        hint = did_you_mean(model_name, timm.list_models())
        # timm knows over a thousand models: without a near name, do not list them all.
        hint = hint if "did you mean" in hint else "; timm.list_models() lists them"
        raise ConfigError(f"timm has no model {model_name!r}{hint}")
    arguments: dict[str, Any] = dict(options or {})
    if drop_path_rate:
        arguments["drop_path_rate"] = drop_path_rate
    if img_size is not None:
        arguments["img_size"] = img_size
    elsewhere = sorted(_FROM_ELSEWHERE & arguments.keys())
    if elsewhere:
        raise ConfigError(
            f"timm model {model_name}: {elsewhere[0]} is not for options; a file of weights is "
            "named by model/pretrained"
        )
    try:
        model: nn.Module = timm.create_model(
            model_name, pretrained=False, num_classes=0, **arguments
        )
    except (TypeError, RuntimeError, ValueError) as error:
        raise ConfigError(f"timm model {model_name}: {one_line(error)}") from None
    return model


def pretrained_backbone(
    base_name: str,
    pretrained: str | None = None,
    folder: Path = Path(),
    backbone_options: dict[str, Any] | None = None,
) -> nn.Module:
    """Create a backbone with the weights of a pretraining.

    Args:
        base_name: timm model.
        pretrained: Weights of the backbone, relative to ``folder``: a snapshot of a pretraining,
            or a file of timm; null for random weights.
        folder: The project folder.
        backbone_options: Further arguments of :func:`create_backbone`.

    Raises:
        ConfigError: As :func:`create_backbone`, or the snapshot does not fit.
    """
    backbone = create_backbone(base_name, **(backbone_options or {}))
    if pretrained is not None:
        load_backbone(backbone, folder / pretrained)
    return backbone


def num_features(backbone: nn.Module) -> int:
    """Return the length of the backbone's feature vector."""
    # timm: head_hidden_size differs from num_features where a model pools into another width.
    return int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)  # type: ignore[arg-type]
