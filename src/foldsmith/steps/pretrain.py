"""Stage 2: self-supervised pretraining on every photo."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from foldsmith.config import Context, Experiment
from foldsmith.config.output_path import check_output
from foldsmith.data.loader import one_photo
from foldsmith.distributed import process_group
from foldsmith.distributed.collectives import synchronised
from foldsmith.errors import ConfigError, OutputError
from foldsmith.models.measured_choices import Measured, tune
from foldsmith.models.runtime import create_runtime, seed_everything
from foldsmith.project import ProjectFolder
from foldsmith.ssl.method import depends_on_progress, require_method
from foldsmith.steps.fingerprint import pretrain_inputs
from foldsmith.steps.image_store import open_store
from foldsmith.steps.manifest import MANIFEST, Inputs, Stopwatch, write_manifest
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
from foldsmith.training.epoch_report import EpochReport
from foldsmith.training.extensions.beginning import Beginning
from foldsmith.training.extensions.loggers import loggers_of
from foldsmith.training.extensions.memory import MemoryPeak
from foldsmith.training.extensions.progress import Progress
from foldsmith.training.extensions.snapshots import restore, resume_snapshot
from foldsmith.training.files import PROBES_FILE
from foldsmith.training.loop import run_training
from foldsmith.training.manager import extend
from foldsmith.training.steps import PretrainStep
from foldsmith.utils.formatting import counted
from foldsmith.utils.hashing import FileHashes

logger = logging.getLogger(__name__)


def pretrain(
    project: ProjectFolder,
    config: Path | str,
    overrides: Sequence[str] = (),
    force: bool = False,
    resume: bool = False,
) -> Path:
    """Pretrain a backbone on the train and test photos, without their labels.

    Processes that torchrun has started train together
    (:mod:`foldsmith.distributed.process_group`); processes that it restarts continue.

    Writes into the output folder the log, plots, ``backbone_epoch_{n}.pth`` (weights that
    ``timm.create_model(name, num_classes=0)`` loads with ``strict=True``) and ``resume.pth``
    (everything needed to continue, as of the last finished epoch). With a probe also
    ``probes.csv`` (its values) and ``backbone_best_probe.pth`` (the backbone with the best).

    Args:
        project: The project.
        config: Experiment file, relative to the project folder.
        overrides: ``PATH=VALUE`` each.
        force: Allow an existing output folder; what a training left in it is removed first.
        resume: Continue after the last finished epoch. The result is that of a run which was
            never interrupted. A finished pretraining in which nothing depends on the number of
            epochs (constant learning rate, no momentum encoder, no probe) may be continued with
            a higher ``globals/max_epoch``.

    Returns:
        The output folder.

    Raises:
        ConfigError: The experiment is wrong or no pretraining.
        OutputError: The output folder exists, is in use, or there is nothing to resume.
        DataError: A table or photo is wrong.
        TrainingError: The loss is not a number, or the features have collapsed.
    """
    start: Start = "resume" if resume else "force" if force else "new"
    with process_group.joined():
        with process_group.main_first():
            experiment = Experiment.load(project, Path(config), overrides)
        return pretrain_experiment(experiment, start)


def pretrain_experiment(
    experiment: Experiment,
    start: Start,
    listener: Callable[[EpochReport], None] | None = None,
) -> Path:
    """Pretrain what an experiment says; as :func:`pretrain`.

    Args:
        experiment: A pretraining.
        start: What to do with an existing output folder.
        listener: Called after each epoch.
    """
    watch = Stopwatch()
    project, settings = experiment.project, experiment.globals
    with process_group.main_first():
        types = types_of(project)
        hashes = FileHashes(project.hash_store)
        folder = _folder_of(experiment, start)
        check_components(experiment, types)
        check_output(experiment, force=start == "force")
    before = process_group.from_main(partial(pretrain_inputs, experiment, types, hashes))
    with process_group.main_first():
        runtime = create_runtime(settings)
        seed_everything(settings.seed)
        built = experiment.with_values({"globals/output_path": str(folder)})
        context = Context(images=open_store(project, settings, hashes), runtime=runtime)
        parts = built.build(types, context)
        # Every part is built before the folder is touched: what is wrong leaves no trace.
        loader = parts["loader/train"]
        loader.check_shares()
        if min(loader.sampler.sizes()) < 2:
            raise ConfigError(
                f"{experiment.file}: {one_photo(loader)}, and self-supervised methods compare "
                "photos with each other; set loader/train/batch_size to 2 or more"
            )
        require_method(parts["model"])
        model = tune(parts["model"], loader, settings, runtime, Measured(project.measurements))
        optimizer, scheduler = parts["optimizer"], parts["scheduler"]
        progressive, probe = (
            parts[name] if name in experiment.tree else None for name in ("progressive", "probe")
        )
    model = synchronised(model)
    if process_group.is_main() and start_in(folder, start) == "force":
        note_replacement(folder, before)
    with process_group.main_first():
        for part in ("manager", "extensions"):
            parts[part]
    step_name = f"pretrain {settings.output_path}"
    with claimed(folder):

        def look() -> tuple[Inputs, State]:
            inputs = pretrain_inputs(experiment, types, hashes)
            hashes.save()
            check_unchanged(before, inputs, folder)
            longer = may_be_longer(experiment, types)
            return inputs, decide(folder, inputs, start_in(folder, start), longer)

        inputs, state = process_group.from_main(look)
        if state == "done":
            logger.info(f"{shown(folder)}: finished already")
            if process_group.is_main():
                clean_up(folder, keep_resume=True)
                restore_records(folder, experiment, hashes)
            return folder

        def begin() -> None:
            prepare(folder, step_name, inputs, state)
            save_sources(folder, experiment, "pretrain")

        beginning = Beginning(begin)
        with process_group.main_first():
            if process_group.is_main():
                # What an earlier training has left stays until this one has something to keep.
                earlier = open_folder(folder)
                if state == "continue" or not earlier:
                    beginning.now()
        manager = parts["manager"]
        progress = Progress(folder, settings.max_epoch, listener)
        loggers = (
            loggers_of(experiment, folder, experiment.file.stem) if process_group.is_main() else []
        )
        owner = owner_of_resume(step_name, inputs)
        extensions = [
            beginning,
            *([] if probe is None else [probe]),
            *parts["extensions"],
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
        logger.info(
            f"pretraining on {counted(len(loader.dataset), 'photo')}, {runtime.device}, "
            f"{shown(folder)}"
        )
        run_training(
            manager,
            PretrainStep(model, progressive, settings.max_epoch),
            loader,
            optimizer,
            scheduler,
            runtime,
            settings.grad_accum,
            settings.max_epoch,
            settings.seed,
        )
        if not process_group.is_main():
            return folder
        if probe is not None:
            probe.keep_best(folder)
            logger.info(f"the best probe is that of epoch {probe.best_epoch}, see {PROBES_FILE}")
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
            n_photos=len(loader.dataset),
            max_epoch=settings.max_epoch,
            epoch_s=progress.epoch_s,
            wall_s=watch.seconds,
        )
        # One file, kept: a pretraining may be continued to a later epoch.
        clean_up(folder, keep_resume=True)
    logger.info(f"wrote {shown(folder / f'backbone_epoch_{settings.max_epoch}.pth')}")
    return folder


def _folder_of(experiment: Experiment, start: Start) -> Path:
    """Return the output folder, after a look at whether this is a pretraining that can start."""
    settings = experiment.globals
    if settings.task != "self-supervised":
        raise ConfigError(
            f"{experiment.file}: globals/task is {settings.task}, not self-supervised; "
            f"run it with 'foldsmith {'ensemble' if settings.task == 'ensemble' else 'train'}'"
        )
    if settings.output_path is None:
        raise ConfigError(f"{experiment.file}: globals/output_path is missing")
    folder = experiment.project.path(settings.output_path)
    # The others look when the main process has made it.
    if process_group.is_main() and start_in(folder, start) == "new":
        refuse_existing(folder)
    if start == "resume" and not folder.exists():
        raise OutputError(f"{folder}: no such folder to resume in; leave out --resume")
    return folder


def may_be_longer(experiment: Experiment, types: Mapping[str, Callable[..., Any]]) -> bool:
    """Return whether a finished pretraining equals the beginning of a longer one.

    Not with a schedule, of the learning rate or of a momentum encoder, or with other things
    that depend on the number of epochs.

    Args:
        experiment: A pretraining.
        types: The registry.
    """
    tree = experiment.tree
    method = types[tree["model"]["type"]]
    scheduled = any(tree.get(name) for name in ("scheduler", "progressive", "probe"))
    return not scheduled and not depends_on_progress(method)
