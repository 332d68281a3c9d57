"""Stage 4: out-of-fold and test predictions from the folds' chosen snapshots."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.atomic import copy_file, write_csv, write_json, write_npy
from foldsmith.config import Experiment, Project
from foldsmith.config.difference import differing_keys
from foldsmith.config.yaml_io import read_yaml
from foldsmith.data.images import ImageStore
from foldsmith.data.tables import (
    FOLD_COLUMN,
    hash_columns,
    read_folds,
    read_test,
    submission_table,
    targets_of,
)
from foldsmith.errors import ConfigError, OutputError
from foldsmith.evaluation.oof import FoldLogits, collect_oof, score_table
from foldsmith.evaluation.predict import predict_logits
from foldsmith.models.runtime import create_runtime
from foldsmith.models.weights import load_weights
from foldsmith.stages.output_folder import RECORD, RESOLVED_CONFIG, shown
from foldsmith.stages.types import types_of
from foldsmith.tasks.task import Task, create_task
from foldsmith.training.extensions.log import LOG_FILE

Criterion = Literal["metric", "loss", "last"]

# What the results of each criterion are called: score_by_best_metric.csv, ...
LABELS: dict[Criterion, str] = {"metric": "best_metric", "loss": "best_loss", "last": "last"}


@dataclass(frozen=True)
class _Chosen:
    """The snapshot of one fold: where it is now, and its epoch."""

    fold: int
    epoch: int
    source: Path
    copy: Path


@dataclass(frozen=True)
class _Results:
    """What inference found.

    Attributes:
        oof_logits: Shape (n_train, n_outputs).
        test_logits: Shape (n_folds, n_test, n_outputs).
        scores: The score table.
    """

    oof_logits: npt.NDArray[np.float32]
    test_logits: npt.NDArray[np.float32]
    scores: pd.DataFrame


def infer(
    project: Project,
    experiment_folder: Path | str,
    criterion: Criterion = "metric",
    keep_snapshots: bool = False,
    overrides: Sequence[str] = (),
) -> pd.DataFrame:
    """Predict every labelled photo by the fold that did not see it, and the test photos by all.

    With the criteria ``metric`` and ``loss`` the epoch of a fold was chosen on that same
    fold: its out-of-fold score is a little optimistic. ``last`` chooses nothing.

    Args:
        project: The project.
        experiment_folder: Output folder of :func:`~foldsmith.stages.train.train`, relative
            to the project folder.
        criterion: Which snapshot of each fold: lowest validation metric, lowest validation
            loss, or the last epoch.
        keep_snapshots: Keep the snapshots of the training. Otherwise they are deleted once
            all results are written; the chosen ones stay as copies.
        overrides: ``PATH=VALUE`` each, for instance ``globals/device=cpu``.

    Returns:
        The score table: fold, epoch, loss, metric, last row ``oof``.

    Raises:
        OutputError: A fold is missing or unfinished, was trained with another configuration
            or other folds, or its snapshot is gone.
    """
    if criterion not in get_args(Criterion):
        raise ConfigError(f"criterion {criterion!r}: must be one of {', '.join(LABELS)}")
    root = project.path(experiment_folder)
    label = LABELS[criterion]
    experiment = _load_experiment(project, root, overrides)
    settings = experiment.globals
    types = types_of(project)
    experiment.check(types)
    table = read_folds(project, settings.meta_file)
    test = read_test(project)
    columns = [project.settings.id_column, FOLD_COLUMN]
    folds_sha256 = hash_columns(table, columns)
    _check_folds(project, root, folds_sha256)
    chosen = [_choose(root, fold, criterion) for fold in range(project.n_splits)]
    for item in chosen:
        if item.source != item.copy:
            copy_file(item.source, item.copy)

    runtime = create_runtime(settings)
    task = create_task(settings.task, project)
    images = ImageStore(settings.image_cache_gb)
    context = {"project": project, "images": images, "runtime": runtime, "task": task}
    models, oof_parts = [], []
    for item in chosen:
        parts = experiment.with_values({"globals/val_fold": item.fold}).build(types, context)
        model = parts["model"]
        load_weights(model, item.copy)
        models.append(runtime.place(model))
        loader = parts["loader/val"]
        logits = predict_logits(models[-1:], loader, runtime, f"fold {item.fold}")[0]
        oof_parts.append(FoldLogits(item.fold, item.epoch, loader.dataset.rows, logits))
    # One pass over the test photos for all folds.
    test_logits = predict_logits(models, parts["loader/test"], runtime, "test")

    targets = targets_of(project, table)
    oof_logits = collect_oof(oof_parts, len(table))
    scores = score_table(oof_parts, targets, task, parts["loss"], parts["eval/metric"])

    results = _Results(oof_logits, test_logits, scores)
    _write_results(root, label, project, test, task, results)
    # Last: this file says that the others are complete.
    write_json(
        root / f"inference_by_{label}.json",
        {
            "task": task.name,
            "criterion": criterion,
            "folds_sha256": folds_sha256,
            "test_ids_sha256": hash_columns(test, columns[:1]),
            "n_train": len(table),
            "n_test": len(test),
            "metric": float(scores["metric"].iloc[-1]),
        },
    )
    shown_scores = scores.assign(epoch=scores["epoch"].astype(object).fillna(""))
    print(shown_scores.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    if criterion != "last":
        print(f"(the epoch of each fold was chosen by its own validation {criterion})")
    print(f"wrote {shown(root)}/*_by_{label}*")
    if not keep_snapshots:
        _delete_snapshots(root, project.n_splits)
    return scores


def _write_results(
    root: Path, label: str, project: Project, test: pd.DataFrame, task: Task, results: _Results
) -> None:
    """Write predictions, logits and scores; each file appears whole."""
    oof = task.predict(results.oof_logits)
    fold_predictions = task.predict(results.test_logits)
    for fold, prediction in enumerate(fold_predictions):
        name = f"submission_by_{label}_fold{fold}.csv"
        write_csv(root / name, submission_table(project, test, prediction))
    average = fold_predictions.mean(axis=0)
    write_csv(root / f"submission_by_{label}.csv", submission_table(project, test, average))
    write_npy(root / f"oof_prediction_by_{label}.npy", oof[:, None])
    if task.name == "multi-class":
        write_npy(root / f"oof_logit_by_{label}.npy", results.oof_logits)
        write_npy(root / f"test_logit_by_{label}.npy", results.test_logits)
    write_csv(root / f"score_by_{label}.csv", results.scores)


def _load_experiment(project: Project, root: Path, overrides: Sequence[str]) -> Experiment:
    """Load what a training resolved; its weights come from snapshots, not from ``pretrained``."""
    path = root / RESOLVED_CONFIG
    if not path.is_file():
        raise OutputError(f"{root}: no {RESOLVED_CONFIG}; is it the output folder of a training?")
    experiment = Experiment.load(project, path, overrides)
    if experiment.globals.task not in ("multi-class", "regression"):
        raise OutputError(f"{root}: holds a {experiment.globals.task} run, not a fine-tuning")
    if "pretrained" in experiment.tree["model"]:
        return experiment.with_values({"model/pretrained": None})
    return experiment


def _check_folds(project: Project, root: Path, folds_sha256: str) -> None:
    """Make sure that every fold is finished, and all were trained alike on today's folds."""
    missing = [k for k in range(project.n_splits) if not (root / f"fold{k}" / RECORD).is_file()]
    if missing:
        listed = ",".join(map(str, missing))
        raise OutputError(
            f"{root}: fold {listed} not trained or not finished; run 'foldsmith train' with "
            f"-v {listed} -f"
        )
    first = read_yaml(root / "fold0" / RESOLVED_CONFIG)
    for fold in range(project.n_splits):
        folder = root / f"fold{fold}"
        record = json.loads((folder / RECORD).read_text())
        if record["folds_sha256"] != folds_sha256:
            raise OutputError(
                f"{folder}: was trained with other folds than those of the fold table now; "
                "restore the table or train again"
            )
        differing = differing_keys(first, read_yaml(folder / RESOLVED_CONFIG))
        if differing:
            raise OutputError(
                f"{folder}: was trained with another configuration than fold0 "
                f"({', '.join(differing[:5])}); train it again with -v {fold} -f"
            )


def _choose(root: Path, fold: int, criterion: Criterion) -> _Chosen:
    folder = root / f"fold{fold}"
    log = pd.read_json(folder / LOG_FILE)
    row = len(log) - 1 if criterion == "last" else log[f"val/{criterion}"].to_numpy().argmin()
    epoch = int(log["epoch"].iloc[row])
    copy = root / f"{LABELS[criterion]}_model_fold{fold}.pth"
    by = "last" if criterion == "last" else f"by_{criterion}"
    snapshot = folder / f"snapshot_{by}_epoch_{epoch}.pth"
    if snapshot.is_file():
        return _Chosen(fold, epoch, snapshot, copy)
    if copy.is_file():
        return _Chosen(fold, epoch, copy, copy)
    raise OutputError(
        f"{snapshot}: no such snapshot; an earlier inference deleted it (--keep-snapshots keeps "
        f"them). Train fold {fold} again with -v {fold} -f"
    )


def _delete_snapshots(root: Path, n_splits: int) -> None:
    snapshots = [
        path for k in range(n_splits) for path in (root / f"fold{k}").glob("snapshot_*.pth")
    ]
    size = sum(path.stat().st_size for path in snapshots)
    for path in snapshots:
        path.unlink()
    if snapshots:
        print(
            f"deleted {len(snapshots)} training snapshots in {shown(root)}/fold* "
            f"({size / 2**20:.0f} MiB); "
            "the chosen ones are kept as copies"
        )
