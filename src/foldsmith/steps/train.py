"""Stage 3: K-fold fine-tuning."""

import copy
import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from foldsmith.config import Components, Context, Experiment
from foldsmith.config.output_path import check_output, claimant
from foldsmith.config.settings import FINE_TUNINGS
from foldsmith.data.loader import PhotoLoader, one_photo
from foldsmith.distributed import process_group
from foldsmith.distributed.collectives import same_weights, synchronised
from foldsmith.errors import ConfigError, OutputError, one_line
from foldsmith.inference.predict import measure_norms, predict_logits
from foldsmith.models.classifier import ImageModel
from foldsmith.models.feature_heads import ridge_layer
from foldsmith.models.measured_choices import Measured, tune
from foldsmith.models.runtime import Runtime, create_runtime, random_state_kept, seed_everything
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import FOLD_COLUMN
from foldsmith.steps.features import fit_experiment
from foldsmith.steps.fingerprint import train_inputs
from foldsmith.steps.fold_components import build_fold, read_labels, set_labels
from foldsmith.steps.image_store import open_store
from foldsmith.steps.manifest import MANIFEST, Inputs, Stopwatch, write_manifest
from foldsmith.steps.oof_summary import more_epochs_may_help
from foldsmith.steps.output_folder import (
    Start,
    State,
    check_unchanged,
    claimed,
    clean_up,
    decide,
    note_replacement,
    open_folder,
    outputs_of,
    owner_of_resume,
    prepare,
    read_resume,
    refuse_existing,
    restore_records,
    save_sources,
    shown,
    start_in,
)
from foldsmith.steps.registry import types_of
from foldsmith.steps.trial_build import check_components
from foldsmith.targets.auxiliary import read_auxiliary
from foldsmith.targets.metrics import Metric
from foldsmith.targets.scale import form_of, lines_of_fold
from foldsmith.targets.scoring import check_metric
from foldsmith.targets.task import Task
from foldsmith.targets.tasks import create_task
from foldsmith.training.auxiliary import AuxiliaryLoss
from foldsmith.training.epoch_report import EpochReport
from foldsmith.training.extensions.beginning import Beginning
from foldsmith.training.extensions.loggers import loggers_of
from foldsmith.training.extensions.memory import MemoryPeak
from foldsmith.training.extensions.progress import Progress
from foldsmith.training.extensions.snapshots import every_epoch_snapshot, restore, resume_snapshot
from foldsmith.training.loop import run_training
from foldsmith.training.manager import extend
from foldsmith.training.steps import FineTuneStep
from foldsmith.utils.hashing import FileHashes
from foldsmith.utils.locking import lock
from foldsmith.utils.owned_files import OwnedFiles

logger = logging.getLogger(__name__)

Listener = Callable[[EpochReport], None]


def train(
    project: ProjectFolder,
    config: Path | str,
    overrides: Sequence[str] = (),
    folds: Sequence[int] | None = None,
    force: bool = False,
    resume: bool = False,
) -> Path:
    """Fine-tune one model per fold, each validated on the fold it does not see.

    Writes into ``{output_root}/fold{k}`` the log, plots, and snapshots of the model at the
    best validation metric, at the lowest validation loss and after the last epoch.

    Processes that torchrun has started train together
    (:mod:`foldsmith.distributed.process_group`); processes that it restarts continue.

    Args:
        project: The project.
        config: Experiment file, relative to the project folder.
        overrides: ``PATH=VALUE`` each.
        folds: Folds to train; all, or those of ``globals/val_fold``, if None.
        force: Allow existing output; the chosen folds are trained anew.
        resume: Skip the chosen folds that are finished and continue the others after their
            last finished epoch. The result is that of a run which was never interrupted.

    Returns:
        The output folder of the experiment.

    Raises:
        ConfigError: The experiment is wrong or no fine-tuning, or a fold does not exist.
        OutputError: A fold has been trained already, or is being trained.
        DataError: A table or photo is wrong.
        TrainingError: The loss is not a number.
    """
    start: Start = "resume" if resume else "force" if force else "new"
    with process_group.joined():
        with process_group.main_first():
            experiment = Experiment.load(project, Path(config), overrides)
        if experiment.globals.task != "frozen-features":
            return train_folds(experiment, folds, start)
        if folds is not None:
            raise ConfigError(f"{experiment.file}: frozen features are fitted in all folds at once")
        if process_group.size() > 1:
            raise ConfigError(f"{experiment.file}: frozen features are fitted without torchrun")
        return fit_experiment(experiment, start)


def train_folds(
    experiment: Experiment,
    folds: Sequence[int] | None,
    start: Start,
    listener: Listener | None = None,
) -> Path:
    """Fine-tune what an experiment says; as :func:`train`.

    Args:
        experiment: A fine-tuning.
        folds: Folds to train; None as in :func:`train`.
        start: What to do with existing output folders.
        listener: Called after each epoch.
    """
    project, settings = experiment.project, experiment.globals
    with process_group.main_first():
        types = types_of(project)
        hashes = FileHashes(project.hash_store)
        root = _root_of(experiment)
        check_components(experiment, types)
        check_output(experiment, force=start == "force")
        chosen = _chosen_folds(project, settings.val_fold if folds is None else list(folds))
        task = create_task(settings, project)
        _, all_labels = read_labels(experiment, task)
        form = None
        if task.learns_numbers:
            form, reason = form_of(settings.target_scale, all_labels)
            if reason and process_group.is_main():
                logger.info(reason)
        # The others look when the main process has made them.
        for fold in chosen if process_group.is_main() else []:
            start_here = start_in(root / f"fold{fold}", start)
            if start_here == "new":
                refuse_existing(root / f"fold{fold}")
            elif start_here == "force":
                inputs = train_inputs(experiment, fold, types, hashes)
                note_replacement(root / f"fold{fold}", inputs)
        if start == "resume" and not root.exists():
            raise OutputError(f"{root}: no such folder to resume in; leave out --resume")
        runtime = create_runtime(settings)
        context = Context(images=open_store(project, settings, hashes), runtime=runtime, task=task)
    for fold in chosen:
        watch = Stopwatch()
        folder = root / f"fold{fold}"
        inputs = process_group.from_main(partial(train_inputs, experiment, fold, types, hashes))
        hashes.save()
        start_here = process_group.from_main(partial(start_in, folder, start))
        of_fold = experiment.with_values(
            {"globals/val_fold": fold, "globals/output_path": f"{settings.output_root}/fold{fold}"}
        )
        if process_group.from_main(partial(decide, folder, inputs, start_here)) == "done":
            if process_group.is_main():
                with lock(folder):
                    clean_up(folder, keep_resume=False)
                    restore_records(folder, of_fold, hashes)
            logger.info(f"fold {fold}: finished already")
            continue
        with process_group.main_first():
            seed_everything(settings.seed)
            built = of_fold.with_values({"globals/output_path": str(folder)})
            made = build_fold(built, types, context, task, form)
            parts, task_of_fold, labels = made.parts, made.task, made.labels
            context = replace(context, task=task_of_fold)
            parts["loader/train"].check_shares()
            auxiliary = _add_auxiliary(of_fold, parts["model"], made.table, runtime)
            measured = Measured(project.measurements)
            metric: Metric = parts["eval/metric"]
            check_metric(task, metric)
            model = tune(parts["model"], parts["loader/train"], settings, runtime, measured)
            # What is wrong with the parts shows before anything is created or replaced.
            check_outputs(experiment, model, parts["loader/val"], task, runtime)
            check_batches(experiment, model, parts["loader/train"], runtime)
            of_train = None
            if settings.head_init == "ridge":
                val_as_train = of_fold.with_values({"dataset/val/part": "train"})
                of_train = val_as_train.build(types, context)["loader/val"]
                set_labels(of_train, task_of_fold, labels)
                if isinstance(model, ImageModel) and not model.freeze_backbone:
                    measure_norms(model.backbone, of_train, runtime)
        model = synchronised(model)
        if of_train is not None:
            _start_head(model, of_train, runtime)
            # Another machine may have rounded it otherwise.
            model = same_weights(model)
        with process_group.main_first():
            # Built when the weights are what the training starts from: an average copies them.
            for part in ("loss", "optimizer", "scheduler", "ema", "manager", "extensions"):
                parts[part]
        step_name = f"train {settings.output_root} fold {fold}"
        with claimed(folder):
            # Again, now that nobody else can change it.
            now = process_group.from_main(partial(train_inputs, experiment, fold, types, hashes))
            check_unchanged(inputs, now, folder)
            state = process_group.from_main(partial(decide, folder, inputs, start_here))
            if state == "done":  # by another process, while the parts were built
                logger.info(f"fold {fold}: finished already")
                continue
            begin = partial(_begin, experiment, of_fold, fold, root, step_name, inputs, state)
            beginning = Beginning(begin)
            with process_group.main_first():
                if process_group.is_main():
                    # Claim the root first: a kill may leave nothing in it but an unfinished fold.
                    if OwnedFiles(root).experiment is None:
                        with lock(root, wait_s=60):
                            OwnedFiles(root).claim(claimant(experiment))
                    # What an earlier training has left stays until this one has something to keep.
                    earlier = open_folder(folder)
                    if state == "continue" or not earlier:
                        beginning.now()
            logger.info(f"fold {fold}: {settings.task}, {runtime.device}, {shown(folder)}")
            if process_group.is_main():
                for line in lines_of_fold(fold, task_of_fold.scale, labels[made.seen]):
                    logger.info(line)
            progress = Progress(folder, settings.max_epoch, listener)
            owner = owner_of_resume(step_name, inputs)
            _train_fold(
                *(of_fold, parts, model, task_of_fold, auxiliary, runtime, state, progress, owner),
                beginning,
            )
            if process_group.is_main():
                write_manifest(
                    folder / MANIFEST,
                    step_name,
                    inputs,
                    outputs_of(folder),
                    hashes,
                    task=settings.task,
                    seed=settings.seed,
                    device=str(runtime.device),
                    processes=process_group.size(),
                    started_by=process_group.started_by(),
                    max_epoch=settings.max_epoch,
                    metric=metric.name,
                    greater_is_better=metric.greater_is_better,
                    epoch_s=progress.epoch_s,
                    wall_s=watch.seconds,
                )
                clean_up(folder, keep_resume=False)
        # The manager and its extensions refer to each other: free the models and workers now.
        del parts, model
        gc.collect()
    if process_group.is_main() and (advice := more_epochs_may_help(root, project.n_splits)):
        logger.info(advice)
    return root


def _begin(
    experiment: Experiment,
    of_fold: Experiment,
    fold: int,
    root: Path,
    step_name: str,
    inputs: Inputs,
    state: State,
) -> None:
    """Make a fold's folder, and the experiment's, ready for its training."""
    folder = root / f"fold{fold}"
    # Trainings of other folds hold it for a moment each, and may all begin at once; an inference
    # holds it for long.
    with lock(root, wait_s=60):
        _remove_inferred(root, fold)
        save_sources(root, experiment, "train")
    prepare(folder, step_name, inputs, state)
    save_sources(folder, of_fold, "train")


def _root_of(experiment: Experiment) -> Path:
    """Return the output folder, after a look at whether this is a fine-tuning."""
    settings = experiment.globals
    if settings.task not in FINE_TUNINGS:
        stage = "pretrain" if settings.task == "self-supervised" else settings.task
        raise ConfigError(
            f"{experiment.file}: globals/task is {settings.task}; run it with 'foldsmith {stage}'"
        )
    if settings.output_root is None:
        raise ConfigError(f"{experiment.file}: globals/output_root is missing")
    return experiment.project.path(settings.output_root)


def _train_fold(
    experiment: Experiment,
    parts: Components,
    model: nn.Module,
    task: Task,
    auxiliary: AuxiliaryLoss | None,
    runtime: Runtime,
    state: State,
    progress: Progress,
    owner: Mapping[str, str],
    beginning: Beginning,
) -> None:
    settings = experiment.globals
    mixup = parts["dataset/mixup"] if "mixup" in experiment.tree["dataset"] else None
    manager = parts["manager"]
    folder = Path(manager.out)
    every_epoch = (
        [every_epoch_snapshot(parts["ema"].module)] if settings.snapshot_epochs == "all" else []
    )
    name = f"{experiment.file.stem} {folder.name}"
    loggers = loggers_of(experiment, folder, name) if process_group.is_main() else []
    extensions = [
        beginning,
        parts["eval"],
        *parts["extensions"],
        *every_epoch,
        MemoryPeak(runtime.device),
        *loggers,
        progress,
        resume_snapshot(settings.resume_interval, settings.max_epoch, owner),
    ]
    extend(manager, extensions)
    if state == "continue":
        restore(manager, read_resume(folder, owner))
        logger.info(f"continuing after epoch {manager.epoch} of {settings.max_epoch}")
    for epoch_logger in loggers:
        beginning.then(partial(epoch_logger.open, manager))
    step = FineTuneStep(
        *(model, parts["loss"], task, mixup, settings.max_epoch, settings.seed),
        head_epochs=settings.head_epochs,
        ema=parts["ema"],
        auxiliary=auxiliary,
    )
    run_training(
        manager,
        step,
        parts["loader/train"],
        parts["optimizer"],
        parts["scheduler"],
        runtime,
        settings.grad_accum,
        settings.max_epoch,
        settings.seed,
    )


def _add_auxiliary(
    experiment: Experiment, model: nn.Module, table: pd.DataFrame, runtime: Runtime
) -> AuxiliaryLoss | None:
    """Add the auxiliary heads of one fold to its model, before the optimizer is made."""
    settings = experiment.globals
    if not settings.auxiliary:
        return None
    if not isinstance(model, ImageModel):
        raise ConfigError(
            f"{experiment.file}: globals/auxiliary: {type(model).__name__} has no auxiliary heads; "
            "take model/type ImageModel"
        )
    seen = table[FOLD_COLUMN].to_numpy() != settings.val_fold
    targets = read_auxiliary(experiment.project, settings.auxiliary, table, seen)
    model.add_auxiliary({name: target.width for name, target in targets.items()})
    return AuxiliaryLoss(targets, settings.auxiliary, runtime.device)


def _start_head(model: nn.Module, loader: PhotoLoader, runtime: Runtime) -> None:
    """Let the head begin as a ridge regression on the features of the training folds.

    Args:
        model: On the runtime's device.
        loader: The training folds' photos with the transforms of the validation.
        runtime: Device and precision.
    """
    if not isinstance(model, ImageModel):
        raise ConfigError(
            f"globals/head_init: {type(model).__name__} has no head to set; take ImageModel"
        )
    features = predict_logits([model.backbone], loader, runtime, "ridge")[0]
    model.start_head(*ridge_layer(features, loader.dataset.codes.astype(np.float64)))


@torch.inference_mode()
def check_outputs(
    experiment: Experiment, model: nn.Module, loader: PhotoLoader, task: Task, runtime: Runtime
) -> None:
    """Pass one photo through the model and make sure that it gives what the task needs.

    Args:
        experiment: Named in the error.
        model: On the runtime's device; left in evaluation mode.
        loader: Where the photo comes from.
        task: What is to be predicted.
        runtime: Device and precision.

    Raises:
        ConfigError: The model cannot take the photo, or gives another number of outputs.
    """
    images = runtime.transfer(loader.dataset[0, 0], loader.on_device).views[0]
    try:
        with runtime.autocast():
            shape = tuple(model.eval()(images).shape)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(
            f"{experiment.file}: model: cannot take photos of shape {tuple(images.shape[1:])}: "
            f"{one_line(error)[:200]}"
        ) from error
    if shape != (1, task.n_outputs):
        raise ConfigError(
            f"{experiment.file}: model: gives outputs of shape {shape[1:]}, but the task "
            f"{task.name} needs ({task.n_outputs},); set model/dims_head=[null, {task.n_outputs}]"
        )


def check_batches(
    experiment: Experiment, model: nn.Module, loader: PhotoLoader, runtime: Runtime
) -> None:
    """Make sure that a model can be trained on the smallest batch, if that is a single photo.

    A BatchNorm whose input has one value per channel has no variance to normalise by: a single
    photo that the layers before have shrunk to one pixel. The model is left as it was.

    Args:
        experiment: Named in the error.
        model: On the runtime's device; left in evaluation mode.
        loader: The training batches.
        runtime: Device and precision.

    Raises:
        ConfigError: It cannot.
    """
    if min(loader.sampler.sizes()) > 1:
        return
    images = runtime.transfer(loader.dataset[0, 0], loader.on_device).views[0]
    tried = copy.deepcopy(model)
    try:
        with torch.no_grad(), runtime.autocast(), random_state_kept():
            tried.train()(images)
    except ValueError as error:
        raise ConfigError(
            f"{experiment.file}: {one_photo(loader)}, which BatchNorm cannot be trained on where "
            "the layers before leave one pixel of it; set loader/train/batch_size to 2 or more, "
            "enlarge dataset/img_size, or set globals/freeze_backbone"
        ) from error


def _chosen_folds(project: ProjectFolder, wanted: int | list[int] | None) -> list[int]:
    if wanted is None:
        return list(range(project.n_splits))
    folds = sorted(set([wanted] if isinstance(wanted, int) else wanted))
    wrong = [fold for fold in folds if not 0 <= fold < project.n_splits]
    if wrong or not folds:
        raise ConfigError(f"fold {wrong or 'list'}: the folds are 0 to {project.n_splits - 1}")
    return folds


def _remove_inferred(root: Path, fold: int) -> None:
    """Remove what was inferred from an earlier training of a fold."""
    owned = OwnedFiles(root)
    inferred = owned.of("infer")
    # Manifests first, so that nothing looks finished. Other folds' copies of weights stay.
    manifests = [name for name in inferred if name.startswith("manifest_by_")]
    copies = [name for name in inferred if name.endswith(".pth")]
    own = [name for name in copies if name.endswith(f"_fold{fold}.pth")]
    owned.remove(manifests)
    owned.remove([*(name for name in inferred if name not in copies), *own])
