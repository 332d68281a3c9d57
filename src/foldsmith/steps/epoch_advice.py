"""Advice on the number of epochs, from the logs of a finished fine-tuning."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foldsmith.steps.manifest import MANIFEST, read_manifest
from foldsmith.training.files import entries_of, validated_entries
from foldsmith.utils.formatting import counted

# A training of fewer epochs has no trend.
_FEWEST_EPOCHS = 3


def improving_folds(logs: Sequence[Sequence[dict[str, Any]]], greater_is_better: bool) -> int:
    """Return in how many folds validation was best near the end of the training.

    That is in the last tenth of the epochs. By chance that is one fold in ten.

    Args:
        logs: Entries of each fold, one per epoch; ``val/metric`` is in entries of validated epochs.
        greater_is_better: Direction of the metric.
    """
    best = max if greater_is_better else min
    found = 0
    for log in logs:
        values = {entry["epoch"]: entry["val/metric"] for entry in validated_entries(log)}
        last_tenth = max(1, len(log) // 10)
        found += best(values, key=values.__getitem__) > len(log) - last_tenth
    return found


def more_epochs_may_help(root: Path, n_splits: int) -> str:
    """Return a sentence if validation still improves at the end of a training; else nothing.

    It does if most folds are best in the last tenth of their epochs. Fewer than three epochs, and
    folds that are not finished, show nothing.

    Args:
        root: Output folder of a fine-tuning.
        n_splits: Number of folds.
    """
    manifests = [read_manifest(root / f"fold{fold}" / MANIFEST) for fold in range(n_splits)]
    finished = [manifest for manifest in manifests if manifest is not None]
    logs = [entries_of(root / f"fold{fold}") for fold in range(n_splits)]
    if len(finished) < n_splits or any(len(log) < _FEWEST_EPOCHS for log in logs):
        return ""
    facts = finished[0].facts
    n = improving_folds(logs, bool(facts.get("greater_is_better", False)))
    if n <= n_splits / 2:
        return ""
    epochs = len(logs[0])
    return (
        f"validation {facts.get('metric', 'metric')} still improves at the last epoch in {n} of "
        f"{counted(n_splits, 'fold')}: more epochs may help (globals/max_epoch {epochs} -> "
        f"{2 * epochs})"
    )
