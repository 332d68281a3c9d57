"""Members made of frozen features: a small model on a backbone that is not trained further."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from foldsmith.config import Context, Experiment
from foldsmith.config.output_path import check_output
from foldsmith.errors import ConfigError
from foldsmith.inference.oof import FoldLogits, in_table_order, score_table
from foldsmith.inference.predict import predict_logits
from foldsmith.models.feature_heads import FeatureHead, gives_probabilities
from foldsmith.models.fitted_arrays import Arrays, part, prefixed, write_arrays
from foldsmith.models.fitted_heads import FittedHead
from foldsmith.models.runtime import create_runtime, seed_everything
from foldsmith.project.tables import (
    FOLD_COLUMN,
    groups_of,
    read_folds,
    read_test,
    readable_test,
    targets_of,
)
from foldsmith.steps.checkpoint_choice import LABELS, UNCHOSEN, inference_manifest
from foldsmith.steps.fingerprint import features_inputs, frozen_inputs
from foldsmith.steps.image_store import open_store
from foldsmith.steps.manifest import (
    Stopwatch,
    changed_outputs,
    differences,
    read_manifest,
    write_manifest,
)
from foldsmith.steps.oof_summary import constant_score, print_constant
from foldsmith.steps.output_folder import (
    RESOLVED_CONFIG,
    Start,
    refuse_existing,
    save_sources,
    shown,
)
from foldsmith.steps.predictions import results_of, write_results
from foldsmith.steps.registry import types_of
from foldsmith.steps.trial_build import check_components
from foldsmith.targets.classification import MultiClass
from foldsmith.targets.regression import Regression
from foldsmith.targets.scale import TargetScale, form_of, lines_of_fold
from foldsmith.targets.scale_buffer import TARGET_SCALE
from foldsmith.targets.task import Task
from foldsmith.utils.atomic import remove_leftovers, write_npy
from foldsmith.utils.hashing import FileHashes
from foldsmith.utils.locking import lock
from foldsmith.utils.owned_files import OwnedFiles

logger = logging.getLogger(__name__)

TRAIN_FEATURES = "train_features.npy"
TEST_FEATURES = "test_features.npy"
FEATURES_MANIFEST = "features.json"

# No probability is less: its logarithm must be a number.
_LEAST = 1e-12

Array = npt.NDArray[np.float32]


def fit_experiment(experiment: Experiment, start: Start) -> Path:
    """Predict from the features of a frozen backbone: per fold one head that has not seen it.

    The features of all photos are computed once, with the transforms of the validation, and
    kept in the output folder; another head takes them as they are. No epoch is chosen: the files
    that an inference writes for each criterion are written once, and stand for all criteria. (A
    backbone that was picked by its probe was chosen by the labels of all folds, among about ten.)

    Args:
        experiment: One with the task ``frozen-features``.
        start: What to do with an existing output folder; ``force`` computes the features anew.

    Returns:
        The output folder.

    Raises:
        ConfigError: The experiment is wrong.
        OutputError: The folder exists and ``start`` is ``new``, or another process is at it.
        DataError: A table or photo is wrong.
    """
    watch = Stopwatch()
    project, settings = experiment.project, experiment.globals
    if settings.output_root is None:
        raise ConfigError(f"{experiment.file}: globals/output_root is missing")
    types = types_of(project)
    check_components(experiment, types)
    check_output(experiment, force=start == "force")
    root = project.path(settings.output_root)
    if start == "new":
        refuse_existing(root)
    table, test = read_folds(project, settings.meta_file), read_test(project)
    hashes = FileHashes(project.hash_store)
    inputs = frozen_inputs(experiment, types, hashes)
    hashes.save()
    head, task = head_of(experiment, types)
    with lock(root):
        root.mkdir(parents=True, exist_ok=True)
        remove_leftovers(root)
        owned = OwnedFiles(root)
        manifest = inference_manifest(root, UNCHOSEN)
        heads = [head_file(fold) for fold in range(project.n_splits)]
        owned.record([manifest.name, *heads], "fit")
        owned.record([TRAIN_FEATURES, TEST_FEATURES, FEATURES_MANIFEST], "features")
        features, test_features = _features(experiment, root, types, hashes, start == "force")
        targets = targets_of(project, table)
        parts: list[FoldLogits] = []
        of_test: list[Array] = []
        fitted_heads: list[HeadOfFold] = []
        form = None
        if task.learns_numbers:
            form, reason = form_of(settings.target_scale, targets)
            if reason:
                logger.info(reason)
        folds = table[FOLD_COLUMN].to_numpy(dtype=np.int64)
        groups, readable = groups_of(project, table), readable_test(project, test)
        for fold in range(project.n_splits):
            seen, held_out = folds != fold, np.flatnonzero(folds == fold)
            of_fold = task.fitted(targets[seen], form)
            for line in lines_of_fold(fold, of_fold.scale, targets[seen]):
                logger.info(line)
            learned = targets[seen]
            if of_fold.scale is not None:
                learned = of_fold.scale.forward(learned)
            fitted = head.fit(features[seen], learned, groups[seen], settings.seed)
            head_of_fold = HeadOfFold(fitted, of_fold.scale)
            fitted_heads.append(head_of_fold)
            logits = head_of_fold.logits(features[held_out])
            parts.append(FoldLogits(fold, None, held_out, logits, of_fold))
            if len(readable):
                of_test.append(head_of_fold.logits(test_features))
        of_classes = task.gives_probabilities()
        metric = project.metric if of_classes else project.metric.for_points()
        scores = score_table(parts, targets, task.loss(), metric)
        of_readable = np.stack(of_test) if of_test else None
        results = results_of(parts, task, targets, of_readable, readable, len(test), scores)
        constant = constant_score(metric, project, table)
        # From here on the old results are none.
        manifest.unlink(missing_ok=True)
        sources = save_sources(root, experiment, "fit")
        for name, fitted_head in zip(heads, fitted_heads, strict=True):
            write_arrays(root / name, fitted_head.arrays())
        outputs = write_results(root, LABELS[UNCHOSEN], project, table, test, task, results, "fit")
        names = (*heads, TRAIN_FEATURES, TEST_FEATURES, RESOLVED_CONFIG)
        outputs += [root / name for name in names]
        write_manifest(
            manifest,
            f"fit {shown(root)}",
            inputs,
            outputs,
            hashes,
            task=task.name,
            chooses_epochs=False,
            seed=settings.seed,
            n_train=len(table),
            n_test=len(test),
            metric_name=metric.name,
            metric=float(scores["metric"].iloc[-1]),
            constant=constant,
            wall_s=watch.seconds,
        )
        kept = (*outputs, *sources, manifest, root / FEATURES_MANIFEST)
        made = {path.relative_to(root).as_posix() for path in kept}
        owned.remove(set(owned.of()) - made)
    shown_scores = scores.drop(columns="epoch")
    logger.info(shown_scores.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    print_constant(metric, constant)
    logger.info(f"wrote {shown(root)}/*_by_{LABELS[UNCHOSEN]}* (no epoch is chosen)")
    return root


def head_of(
    experiment: Experiment, types: Mapping[str, Callable[..., Any]]
) -> tuple[FeatureHead, Task]:
    """Return the head of an experiment, and what becomes of its outputs: numbers or classes.

    Raises:
        ConfigError: The head gives numbers, and the project's classes have no order; or it gives
            probabilities of other classes than the project's.
    """
    project = experiment.project
    head: FeatureHead = experiment.build(types)["head"]
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


def _features(
    experiment: Experiment,
    root: Path,
    types: Mapping[str, Callable[..., Any]],
    hashes: FileHashes,
    anew: bool,
) -> tuple[Array, Array]:
    """Return the features of the train table and of the readable test photos.

    Returns:
        Shapes (n_train, n_features) and (n_readable, n_features).
    """
    inputs = features_inputs(experiment, types, hashes)
    kept = read_manifest(root / FEATURES_MANIFEST)
    if (
        kept is None
        or anew
        or differences(kept.inputs, inputs)
        or changed_outputs(root, kept, hashes)
    ):
        watch = Stopwatch()
        train, test = _compute_features(experiment, types, hashes)
        (root / FEATURES_MANIFEST).unlink(missing_ok=True)
        write_npy(root / TRAIN_FEATURES, train)
        write_npy(root / TEST_FEATURES, test)
        write_manifest(
            root / FEATURES_MANIFEST,
            f"features {shown(root)}",
            inputs,
            [root / TRAIN_FEATURES, root / TEST_FEATURES],
            hashes,
            wall_s=watch.seconds,
        )
    return (
        np.load(root / TRAIN_FEATURES, allow_pickle=False),
        np.load(root / TEST_FEATURES, allow_pickle=False),
    )


def _compute_features(
    experiment: Experiment, types: Mapping[str, Callable[..., Any]], hashes: FileHashes
) -> tuple[Array, Array]:
    project, settings = experiment.project, experiment.globals
    runtime = create_runtime(settings)
    # Random weights are a backbone too, and should be the same ones every time.
    seed_everything(settings.seed)
    context = Context(images=open_store(project, settings, hashes), runtime=runtime)
    backbone = runtime.place(experiment.build(types, context)["model"])
    by_fold = []
    for fold in range(project.n_splits):
        parts = experiment.with_values({"globals/val_fold": fold}).build(types, context)
        loader = parts["loader/val"]
        features = predict_logits([backbone], loader, runtime, f"fold {fold}", settings.tta)[0]
        by_fold.append((loader.dataset.rows, features))
    train = in_table_order(by_fold, sum(len(rows) for rows, _ in by_fold))
    if not len(readable_test(project, read_test(project))):
        return train, np.empty((0, train.shape[1]), np.float32)
    test = predict_logits([backbone], parts["loader/test"], runtime, "test", settings.tta)[0]
    return train, test


def head_file(fold: int) -> str:
    """Return the name of the file that holds a fold's fitted head."""
    return f"head_fold{fold}.safetensors"


@dataclass(frozen=True)
class HeadOfFold:
    """What a fold has learned from features, and on which scale of the target.

    Attributes:
        fitted: The head.
        scale: What its numbers are in units of; None for the target itself, or for classes.
    """

    fitted: FittedHead
    scale: TargetScale | None

    def logits(self, features: Array) -> Array:
        """Return what the head predicts from features as outputs of its task, float32.

        Numbers are on the scale, shape (n, 1); probabilities become their logarithms, shape
        (n, n_classes).
        """
        predicted = self.fitted.predict(features)
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
            arrays: What :meth:`arrays` returned.
        """
        kept = arrays.get(TARGET_SCALE)
        scale = None if kept is None else TargetScale.restore(kept)
        return cls(head.restore(part(arrays, "head")), scale)
