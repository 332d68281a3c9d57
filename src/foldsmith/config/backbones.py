"""The backbones that a pretraining leaves, and how a fine-tuning asks for one of them.

``model/pretrained: {from: 000, pick: best_probe}`` means the backbone with the best probe of the
experiment ``000.yml`` in the same folder. ``pick`` may also be
``last`` or an epoch.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foldsmith.config.settings import Globals
from foldsmith.errors import ConfigError
from foldsmith.utils.suggest import did_you_mean

BACKBONE_OF_EPOCH = "backbone_epoch_{epoch}.pth"
BACKBONE_OF_PROBE = "backbone_best_probe.pth"

_EPOCH = re.compile(r"backbone_epoch_(\d+)\.pth")


def snapshot_epochs(settings: Globals) -> set[int]:
    """Return the epochs after which a pretraining keeps its backbone."""
    every, last = settings.snapshot_interval, settings.max_epoch
    return {*range(every, last + 1, every), last}


def backbone_problem(file: str, source: str, tree: Mapping[str, Any], settings: Globals) -> str:
    """Return why a pretraining does not write a backbone; empty if it does.

    Args:
        file: Name of the backbone's file.
        source: Name of the pretraining's experiment file, for the message.
        tree: The pretraining after imports and overrides.
        settings: Its globals.
    """
    if file == BACKBONE_OF_PROBE and not tree.get("probe"):
        return (
            f"{source} has no probe, so it writes no {file}; pick last or an epoch, or let it "
            "import a recipe with a probe"
        )
    match = _EPOCH.fullmatch(file)
    written = snapshot_epochs(settings)
    if match is None or int(match[1]) in written:
        return ""
    near = min(written, key=lambda epoch: abs(epoch - int(match[1])))
    return (
        f"{source} writes no {file} (max_epoch {settings.max_epoch}, snapshot_interval "
        f"{settings.snapshot_interval}); the nearest is {BACKBONE_OF_EPOCH.format(epoch=near)}"
    )


def source_of(pick: Mapping[str, Any], beside: Path) -> Path:
    """Return the experiment file that ``{from: NAME, pick: ...}`` names.

    Args:
        pick: The value.
        beside: The experiment file that holds it.

    Raises:
        ConfigError: There are other keys, or no such file.
    """
    if pick.keys() != {"from", "pick"}:
        raise ConfigError("must be a file, null, or {from: EXPERIMENT, pick: best_probe}")
    name = str(pick["from"]).removesuffix(".yml")
    source = beside.parent / f"{name}.yml"
    if not source.is_file():
        others = sorted(file.stem for file in beside.parent.glob("*.yml") if file != beside)
        raise ConfigError(
            f"from: there is no {source.name} beside {beside.name}{did_you_mean(name, others)}"
        )
    return source


def picked_backbone(
    pick: Mapping[str, Any], source: str, tree: Mapping[str, Any], settings: Globals
) -> str:
    """Return the file that ``{from: NAME, pick: ...}`` means, relative to the project folder.

    Args:
        pick: The value.
        source: Name of the pretraining's experiment file, for messages.
        tree: The pretraining after imports and overrides.
        settings: Its globals.

    Raises:
        ConfigError: It is no pretraining, or does not keep such a backbone.
    """
    if settings.task != "self-supervised" or settings.output_path is None:
        raise ConfigError(f"from: {source} is no pretraining with a globals/output_path")
    chosen = pick["pick"]
    if chosen == "best_probe":
        file = BACKBONE_OF_PROBE
    elif chosen == "last":
        file = BACKBONE_OF_EPOCH.format(epoch=settings.max_epoch)
    elif isinstance(chosen, int) and not isinstance(chosen, bool):
        file = BACKBONE_OF_EPOCH.format(epoch=chosen)
    else:
        raise ConfigError(f"pick: {chosen!r} must be best_probe, last or an epoch")
    problem = backbone_problem(file, source, tree, settings)
    if problem:
        raise ConfigError(f"pick: {problem}")
    return f"{settings.output_path}/{file}"
