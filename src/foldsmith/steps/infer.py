"""Stage 4: out-of-fold and test predictions from the folds' chosen snapshots."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import nn

from foldsmith.config import Checkpoint, Components, Experiment, TestTimeAugmentation
from foldsmith.config.check import check_experiment
from foldsmith.config.settings import FINE_TUNINGS, HEAD_DECIDES
from foldsmith.errors import ConfigError, OutputError
from foldsmith.inference.oof import FoldLogits, collect_oof, oof_predictions, score_table
from foldsmith.inference.predict import predict_in_turn, predict_logits
from foldsmith.models.runtime import Runtime, create_runtime
from foldsmith.models.snapshots import load_weights
from foldsmith.models.threads import with_threads
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import (
    FOLD_COLUMN,
    metric_weights_of,
    read_folds,
    read_test,
    readable_test,
)
from foldsmith.steps.checkpoint_choice import LABELS, Chosen, choose, inference_manifest
from foldsmith.steps.data_hashes import hash_folds
from foldsmith.steps.epoch_advice import more_epochs_may_help
from foldsmith.steps.fold_components import weights_of_fold
from foldsmith.steps.inputs.predictions import infer_inputs
from foldsmith.steps.inputs.shared import without_pretrained
from foldsmith.steps.inputs.train import as_trained
from foldsmith.steps.manifest import MANIFEST, Inputs, Manifest, differences, read_manifest
from foldsmith.steps.oof_summary import (
    constant_score,
    logged_last,
    print_constant,
    print_scores,
    score_facts,
    with_decisions,
    with_selection_gap,
)
from foldsmith.steps.output_folder import shown
from foldsmith.steps.predictions import (
    InferenceResults,
    for_unreadable,
    results_of,
    write_results,
)
from foldsmith.steps.run_records import RESOLVED_CONFIG, save_sources
from foldsmith.steps.step_run import StepRun, held
from foldsmith.targets.metrics import Metric
from foldsmith.targets.scale_buffer import task_kept
from foldsmith.targets.scoring import probabilities_of
from foldsmith.targets.task import Task
from foldsmith.targets.tasks import create_task
from foldsmith.utils.atomic import copy_file
from foldsmith.utils.hashing import FileHashes
from foldsmith.utils.owned_files import OwnedFiles

logger = logging.getLogger(__name__)


def infer(
    project: ProjectFolder,
    experiment_folder: Path | str,
    checkpoint: Checkpoint = "metric",
    keep_snapshots: bool = False,
    overrides: Sequence[str] = (),
) -> pd.DataFrame:
    """Predict every labelled image by the fold that did not see it, and the test images by all.

    With ``metric`` and ``loss`` the epoch of a fold was chosen on that same
    fold: its out-of-fold score is optimistic. ``last`` chooses nothing, and ``common`` one epoch
    for all folds by the mean of their validation curves, which leaves little room for luck. The
    score of the last epoch is reported too; the difference is the *selection gap*.

    Args:
        project: The project.
        experiment_folder: Output folder of :func:`~foldsmith.steps.train_command.train`, relative
            to the project folder.
        checkpoint: Which snapshot of each fold: best validation ``metric``, lowest validation
            ``loss``, the ``last`` epoch, or the best epoch of all folds in ``common`` (needs
            ``globals/snapshot_epochs: all`` when training).
        keep_snapshots: Keep the snapshots of the training. Otherwise they are deleted once
            all results are written; the chosen ones stay as copies.
        overrides: ``PATH=VALUE`` each, for instance ``globals/device=cpu``.

    Returns:
        The score table: fold, epoch, loss, metric, last_metric (of the last epoch) and
        selection_gap (how much better the chosen epoch scores). The row after the folds is
        ``oof``; for a metric of decisions ``thresholds`` follows, the score with boundaries
        between the classes that were found on the other folds, or, for classes without an order,
        ``priors``, with factors of their probabilities that were found so.

    Raises:
        OutputError: A fold is missing or unfinished, was trained with another configuration
            or other folds, or its snapshot is missing.
    """
    if checkpoint not in get_args(Checkpoint):
        raise ConfigError(f"checkpoint {checkpoint!r}: must be one of {', '.join(LABELS)}")
    root = project.path(experiment_folder)
    experiment = _load_experiment(project, root, overrides)
    return infer_experiment(experiment, root, checkpoint, keep_snapshots)


@with_threads
def infer_experiment(
    experiment: Experiment,
    root: Path,
    checkpoint: Checkpoint,
    keep_snapshots: bool = False,
) -> pd.DataFrame:
    """Infer a loaded experiment; see :func:`infer`.

    Args:
        experiment: The fine-tuning.
        root: Its output folder.
        checkpoint: Which snapshot of each fold.
        keep_snapshots: Keep the snapshots of the training.
    """
    run, n_splits = StepRun.of(experiment.project), experiment.project.n_splits
    with held(root, *_fold_folders(root, n_splits)):
        scores = _infer(experiment, run, root, checkpoint, keep_snapshots)
        if not keep_snapshots:
            _delete_snapshots(root, n_splits)
    return scores


def tidy_inference(root: Path, checkpoint: Checkpoint, n_splits: int) -> None:
    """Delete the snapshots that a finished inference has not, if it was killed before."""
    manifest = read_manifest(inference_manifest(root, checkpoint))
    if manifest is None or manifest.facts.get("keep_snapshots", True):
        return
    if any(_snapshots(root, n_splits)):
        with held(root, *_fold_folders(root, n_splits)):
            _delete_snapshots(root, n_splits)


def _infer(
    as_given: Experiment, run: StepRun, root: Path, checkpoint: Checkpoint, keep_snapshots: bool
) -> pd.DataFrame:
    """Predict and write; the folders are held."""
    experiment, project = without_pretrained(as_given), run.project
    check_experiment(experiment, run.types)
    table, test = read_folds(project, experiment.globals.meta_file), read_test(project)
    snapshots, inputs = _find_snapshots(experiment, run, root, table, checkpoint)
    task = create_task(experiment.globals, project)
    folds = _predict_folds(experiment, run, task, snapshots)
    results = _results(experiment, folds, root, snapshots, task, table, test)

    manifest = inference_manifest(root, checkpoint)
    copies = [item.copy.name for item in snapshots.kept]
    run.begin_writing(OwnedFiles(root), manifest.name, copies, "infer")
    _copy(snapshots.kept)
    outputs = write_results(root, LABELS[checkpoint], project, table, test, task, results)
    if as_given.file.resolve() != (root / RESOLVED_CONFIG).resolve():
        # Readers of the folder use this file: it records the experiment as it was run now.
        save_sources(root, as_given, "train")
    constant = constant_score(folds.metric, project, table)
    run.finish(
        manifest,
        f"infer {shown(root)}",
        inputs,
        [*outputs, root / RESOLVED_CONFIG],
        task=task.name,
        device=str(folds.runtime.device),
        n_train=len(table),
        n_test=len(test),
        metric_name=folds.metric.title,
        **score_facts(results.scores),
        constant=constant,
        keep_snapshots=keep_snapshots,
    )
    print_scores(results.scores, folds.metric, checkpoint, snapshots.chosen[0].epoch)
    print_constant(folds.metric, constant)
    _print_notes(project, root, test)
    logger.info(f"wrote {shown(root)}/*_by_{LABELS[checkpoint]}*")
    return results.scores


@dataclass(frozen=True)
class _Snapshots:
    """The snapshots that an inference uses and keeps.

    Attributes:
        chosen: The predicting snapshot of each fold.
        last: Snapshot of each fold's last epoch; empty if one is missing or was changed.
        kept: Snapshots needed by any choice of checkpoint, so that another inference needs no
            training.
    """

    chosen: list[Chosen]
    last: list[Chosen]
    kept: list[Chosen]


def _find_snapshots(
    experiment: Experiment, run: StepRun, root: Path, table: pd.DataFrame, checkpoint: Checkpoint
) -> tuple[_Snapshots, Inputs]:
    """Return the snapshots of all folds, and the inputs of the inference.

    Raises:
        OutputError: A fold is not trained, or a snapshot is missing or was changed.
    """
    manifests = _check_folds(run.project, root, hash_folds(run.project, table))
    n_splits = len(manifests)
    chosen = [choose(root, manifests[k], k, n_splits, checkpoint) for k in range(n_splits)]
    digests = {f"fold{item.fold}": item.sha256 for item in chosen}
    inputs = run.noted(infer_inputs(experiment, checkpoint, digests, run.types, run.hashes))
    for item in chosen:
        if run.hashes.of(item.source) != item.sha256:
            raise OutputError(
                f"{item.source}: is not what the training wrote; train fold {item.fold} again "
                f"with -v {item.fold} -f"
            )
    whole = {each: _whole_snapshots(root, manifests, each, run.hashes) for each in LABELS}
    kept = [item for items in whole.values() for item in items]
    return _Snapshots(chosen, whole["last"], kept), inputs


def _copy(snapshots: Sequence[Chosen]) -> None:
    for item in snapshots:
        if item.source != item.copy:
            copy_file(item.source, item.copy)


@dataclass(frozen=True)
class _Folds:
    """The models of all folds, and their predictions for the images that they did not see.

    Attributes:
        runtime: Device and precision.
        components: The components of the last fold: the folds share test images and metric.
        models: The model of each fold, on the CPU.
        oof: Logits of the chosen snapshots.
        of_last_epoch: Logits of the last epoch; empty if its snapshots are missing.
    """

    runtime: Runtime
    components: Components
    models: list[nn.Module]
    oof: list[FoldLogits]
    of_last_epoch: list[FoldLogits]

    @property
    def metric(self) -> Metric:
        """The metric of the experiment."""
        metric: Metric = self.components["eval/metric"]
        return metric

    def with_weights(self, experiment: Experiment, table: pd.DataFrame) -> "_Folds":
        """Return the folds with the weights of their images in the loss."""
        folds = table[FOLD_COLUMN].to_numpy()

        def weighted(part: FoldLogits) -> FoldLogits:
            weights = weights_of_fold(experiment, table, folds != part.fold)
            return part if weights is None else replace(part, weights=weights[part.rows])

        of_last = list(map(weighted, self.of_last_epoch))
        return replace(self, oof=list(map(weighted, self.oof)), of_last_epoch=of_last)


def _predict_folds(
    experiment: Experiment, run: StepRun, task: Task, snapshots: _Snapshots
) -> _Folds:
    """Predict each fold's images by its chosen snapshot, and by its last epoch's."""
    runtime, tta = create_runtime(experiment.globals), experiment.globals.tta
    context = run.context(experiment.globals, runtime, task)
    last = snapshots.last
    models, oof, of_last_epoch = [], [], []
    for item in snapshots.chosen:
        of_fold = experiment.with_values({"globals/val_fold": item.fold})
        components = of_fold.build(run.types, context)
        predict = partial(_predict_oof, task=task, components=components, runtime=runtime, tta=tta)
        # The chosen snapshot comes last: its weights stay in the model.
        other_last = last and last[item.fold].epoch != item.epoch
        logits_of_last = predict(last[item.fold]) if other_last else None
        oof.append(predict(item))
        if last:
            of_last_epoch.append(logits_of_last or oof[-1])
        models.append(components["model"].cpu())
    return _Folds(runtime, components, models, oof, of_last_epoch)


def _results(
    experiment: Experiment,
    folds: _Folds,
    root: Path,
    snapshots: _Snapshots,
    task: Task,
    table: pd.DataFrame,
    test: pd.DataFrame,
) -> InferenceResults:
    """Score the folds, predict the test images and put everything together."""
    project = experiment.project
    labels, readable = task.labels(project, table), readable_test(project, test)
    folds = folds.with_weights(experiment, table)
    scores = _score(
        *(folds, root, snapshots, task, table, labels), metric_weights_of(project, table)
    )
    of_readable = _predict_test(experiment, folds) if len(readable) else None
    return results_of(folds.oof, task, labels, of_readable, readable, len(test), scores)


def _score(
    folds: _Folds,
    root: Path,
    snapshots: _Snapshots,
    task: Task,
    table: pd.DataFrame,
    labels: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64] | None,
) -> pd.DataFrame:
    """Return the score table of :func:`infer`."""
    loss, metric = folds.components["loss"], folds.metric
    scores = score_table(folds.oof, labels, loss, metric, weights)
    # The last epoch was not chosen by its score: the difference is the selection gap.
    if folds.of_last_epoch:
        scores_of_last = score_table(folds.of_last_epoch, labels, loss, metric, weights)
        of_last = scores_of_last["metric"].to_numpy()
    else:
        of_last = logged_last(root, snapshots.chosen, scores["metric"].to_numpy())
    scores = with_selection_gap(scores, of_last, metric)
    if metric.takes_probabilities:
        oof = probabilities_of(task, collect_oof(folds.oof, len(table)))
    else:
        oof = oof_predictions(folds.oof, len(table))
    fold_numbers = table[FOLD_COLUMN].to_numpy(dtype=np.int64)
    return with_decisions(scores, oof, task.targets(labels), fold_numbers, metric, weights)


def _predict_test(experiment: Experiment, folds: _Folds) -> npt.NDArray[np.float32]:
    """Return the logits of all folds for the test images, shape (n_folds, n, n_outputs)."""
    loader, tta = folds.components["loader/test"], experiment.globals.tta
    # One pass over the images for all folds, or for as many as the device holds.
    return predict_in_turn(folds.models, loader, folds.runtime, "test", tta)


def _print_notes(project: ProjectFolder, root: Path, test: pd.DataFrame) -> None:
    """Print reasons for optimistic scores, and the number of images that get a constant."""
    if advice := more_epochs_may_help(root, project.n_splits):
        logger.info(advice)
    if n_unread := len(test) - len(readable_test(project, test)):
        logger.info(f"({n_unread} test images cannot be read; they get {for_unreadable(project)})")


def _predict_oof(
    snapshot: Chosen,
    task: Task,
    components: Components,
    runtime: Runtime,
    tta: TestTimeAugmentation,
) -> FoldLogits:
    """Load a snapshot into its fold's model and predict the images that it did not see."""
    model, loader = components["model"], components["loader/val"]
    load_weights(model, snapshot.source)
    logits = predict_logits([runtime.place(model)], loader, runtime, f"fold {snapshot.fold}", tta)
    fold, epoch, rows = snapshot.fold, snapshot.epoch, loader.dataset.rows
    return FoldLogits(fold, epoch, rows, logits[0], task_kept(task, model))


def _whole_snapshots(
    root: Path, manifests: Sequence[Manifest], checkpoint: Checkpoint, hashes: FileHashes
) -> list[Chosen]:
    """Return every fold's snapshot of a checkpoint; none if one is missing or was changed."""
    n_splits = len(manifests)
    try:
        found = [choose(root, manifests[k], k, n_splits, checkpoint) for k in range(n_splits)]
    except OutputError:
        return []
    whole = all(hashes.of(item.source) == item.sha256 for item in found)
    return found if whole else []


def _load_experiment(project: ProjectFolder, root: Path, overrides: Sequence[str]) -> Experiment:
    """Load the resolved experiment of a training."""
    path = root / RESOLVED_CONFIG
    if not path.is_file():
        raise OutputError(f"{root}: no {RESOLVED_CONFIG}; is it the output folder of a training?")
    experiment = Experiment.load(project, path, overrides)
    _check_as_trained(Experiment.load(project, path), root)
    if experiment.globals.task in HEAD_DECIDES:
        raise OutputError(f"{root}: its predictions come with 'foldsmith train', not with infer")
    if experiment.globals.task not in FINE_TUNINGS:
        raise OutputError(f"{root}: holds a {experiment.globals.task} run, not a fine-tuning")
    return experiment


def _check_as_trained(experiment: Experiment, root: Path) -> None:
    """Check that the configuration in the folder equals that of its trainings.

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

    A missing file is among them if a process was killed before it updated its list.
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
            "the chosen ones are kept as copies"
        )
