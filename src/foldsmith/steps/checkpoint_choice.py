"""Which epoch of each fold an inference uses, and where its snapshot is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from foldsmith.config.settings import HEAD_DECIDES, Checkpoint
from foldsmith.errors import ConfigError, OutputError
from foldsmith.steps.manifest import MANIFEST, Manifest, read_manifest, verified
from foldsmith.training.files import LOG_FILE, validated_entries

# Part of the result files' names for each checkpoint: score_by_best_metric.csv, ...
LABELS: dict[Checkpoint, str] = {
    "metric": "best_metric",
    "loss": "best_loss",
    "last": "last",
    "common": "common",
}

# Frozen features choose no epoch. Their results are written once, under the label of the
# checkpoint that chooses nothing, and stand for all checkpoints.
UNCHOSEN: Checkpoint = "last"

# Files of one epoch's weights; all have the same content.
_SNAPSHOTS: dict[Checkpoint, str] = {
    "metric": "snapshot_by_metric_epoch_{}.pth",
    "loss": "snapshot_by_loss_epoch_{}.pth",
    "last": "snapshot_last_epoch_{}.pth",
    "common": "snapshot_epoch_{}.pth",  # as globals/snapshot_epochs: all has them written
}


@dataclass(frozen=True)
class Chosen:
    """The snapshot of one fold.

    Attributes:
        fold: The fold.
        epoch: Epoch of the snapshot.
        source: Where it is: where the training wrote it, or the copy.
        copy: Where inference keeps it.
        sha256: Hash of its content, from the training's manifest.
        logged: The log entry of that epoch.
    """

    fold: int
    epoch: int
    source: Path
    copy: Path
    sha256: str
    logged: Mapping[str, Any]


def inference_manifest(root: Path, checkpoint: Checkpoint) -> Path:
    """Return where an inference leaves its manifest."""
    return root / f"manifest_by_{LABELS[checkpoint]}.json"


def checkpoint_for(task: str, asked: Checkpoint) -> Checkpoint:
    """Return the checkpoint whose label the results of a task carry.

    Args:
        task: str of the experiment; ``frozen-features`` has one label for all of them.
        asked: The checkpoint that is asked for.
    """
    return UNCHOSEN if task in HEAD_DECIDES else asked


def read_inference(root: Path, asked: Checkpoint) -> tuple[Checkpoint, Manifest | None]:
    """Return the label and the manifest of the predictions in an output folder.

    For readers that have the folder but not the experiment, such as an ensemble.

    Args:
        root: Output folder of a fine-tuning or of frozen features.
        asked: The checkpoint that is asked for.

    Returns:
        As :func:`checkpoint_for`; None in the place of the manifest if there are no predictions.
    """
    fit = read_manifest(inference_manifest(root, UNCHOSEN))
    if fit is not None and not fit.facts.get("chooses_epochs", True):
        return UNCHOSEN, fit
    return asked, fit if asked == UNCHOSEN else read_manifest(inference_manifest(root, asked))


def checkpoint_of(root: Path, task: str, asked: Checkpoint | None) -> Checkpoint:
    """Return by which snapshots an experiment was inferred.

    Args:
        root: Its output folder.
        task: Its task.
        asked: The requested checkpoint; None for the only one.

    Raises:
        ConfigError: There are several, or there is no such checkpoint.
        OutputError: There is none.
    """
    if asked is not None:
        if asked not in get_args(Checkpoint):
            raise ConfigError(f"checkpoint {asked!r}: must be one of {', '.join(LABELS)}")
        return checkpoint_for(task, asked)
    found = [checkpoint for checkpoint in LABELS if inference_manifest(root, checkpoint).is_file()]
    if not found:
        raise OutputError(
            f"{root}: has predicted nothing yet; run {predicting_command(task, root)} first"
        )
    if len(found) > 1:
        raise ConfigError(
            f"{root}: was inferred by {' and by '.join(found)}; say which, as in -cri {found[0]}"
        )
    return found[0]


def predicting_command(
    task: str | None, folder: Path | str, checkpoint: Checkpoint | None = None
) -> str:
    """Return the command that writes the predictions of an experiment, quoted, for people."""
    if task in HEAD_DECIDES:
        return "'foldsmith train --resume' with the experiment's file"
    return f"'foldsmith infer -e {folder}{f' -cri {checkpoint}' if checkpoint else ''}'"


def making_command(manifest: Manifest, folder: Path | str, checkpoint: Checkpoint) -> str:
    """Return the command that writes predictions again which a manifest lists, for people."""
    fitted = not manifest.facts.get("chooses_epochs", True)
    return predicting_command(HEAD_DECIDES[0] if fitted else None, folder, checkpoint)


def choose(
    root: Path, manifest: Manifest, fold: int, n_splits: int, checkpoint: Checkpoint
) -> Chosen:
    """Find the snapshot of one fold.

    Args:
        root: Output folder of the training.
        manifest: Manifest of the fold.
        fold: The fold.
        n_splits: Number of folds.
        checkpoint: The epoch of the fold's own best validation ``metric`` or ``loss``, the
            ``last``, or the one whose metric is best on average over all folds (``common``).

    Raises:
        OutputError: An earlier inference has deleted it, or it was never written.
    """
    folder = root / f"fold{fold}"
    log = read_log(root, fold)
    validated = validated_entries(log)
    # A lower loss is better; the training's manifest has the direction of its metric.
    upwards = checkpoint != "loss" and bool(manifest.facts.get("greater_is_better", False))
    best = max if upwards else min
    if checkpoint == "last":
        row = log[-1]
    elif checkpoint == "common":
        means = common_curve(root, n_splits)
        row = validated[best(range(len(means)), key=means.__getitem__)]
    else:
        row = best(validated, key=lambda entry: entry[f"val/{checkpoint}"])
    epoch = row["epoch"]
    own = _SNAPSHOTS[checkpoint].format(epoch)
    # A common epoch may be one that was kept for another reason.
    names = (
        [own] if checkpoint != "common" else [name.format(epoch) for name in _SNAPSHOTS.values()]
    )
    copy = root / f"{LABELS[checkpoint]}_model_fold{fold}.pth"
    written = [name for name in names if name in manifest.outputs]
    for name in written:
        for source in (folder / name, copy):
            if source.is_file():
                return Chosen(fold, epoch, source, copy, manifest.outputs[name], row)
    if checkpoint == "common" and not written:
        raise OutputError(
            f"{folder / own}: no such snapshot; the training kept none of epoch {epoch}. Set "
            f"globals/snapshot_epochs: all and train all folds again with -f, or use -cri last"
        )
    raise OutputError(
        f"{folder / own}: no such snapshot, nor its copy {copy.name}; train fold {fold} again "
        f"with -v {fold} -f"
    )


def read_log(root: Path, fold: int) -> list[dict[str, Any]]:
    """Return the log of a fold's training, one entry per epoch.

    Raises:
        OutputError: The log, by which epochs are chosen, was changed after the training.
    """
    folder = root / f"fold{fold}"
    path, again = folder / LOG_FILE, f"train fold {fold} again with -v {fold} -f"
    manifest = read_manifest(folder / MANIFEST)
    if manifest is not None:
        verified(path, manifest, again)
    try:
        log: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise OutputError(f"{path}: is no log of a training; {again}") from None
    return log


def common_curve(root: Path, n_splits: int) -> list[float]:
    """Return the mean over the folds of the validation metric of each validated epoch."""
    logs = [
        [entry["val/metric"] for entry in validated_entries(read_log(root, fold))]
        for fold in range(n_splits)
    ]
    return [sum(values) / n_splits for values in zip(*logs, strict=False)]
