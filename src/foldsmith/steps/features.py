"""Members made of frozen features: a small model on a backbone that is not trained further."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from foldsmith.config import Context, Experiment
from foldsmith.config.output_path import check_output
from foldsmith.errors import ConfigError
from foldsmith.inference.oof import FoldLogits, in_table_order, score_table
from foldsmith.inference.predict import image_batches, predict_logits
from foldsmith.models.feature_heads import FeatureHead, fit_head, gives_probabilities, weights_of
from foldsmith.models.fitted_arrays import Arrays, part, prefixed, write_arrays
from foldsmith.models.fitted_heads import FittedHead, gives_labels
from foldsmith.models.learns_from_images import LEARNED, LearnsFromImages, write_learned
from foldsmith.models.number_heads import gives_numbers
from foldsmith.models.runtime import Runtime, create_runtime, seed_everything
from foldsmith.models.threads import with_threads
from foldsmith.project import ProjectFolder
from foldsmith.project.column_forms import OneNumber
from foldsmith.project.label_forms import SeveralLabels
from foldsmith.project.number_forms import SeveralNumbers
from foldsmith.project.tables import (
    FOLD_COLUMN,
    groups_of,
    read_folds,
    read_test,
    readable_test,
    targets_of,
)
from foldsmith.steps.checkpoint_choice import LABELS, UNCHOSEN, inference_manifest
from foldsmith.steps.inputs.predictions import features_inputs, frozen_inputs
from foldsmith.steps.manifest import changed_outputs, differences, read_manifest
from foldsmith.steps.oof_summary import constant_score, print_constant
from foldsmith.steps.output_folder import (
    RESOLVED_CONFIG,
    Start,
    refuse_existing,
    save_sources,
    shown,
)
from foldsmith.steps.predictions import InferenceResults, results_of, write_results
from foldsmith.steps.step_run import StepRun, held
from foldsmith.steps.trial_build import check_components
from foldsmith.targets.classification import MultiClass
from foldsmith.targets.column_scales import Scale, ScaleForm, restore_scale
from foldsmith.targets.metrics import Metric
from foldsmith.targets.multi_label import MultiLabel, logits_of
from foldsmith.targets.multi_regression import MultiRegression
from foldsmith.targets.regression import Regression
from foldsmith.targets.row_weights import training_weights
from foldsmith.targets.scale_buffer import TARGET_SCALE
from foldsmith.targets.task import Task
from foldsmith.utils.atomic import write_npy
from foldsmith.utils.owned_files import OwnedFiles

logger = logging.getLogger(__name__)

TRAIN_FEATURES = "train_features.npy"
TEST_FEATURES = "test_features.npy"
FEATURES_MANIFEST = "features.json"

# No probability is less: its logarithm must be a number.
_LEAST = 1e-12

Array = npt.NDArray[np.float32]


@with_threads
def fit_experiment(experiment: Experiment, start: Start) -> Path:
    """Predict from the features of a frozen backbone, with one head per fold.

    The features of all images are computed once, with the transforms of the validation, and
    kept in the output folder; another head takes them as they are. No epoch is chosen: the files
    that an inference writes for each checkpoint are written once, and stand for all checkpoints. (A
    backbone that was picked by its probe was chosen by the labels of all folds, among about ten.)

    Args:
        experiment: One with the task ``frozen-features``.
        start: Treatment of an existing output folder; ``force`` computes the features again.

    Returns:
        The output folder.

    Raises:
        ConfigError: The experiment is wrong.
        OutputError: The folder exists and ``start`` is ``new``, or another process is at it.
        DataError: A table or image is wrong.
    """
    run = StepRun.of(experiment.project)
    root = _checked_root(experiment, run, start)
    project, manifest = run.project, inference_manifest(root, UNCHOSEN)
    table, test = read_folds(project, experiment.globals.meta_file), read_test(project)
    inputs = run.noted(frozen_inputs(experiment, run.types, run.hashes))
    head, task = head_of(experiment, run.types)
    with held(root):
        owned = _reserve(root, manifest, project.n_splits)
        features = _features(experiment, run.restarted(), root, anew=start == "force")
        folds = _fit_folds(experiment, head, task, table, features[0])
        results = _results(project, folds, task, table, test, features[1])
        run.begin_writing(owned, manifest.name, [head_file(fold.number) for fold in folds], "fit")
        sources = save_sources(root, experiment, "fit")
        outputs = _write(project, root, folds, task, table, test, results)
        constant = constant_score(_metric_of(project, task), project, table)
        run.finish(
            manifest,
            f"fit {shown(root)}",
            inputs,
            outputs,
            task=task.name,
            chooses_epochs=False,
            seed=experiment.globals.seed,
            n_train=len(table),
            n_test=len(test),
            metric_name=_metric_of(project, task).title,
            metric=float(results.scores["metric"].iloc[-1]),
            constant=constant,
        )
        _remove_others(owned, [*outputs, *sources, manifest, root / FEATURES_MANIFEST])
    scores = results.scores.drop(columns="epoch")
    logger.info(scores.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    print_constant(_metric_of(project, task), constant)
    logger.info(f"wrote {shown(root)}/*_by_{LABELS[UNCHOSEN]}* (no epoch is chosen)")
    return root


@dataclass(frozen=True)
class _Fold:
    """One fold's head.

    Attributes:
        number: The fold.
        head: The head, fitted on the other folds.
        oof: Its logits for the rows of the fold.
    """

    number: int
    head: "HeadOfFold"
    oof: FoldLogits


def _checked_root(experiment: Experiment, run: StepRun, start: Start) -> Path:
    """Check an experiment; return its output folder."""
    if experiment.globals.output_root is None:
        raise ConfigError(f"{experiment.file}: globals/output_root is missing")
    check_components(experiment, run.types)
    check_output(experiment, force=start == "force")
    root = run.project.path(experiment.globals.output_root)
    if start == "new":
        refuse_existing(root)
    return root


def _reserve(root: Path, manifest: Path, n_splits: int) -> OwnedFiles:
    """Put the files on the list of the folder, before the features take their time."""
    root.mkdir(parents=True, exist_ok=True)
    owned = OwnedFiles(root)
    owned.record([manifest.name, *map(head_file, range(n_splits))], "fit")
    owned.record([TRAIN_FEATURES, TEST_FEATURES, LEARNED, FEATURES_MANIFEST], "features")
    return owned


def _remove_others(owned: OwnedFiles, kept: Sequence[Path]) -> None:
    """Remove files of an earlier run that this one did not write."""
    names = {path.relative_to(owned.folder).as_posix() for path in kept}
    owned.remove(set(owned.of()) - names)


def _fit_folds(
    experiment: Experiment,
    head: FeatureHead,
    task: Task,
    table: pd.DataFrame,
    features: Array,
) -> list[_Fold]:
    """Fit the head once per fold, on the rows of the other folds."""
    project, settings = experiment.project, experiment.globals
    targets, groups = targets_of(project, table), groups_of(project, table)
    form, reason = task.scale_form(settings.target_scale, targets)
    if reason:
        logger.info(reason)
    folds = table[FOLD_COLUMN].to_numpy(dtype=np.int64)
    return [
        _fit_fold(
            *(fold, head, settings.seed, task, form, folds, targets, groups, features),
            training_weights(project, settings.class_weights, table, folds != fold),
        )
        for fold in range(project.n_splits)
    ]


def _fit_fold(
    fold: int,
    head: FeatureHead,
    seed: int,
    task: Task,
    form: ScaleForm | None,
    folds: npt.NDArray[np.int64],
    targets: npt.NDArray[np.float64],
    groups: npt.NDArray[np.int64],
    features: Array,
    weights: npt.NDArray[np.float64] | None,
) -> _Fold:
    """Fit the head on the other folds and predict the rows of this one."""
    seen, held_out = folds != fold, np.flatnonzero(folds == fold)
    of_fold = task.fitted(targets[seen], form)
    scale = of_fold.scale
    for line in of_fold.lines_of_fold(fold, targets[seen]):
        logger.info(line)
    learned = targets[seen] if scale is None else scale.forward(targets[seen])
    of_seen = weights_of(weights, seen)
    fitted = HeadOfFold(fit_head(head, features[seen], learned, groups[seen], seed, of_seen), scale)
    oof = FoldLogits(
        *(fold, None, held_out, fitted.logits(features[held_out]), of_fold),
        weights=None if weights is None else weights[held_out].astype(np.float32),
    )
    return _Fold(fold, fitted, oof)


def _metric_of(project: ProjectFolder, task: Task) -> Metric:
    """Return the metric that judges the predictions of a task."""
    return project.metric if task.gives_probabilities() else project.metric.for_points()


def _results(
    project: ProjectFolder,
    folds: Sequence[_Fold],
    task: Task,
    table: pd.DataFrame,
    test: pd.DataFrame,
    test_features: Array,
) -> InferenceResults:
    """Score the heads, and predict the test images by all of them."""
    targets, readable = targets_of(project, table), readable_test(project, test)
    oof = [fold.oof for fold in folds]
    scores = score_table(oof, targets, task.loss(), _metric_of(project, task))
    of_readable = None
    if len(readable):
        of_readable = np.stack([fold.head.logits(test_features) for fold in folds])
    return results_of(oof, task, targets, of_readable, readable, len(test), scores)


def _write(
    project: ProjectFolder,
    root: Path,
    folds: Sequence[_Fold],
    task: Task,
    table: pd.DataFrame,
    test: pd.DataFrame,
    results: InferenceResults,
) -> list[Path]:
    """Write heads and predictions; return the outputs for the manifest."""
    heads = [root / head_file(fold.number) for fold in folds]
    for path, fold in zip(heads, folds, strict=True):
        write_arrays(path, fold.head.arrays())
    label = LABELS[UNCHOSEN]
    predictions = write_results(root, label, project, table, test, task, results, "fit")
    names = (TRAIN_FEATURES, TEST_FEATURES, RESOLVED_CONFIG)
    learned = [path for path in (root / LEARNED,) if path.exists()]
    return [*predictions, *heads, *(root / name for name in names), *learned]


def head_of(
    experiment: Experiment, types: Mapping[str, Callable[..., Any]]
) -> tuple[FeatureHead, Task]:
    """Return the head of an experiment, and the task of its outputs: numbers or classes.

    Raises:
        ConfigError: The head gives numbers, and the project's classes have no order; or it gives
            probabilities of other classes than the project's.
    """
    project = experiment.project
    head: FeatureHead = experiment.build(types)["head"]
    given = OneNumber.kind
    if gives_labels(head) or gives_numbers(head):
        given = SeveralLabels.kind if gives_labels(head) else SeveralNumbers.kind
    if project.form.kind != given:
        raise ConfigError(
            f"{experiment.file}: head: {type(head).__name__} does not give {project.form.kind}, "
            "the form of the target in project.yml; for several labels take KernelLabelsHead, "
            "TreesLabelsHead, or LabelsHead with another head; for several numbers take "
            "NumbersHead with a head of one number; for one column take another head"
        )
    if gives_numbers(head):
        return head, MultiRegression.of_project(project)
    if gives_labels(head):
        return head, MultiLabel(project.form.labels)
    if gives_probabilities(head):
        if list(head.class_values) != project.class_values:  # type: ignore[attr-defined]
            raise ConfigError(
                f"{experiment.file}: head: class_values must be those of the project, "
                '"@/project.class_values"'
            )
        return head, MultiClass(tuple(project.class_values), project.class_names)
    if project.class_names:
        raise ConfigError(
            f"{experiment.file}: head: {type(head).__name__} gives numbers, but the class_names of "
            "project.yml have no order; take LogisticHead, or TreesHead with class_values: "
            '"@/project.class_values"'
        )
    return head, Regression(project.target_range)


def _features(experiment: Experiment, run: StepRun, root: Path, anew: bool) -> tuple[Array, Array]:
    """Return the features of the train table and of the readable test images.

    Returns:
        Shapes (n_train, n_features) and (n_readable, n_features).
    """
    inputs = features_inputs(experiment, run.types, run.hashes)
    manifest, files = root / FEATURES_MANIFEST, [root / TRAIN_FEATURES, root / TEST_FEATURES]
    kept = read_manifest(manifest)
    if (
        kept is None
        or anew
        or differences(kept.inputs, inputs)
        or changed_outputs(root, kept, run.hashes)
    ):
        model, *computed = _compute_features(experiment, run)
        manifest.unlink(missing_ok=True)
        for path, array in zip(files, computed, strict=True):
            write_npy(path, array)
        (root / LEARNED).unlink(missing_ok=True)
        if isinstance(model, LearnsFromImages):
            write_learned(model, root / LEARNED)
            files.append(root / LEARNED)
        run.finish(manifest, f"features {shown(root)}", inputs, files)
    train, test = (np.load(path, allow_pickle=False) for path in files[:2])
    return train, test


def _compute_features(experiment: Experiment, run: StepRun) -> tuple[nn.Module, Array, Array]:
    """Return the model, after it has learned if it does so, and the features of all images."""
    project, tta = run.project, experiment.globals.tta
    runtime = create_runtime(experiment.globals)
    # Random weights are a backbone too, and should be the same ones every time.
    seed_everything(experiment.globals.seed)
    context = run.context(experiment.globals, runtime)
    backbone = runtime.place(experiment.build(run.types, context)["model"])
    if isinstance(backbone, LearnsFromImages):
        _learn(backbone, experiment, run, context, runtime)
    by_fold = []
    for fold in range(project.n_splits):
        of_fold = experiment.with_values({"globals/val_fold": fold})
        components = of_fold.build(run.types, context)
        loader = components["loader/val"]
        features = predict_logits([backbone], loader, runtime, f"fold {fold}", tta)[0]
        by_fold.append((loader.dataset.rows, features))
    train = in_table_order(by_fold, sum(len(rows) for rows, _ in by_fold))
    if not len(readable_test(project, read_test(project))):
        return backbone, train, np.empty((0, train.shape[1]), np.float32)
    test = predict_logits([backbone], components["loader/test"], runtime, "test", tta)[0]
    return backbone, train, test


def check_learning(experiment: Experiment, model: object) -> None:
    """Check that an experiment whose model learns from images has a loader of them.

    Raises:
        ConfigError: It has none.
    """
    if isinstance(model, LearnsFromImages) and not experiment.tree["loader"].get("learn"):
        raise ConfigError(
            f"{experiment.file}: loader/learn is missing: {type(model).__name__} learns from "
            "images; take it and dataset/learn from foldsmith:recommended_patches.yml"
        )


def images_to_learn_from(experiment: Experiment, n_images: int) -> int:
    """Return how many images a model learns from without labels.

    Args:
        experiment: An experiment with a ``loader/learn``.
        n_images: Images of its project.
    """
    most: int | None = experiment.tree["dataset"]["learn"].get("most")
    return n_images if most is None else min(n_images, most)


def _learn(
    model: LearnsFromImages,
    experiment: Experiment,
    run: StepRun,
    context: Context,
    runtime: Runtime,
) -> None:
    """Let a model learn from the images of ``loader/learn``."""
    check_learning(experiment, model)
    loader = experiment.build(run.types, context)["loader/learn"]
    with torch.no_grad():
        batches = image_batches(loader, runtime, "learn from images")
        seed = experiment.globals.seed
        model.learn(model.sample(batches, len(loader.dataset), seed), seed)


def head_file(fold: int) -> str:
    """Return the name of the file that holds a fold's fitted head."""
    return f"head_fold{fold}.safetensors"


@dataclass(frozen=True)
class HeadOfFold:
    """The fitted head of a fold, and its scale of the target.

    Attributes:
        fitted: The head.
        scale: Scale of its numbers; None for the target itself, or for classes.
    """

    fitted: FittedHead
    scale: Scale | None

    def logits(self, features: Array) -> Array:
        """Return the head's predictions from features as outputs of its task, float32.

        Numbers are on the scale, shape (n, 1), several of them (n, n_targets); probabilities of
        classes become their logarithms, shape (n, n_classes), those of labels their log odds,
        shape (n, n_labels).
        """
        predicted = self.fitted.predict(features)
        if gives_labels(self.fitted):
            return logits_of(predicted)
        if gives_numbers(self.fitted):
            return predicted.astype(np.float32)
        if predicted.ndim == 1:
            return predicted.astype(np.float32)[:, None]
        return np.log(np.maximum(predicted, _LEAST)).astype(np.float32)

    def arrays(self) -> Arrays:
        """Return all that :meth:`restore` needs."""
        scale = {} if self.scale is None else {TARGET_SCALE: self.scale.array()}
        return prefixed("head", self.fitted.arrays()) | scale

    @classmethod
    def restore(cls, head: FeatureHead, arrays: Arrays) -> "HeadOfFold":
        """Return the head of a fold that gave these arrays.

        Args:
            head: The kind of head that was fitted.
            arrays: Result of :meth:`arrays`.
        """
        kept = arrays.get(TARGET_SCALE)
        scale = None if kept is None else restore_scale(kept)
        return cls(head.restore(part(arrays, "head")), scale)
