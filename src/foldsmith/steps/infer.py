"""Stage 4: out-of-fold and test predictions from the folds' chosen snapshots."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.config import Components, Context, Criterion, Experiment, TestTimeAugmentation
from foldsmith.config.settings import FINE_TUNINGS
from foldsmith.errors import ConfigError, OutputError
from foldsmith.inference.oof import FoldLogits, collect_oof, oof_predictions, score_table
from foldsmith.inference.predict import predict_in_turn, predict_logits
from foldsmith.models.runtime import Runtime, create_runtime
from foldsmith.models.snapshots import load_weights
from foldsmith.project import ProjectFolder
from foldsmith.project.submission import submission_table
from foldsmith.project.tables import (
    FOLD_COLUMN,
    as_written,
    read_folds,
    read_test,
    readable_test,
)
from foldsmith.steps.checkpoint_choice import LABELS, Chosen, choose, inference_manifest
from foldsmith.steps.fingerprint import as_trained, hash_folds, infer_inputs, without_pretrained
from foldsmith.steps.image_store import open_store
from foldsmith.steps.manifest import (
    MANIFEST,
    Manifest,
    Stopwatch,
    differences,
    read_manifest,
    write_manifest,
)
from foldsmith.steps.oof_summary import (
    constant_score,
    logged_last,
    more_epochs_may_help,
    print_constant,
    print_scores,
    score_facts,
    with_selection_gap,
    with_thresholds,
)
from foldsmith.steps.output_folder import RESOLVED_CONFIG, save_sources, shown
from foldsmith.steps.registry import types_of
from foldsmith.targets.scale_buffer import task_kept
from foldsmith.targets.scoring import mean_prediction, predictions_of
from foldsmith.targets.task import Task
from foldsmith.targets.tasks import create_task
from foldsmith.utils.atomic import copy_file, remove_leftovers, write_csv, write_npy
from foldsmith.utils.hashing import FileHashes
from foldsmith.utils.locking import lock
from foldsmith.utils.owned_files import OwnedFiles

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InferenceResults:
    """Logits and scores of an experiment.

    Attributes:
        oof_logits: Outputs of the networks, shape (n_train, n_outputs): those of a regression, and
            the bins of a label distribution, are on the target scale of the photo's fold.
        test_logits: Shape (n_folds, n_test, n_outputs).
        oof: Predictions in units of the target, shape (n_train,).
        by_fold: Predictions of each fold's model for the test photos, shape (n_folds, n_test).
        average: What these predict together, shape (n_test,).
        scores: The score table.
    """

    oof_logits: npt.NDArray[np.float32]
    test_logits: npt.NDArray[np.float32]
    oof: npt.NDArray[np.float64]
    by_fold: npt.NDArray[np.float64]
    average: npt.NDArray[np.float64]
    scores: pd.DataFrame


def infer(
    project: ProjectFolder,
    experiment_folder: Path | str,
    criterion: Criterion = "metric",
    keep_snapshots: bool = False,
    overrides: Sequence[str] = (),
) -> pd.DataFrame:
    """Predict every labelled photo by the fold that did not see it, and the test photos by all.

    With the criteria ``metric`` and ``loss`` the epoch of a fold was chosen on that same
    fold: its out-of-fold score is optimistic. ``last`` chooses nothing, and ``common`` one epoch
    for all folds by the mean of their validation curves, which leaves little to be lucky with.
    Beside the score stands that of the last epoch; the difference is the *selection gap*.

    Args:
        project: The project.
        experiment_folder: Output folder of :func:`~foldsmith.steps.train.train`, relative
            to the project folder.
        criterion: Which snapshot of each fold: best validation ``metric``, lowest validation
            ``loss``, the ``last`` epoch, or the best epoch of all folds in ``common`` (needs
            ``globals/snapshot_epochs: all`` when training).
        keep_snapshots: Keep the snapshots of the training. Otherwise they are deleted once
            all results are written; those that a criterion chooses stay as copies.
        overrides: ``PATH=VALUE`` each, for instance ``globals/device=cpu``.

    Returns:
        The score table: fold, epoch, loss, metric, last_metric (of the last epoch) and
        selection_gap (by how much the chosen epoch looks better). The row after the folds is
        ``oof``; for a metric of classes ``thresholds`` follows, the score with boundaries
        between the classes that were found on the other folds.

    Raises:
        OutputError: A fold is missing or unfinished, was trained with another configuration
            or other folds, or its snapshot is gone.
    """
    if criterion not in get_args(Criterion):
        raise ConfigError(f"criterion {criterion!r}: must be one of {', '.join(LABELS)}")
    root = project.path(experiment_folder)
    experiment = _load_experiment(project, root, overrides)
    return infer_experiment(experiment, root, criterion, keep_snapshots)


def infer_experiment(
    experiment: Experiment,
    root: Path,
    criterion: Criterion,
    keep_snapshots: bool = False,
) -> pd.DataFrame:
    """Predict what an experiment's folds have learned; as :func:`infer`.

    Args:
        experiment: The fine-tuning.
        root: Its output folder.
        criterion: Which snapshot of each fold.
        keep_snapshots: Keep the snapshots of the training.
    """
    watch = Stopwatch()
    with _lock_all(root, experiment.project.n_splits):
        for folder in (root, *_fold_folders(root, experiment.project.n_splits)):
            remove_leftovers(folder)
        return _infer(experiment, root, criterion, keep_snapshots, watch)


def tidy_inference(root: Path, criterion: Criterion, n_splits: int) -> None:
    """Delete the snapshots that a finished inference has not, if it was killed before."""
    manifest = read_manifest(inference_manifest(root, criterion))
    if manifest is None or manifest.facts.get("keep_snapshots", True):
        return
    if any(_snapshots(root, n_splits)):
        with _lock_all(root, n_splits):
            _delete_snapshots(root, n_splits)


@contextmanager
def _lock_all(root: Path, n_splits: int) -> Iterator[None]:
    """Hold the folder of an experiment and those of its folds."""
    with ExitStack() as locks:
        locks.enter_context(lock(root))
        for folder in _fold_folders(root, n_splits):
            locks.enter_context(lock(folder))
        yield


def _infer(
    experiment: Experiment,
    root: Path,
    criterion: Criterion,
    keep_snapshots: bool,
    watch: Stopwatch,
) -> pd.DataFrame:
    project, label = experiment.project, LABELS[criterion]
    as_given = experiment
    experiment = without_pretrained(experiment)
    settings = experiment.globals
    types = types_of(project)
    experiment.check(types)
    table = read_folds(project, settings.meta_file)
    test = read_test(project)
    manifests = _check_folds(project, root, hash_folds(project, table))
    n_splits = project.n_splits
    chosen = [choose(root, manifests[fold], fold, n_splits, criterion) for fold in range(n_splits)]
    hashes = FileHashes(project.hash_store)
    snapshots = {f"fold{item.fold}": item.sha256 for item in chosen}
    inputs = infer_inputs(experiment, criterion, snapshots, types, hashes)
    hashes.save()
    for item in chosen:
        if hashes.of(item.source) != item.sha256:
            raise OutputError(
                f"{item.source}: is not what the training wrote; train fold {item.fold} again "
                f"with -v {item.fold} -f"
            )
    # The snapshots of all criteria are kept, so that an inference by another one needs no training.
    # The score of the last epoch, which was not chosen, shows the selection gap.
    by_criterion = {each: _whole_snapshots(root, manifests, each, hashes) for each in LABELS}
    last, kept = by_criterion["last"], [item for items in by_criterion.values() for item in items]

    runtime = create_runtime(settings)
    task = create_task(settings, project)
    store = open_store(project, settings, hashes)
    context = Context(images=store, runtime=runtime, task=task)
    models, oof_parts, last_parts = [], [], []
    for item in chosen:
        parts = experiment.with_values({"globals/val_fold": item.fold}).build(types, context)
        parts_of_fold = (parts, item.fold, runtime, settings.tta)
        # The chosen snapshot last: its weights stay in the model.
        of_last = None
        if last and last[item.fold].epoch != item.epoch:
            of_last = _predict_oof(
                last[item.fold].source, last[item.fold].epoch, task, *parts_of_fold
            )
        oof_parts.append(_predict_oof(item.source, item.epoch, task, *parts_of_fold))
        last_parts.append(of_last or oof_parts[-1])
        models.append(parts["model"].cpu())

    labels = task.labels(project, table)
    loss, metric = parts["loss"], parts["eval/metric"]
    scores = score_table(oof_parts, labels, loss, metric)
    if last:
        of_last_epoch = score_table(last_parts, labels, loss, metric)["metric"].to_numpy()
    else:
        of_last_epoch = logged_last(root, chosen, scores["metric"].to_numpy())
    scores = with_selection_gap(scores, of_last_epoch, metric)
    if metric.rounds:
        folds = table[FOLD_COLUMN].to_numpy(dtype=np.int64)
        targets = task.targets(labels)
        oof = oof_predictions(oof_parts, len(table))
        scores = with_thresholds(scores, oof, targets, folds, metric)
    readable = readable_test(project, test)
    of_readable = None
    if len(readable):
        # One pass over the test photos for all folds, or as many as the device holds.
        loader = parts["loader/test"]
        of_readable = predict_in_turn(models, loader, runtime, "test", settings.tta)

    results = results_of(oof_parts, task, labels, of_readable, readable, len(test), scores)
    # From here on the old results are none.
    owned = OwnedFiles(root)
    manifest = inference_manifest(root, criterion)
    owned.record([manifest.name, *(item.copy.name for item in kept)], "infer")
    manifest.unlink(missing_ok=True)
    for item in kept:
        if item.source != item.copy:
            copy_file(item.source, item.copy)
    outputs = write_results(root, label, project, table, test, task, results)
    constant = constant_score(metric, project, table)
    resolved = root / RESOLVED_CONFIG
    if as_given.file.resolve() != resolved.resolve():
        # What readers of the folder go by is as it was run, whatever has happened to it.
        save_sources(root, as_given, "train")
    outputs.append(resolved)
    # Last: this file says that the others are complete.
    write_manifest(
        manifest,
        f"infer {shown(root)}",
        inputs,
        outputs,
        hashes,
        task=task.name,
        device=str(runtime.device),
        n_train=len(table),
        n_test=len(test),
        metric_name=metric.name,
        **score_facts(scores),
        constant=constant,
        keep_snapshots=keep_snapshots,
        wall_s=watch.seconds,
    )
    print_scores(scores, metric, criterion, chosen[0].epoch)
    print_constant(metric, constant)
    advice = more_epochs_may_help(root, n_splits)
    if advice:
        logger.info(advice)
    unread = len(test) - len(readable)
    if unread:
        logger.info(f"({unread} test photos cannot be read; they get {for_unreadable(project)})")
    logger.info(f"wrote {shown(root)}/*_by_{label}*")
    if not keep_snapshots:
        _delete_snapshots(root, project.n_splits)
    return scores


def results_of(
    parts: Sequence[FoldLogits],
    task: Task,
    labels: npt.NDArray[np.float64],
    of_readable: npt.NDArray[np.float32] | None,
    readable: npt.NDArray[np.int64],
    n_test: int,
    scores: pd.DataFrame,
) -> InferenceResults:
    """Return what the models of all folds say of the labelled photos and of those to predict.

    Args:
        parts: Every fold once, in order, each with the task of its fold.
        task: The task without a scale.
        labels: What is learned of each row of the train table, shape (n_train,).
        of_readable: Logits of the test photos that can be read, shape (n_folds, n_readable,
            n_outputs); None if there are none. The others are predicted as the mean of the labels.
        readable: Their rows in the test table, shape (n_readable,).
        n_test: Rows of the test table.
        scores: The score table.
    """
    tasks, n_train = [part.task for part in parts], len(labels)
    logits = np.empty((len(parts), n_test, task.n_outputs), np.float32)
    by_fold = np.empty((len(parts), n_test))
    average = np.empty(n_test)
    by_fold[:] = average[:] = task.predict(task.constant_logits(labels))
    for fold, of_fold in enumerate(tasks):
        logits[fold] = of_fold.constant_logits(labels)
    if of_readable is not None:
        logits[:, readable] = of_readable
        by_fold[:, readable] = predictions_of(tasks, of_readable)
        average[readable] = mean_prediction(tasks, of_readable)
    oof_logits, oof = collect_oof(parts, n_train), oof_predictions(parts, n_train)
    return InferenceResults(oof_logits, logits, oof, by_fold, average, scores)


def _predict_oof(
    snapshot: Path,
    epoch: int,
    task: Task,
    parts: Components,
    fold: int,
    runtime: Runtime,
    tta: TestTimeAugmentation,
) -> FoldLogits:
    """Load a snapshot into a fold's model and predict the photos that it did not see."""
    model, loader = parts["model"], parts["loader/val"]
    load_weights(model, snapshot)
    logits = predict_logits([runtime.place(model)], loader, runtime, f"fold {fold}", tta)[0]
    return FoldLogits(fold, epoch, loader.dataset.rows, logits, task_kept(task, model))


def _whole_snapshots(
    root: Path, manifests: Sequence[Manifest], criterion: Criterion, hashes: FileHashes
) -> list[Chosen]:
    """Return every fold's snapshot by a criterion; none if one is gone or was changed."""
    n_splits = len(manifests)
    try:
        found = [choose(root, manifests[k], k, n_splits, criterion) for k in range(n_splits)]
    except OutputError:
        return []
    whole = all(hashes.of(item.source) == item.sha256 for item in found)
    return found if whole else []


def for_unreadable(project: ProjectFolder) -> str:
    """Return what photos are predicted as that cannot be read, for people."""
    return "the most frequent class" if project.class_names else "the mean of the train targets"


def write_results(
    root: Path,
    label: str,
    project: ProjectFolder,
    table: pd.DataFrame,
    test: pd.DataFrame,
    task: Task,
    results: InferenceResults,
    step: str = "infer",
) -> list[Path]:
    """Write predictions, logits and scores, each file whole.

    Args:
        root: Output folder.
        label: One of :data:`LABELS`.
        project: The project.
        table: The fold table.
        test: The test table.
        task: How logits become predictions.
        results: What to write.
        step: What the files are listed under.

    Returns:
        The files.
    """
    tables: dict[str, pd.DataFrame] = {}
    arrays: dict[str, npt.NDArray[np.float32 | np.float64]] = {}
    oof = results.oof
    for fold, prediction in enumerate(results.by_fold):
        tables[f"submission_by_{label}_fold{fold}.csv"] = submission_table(
            project, test, prediction
        )
    tables[f"submission_by_{label}.csv"] = submission_table(project, test, results.average)
    arrays[f"oof_prediction_by_{label}.npy"] = oof[:, None]
    columns = [project.settings.id_column, FOLD_COLUMN, project.settings.target_column]
    tables[f"oof_prediction_by_{label}.csv"] = table[columns].assign(
        prediction=as_written(project, oof)
    )
    if not task.outputs_target:
        arrays[f"oof_logit_by_{label}.npy"] = results.oof_logits
        arrays[f"test_logit_by_{label}.npy"] = results.test_logits
    tables[f"score_by_{label}.csv"] = results.scores
    OwnedFiles(root).record([*tables, *arrays], step)
    for name, content in tables.items():
        write_csv(root / name, content)
    for name, array in arrays.items():
        write_npy(root / name, array)
    return [root / name for name in (*tables, *arrays)]


def _load_experiment(project: ProjectFolder, root: Path, overrides: Sequence[str]) -> Experiment:
    """Load what a training resolved."""
    path = root / RESOLVED_CONFIG
    if not path.is_file():
        raise OutputError(f"{root}: no {RESOLVED_CONFIG}; is it the output folder of a training?")
    experiment = Experiment.load(project, path, overrides)
    _check_as_trained(Experiment.load(project, path), root)
    if experiment.globals.task == "frozen-features":
        raise OutputError(f"{root}: its predictions come with 'foldsmith train', not with infer")
    if experiment.globals.task not in FINE_TUNINGS:
        raise OutputError(f"{root}: holds a {experiment.globals.task} run, not a fine-tuning")
    return experiment


def _check_as_trained(experiment: Experiment, root: Path) -> None:
    """Make sure that the configuration in the folder is that of its trainings.

    Raises:
        OutputError: It was changed since.
    """
    manifest = read_manifest(root / "fold0" / MANIFEST)
    if manifest is None or experiment.globals.task not in FINE_TUNINGS:
        return
    changed = differences({"config": manifest.inputs["config"]}, {"config": as_trained(experiment)})
    if changed:
        raise OutputError(
            f"{experiment.file}: is not what fold0 was trained with ({'; '.join(changed[:5])}); "
            "'foldsmith run' with the experiment's file writes it again"
        )


def _check_folds(project: ProjectFolder, root: Path, folds_sha256: str) -> list[Manifest]:
    """Return the folds' manifests; all must be finished and trained alike on today's folds."""
    found = [read_manifest(root / f"fold{k}" / MANIFEST) for k in range(project.n_splits)]
    missing = [str(fold) for fold, manifest in enumerate(found) if manifest is None]
    if missing:
        listed = ",".join(missing)
        raise OutputError(
            f"{root}: fold {listed} not trained or not finished; run 'foldsmith train' with "
            f"-v {listed} --resume"
        )
    manifests = [manifest for manifest in found if manifest is not None]
    for fold, manifest in enumerate(manifests):
        folder = root / f"fold{fold}"
        if manifest.inputs["fold assignment"] != folds_sha256:
            raise OutputError(
                f"{folder}: was trained with other folds than those of the fold table now; "
                "restore the table or train again"
            )
        differing = differences(manifests[0].inputs, manifest.inputs | {"fold": 0})
        if differing:
            raise OutputError(
                f"{folder}: was trained with another configuration than fold0 "
                f"({'; '.join(differing[:5])}); train it again with -v {fold} -f"
            )
    return manifests


def _fold_folders(root: Path, n_splits: int) -> list[Path]:
    return [root / f"fold{fold}" for fold in range(n_splits)]


def _snapshots(root: Path, n_splits: int) -> list[Path]:
    """Return the snapshots on the lists of an experiment's folds.

    A file that is gone is among them if a process was killed before it took it off its list.
    """
    folders = _fold_folders(root, n_splits)
    listed = [folder / name for folder in folders for name in OwnedFiles(folder).of()]
    return [path for path in listed if fnmatch(path.name, "snapshot_*.pth")]


def _delete_snapshots(root: Path, n_splits: int) -> None:
    snapshots = _snapshots(root, n_splits)
    there = [path for path in snapshots if path.is_file()]
    size = sum(path.stat().st_size for path in there)
    for folder in dict.fromkeys(path.parent for path in snapshots):
        OwnedFiles(folder).remove(path.name for path in snapshots if path.parent == folder)
    if there:
        logger.info(
            f"deleted {len(there)} training snapshots in {shown(root)}/fold* "
            f"({size / 2**20:.0f} MiB); "
            "those that a criterion chooses are kept as copies"
        )
