"""Stage 2: self-supervised pretraining on every image."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from foldsmith.config import Components, Experiment
from foldsmith.config.output_path import check_output
from foldsmith.data.loader import one_image
from foldsmith.distributed import process_group
from foldsmith.distributed.collectives import synchronised
from foldsmith.errors import ConfigError, OutputError
from foldsmith.models.measured_choices import Measured, tune
from foldsmith.models.runtime import Runtime, create_runtime, seed_everything
from foldsmith.models.threads import with_threads
from foldsmith.project import ProjectFolder
from foldsmith.ssl.method import depends_on_progress, require_method
from foldsmith.steps.inputs.pretrain import pretrain_inputs
from foldsmith.steps.manifest import Inputs
from foldsmith.steps.output_folder import (
    Start,
    check_unchanged,
    claimed,
    clean_up,
    decide,
    note_replacement,
    prepare,
    refuse_existing,
    shown,
    start_in,
)
from foldsmith.steps.run_records import restore_records, save_sources
from foldsmith.steps.status import Status
from foldsmith.steps.step_run import StepRun
from foldsmith.steps.training_run import Listener, TrainingRun
from foldsmith.steps.trial_build import check_components
from foldsmith.training.files import PROBES_FILE
from foldsmith.training.pretrain_step import PretrainStep
from foldsmith.utils.formatting import counted

logger = logging.getLogger(__name__)


def pretrain(
    project: ProjectFolder,
    config: Path | str,
    overrides: Sequence[str] = (),
    force: bool = False,
    resume: bool = False,
) -> Path:
    """Pretrain a backbone on the train and test images, without their labels.

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
        force: Allow an existing output folder; the files of a training in it are removed first.
        resume: Continue after the last finished epoch. The result equals that of an uninterrupted
            run. A finished pretraining in which nothing depends on the number of
            epochs (constant learning rate, no momentum encoder, no probe) may be continued with
            a higher ``globals/max_epoch``.

    Returns:
        The output folder.

    Raises:
        ConfigError: The experiment is wrong or no pretraining.
        OutputError: The output folder exists, is in use, or there is nothing to resume.
        DataError: A table or image is wrong.
        TrainingError: The loss is not a number, or the features have collapsed.
    """
    start: Start = "resume" if resume else "force" if force else "new"
    with process_group.joined():
        with process_group.main_first():
            experiment = Experiment.load(project, Path(config), overrides)
        return pretrain_experiment(experiment, start)


@with_threads
def pretrain_experiment(
    experiment: Experiment, start: Start, listener: Listener | None = None
) -> Path:
    """Pretrain a backbone by an experiment; as :func:`pretrain`.

    Args:
        experiment: A pretraining.
        start: Treatment of an existing output folder.
        listener: Called after each epoch.
    """
    with process_group.main_first():
        run = StepRun.of(experiment.project)
        folder = _folder_of(experiment, start)
        check_components(experiment, run.types)
        check_output(experiment, force=start == "force")
    before = process_group.from_main(partial(pretrain_inputs, experiment, run.types, run.hashes))
    with process_group.main_first():
        # Every component is built before the folder is touched: an error leaves no trace.
        runtime = create_runtime(experiment.globals)
        components = _build(experiment, folder, run, runtime)
        model = _tuned_model(experiment, components, runtime)
    model = synchronised(model)
    if process_group.is_main() and start_in(folder, start) == "force":
        note_replacement(folder, before)
    with process_group.main_first():
        components.ensure("manager", "extensions")
    with claimed(folder):
        look = partial(_look_again, experiment, run, folder, before, start)
        inputs, status = process_group.from_main(look)
        if status == Status.DONE:
            logger.info(f"{shown(folder)}: finished already")
            if process_group.is_main():
                clean_up(folder, keep_resume=True)
                restore_records(folder, experiment, run.hashes)
            return folder
        step = f"pretrain {experiment.globals.output_path}"
        prepare_folder = partial(_prepare_folder, experiment, folder, step, inputs, status)
        training = TrainingRun(
            *(run, experiment, folder, step, inputs, status, prepare_folder, runtime, listener)
        )
        _train(experiment, training, components, model, folder, runtime)
    if process_group.is_main():
        logger.info(f"wrote {shown(folder / f'backbone_epoch_{experiment.globals.max_epoch}.pth')}")
    return folder


def _build(experiment: Experiment, folder: Path, run: StepRun, runtime: Runtime) -> Components:
    """Return the components of a pretraining; the training loader is built and checked.

    Raises:
        ConfigError: A component cannot be built, or a batch has a single image.
    """
    seed_everything(experiment.globals.seed)
    built = experiment.with_values({"globals/output_path": str(folder)})
    components = built.build(run.types, run.context(experiment.globals, runtime))
    loader = components["loader/train"]
    loader.check_shares()
    if min(loader.sampler.sizes()) < 2:
        raise ConfigError(
            f"{experiment.file}: {one_image(loader)}, and self-supervised methods compare "
            "images with each other; set loader/train/batch_size to 2 or more"
        )
    return components


def _tuned_model(experiment: Experiment, components: Components, runtime: Runtime) -> nn.Module:
    """Return the method on its device, after building its optimizer and extensions."""
    require_method(components["model"])
    measured = Measured(experiment.project.measurements)
    loader = components["loader/train"]
    model = tune(components["model"], loader, experiment.globals, runtime, measured)
    optional = [name for name in ("progressive", "probe") if name in experiment.tree]
    components.ensure("optimizer", "scheduler", *optional)
    return model


def _look_again(
    experiment: Experiment, run: StepRun, folder: Path, before: Inputs, start: Start
) -> tuple[Inputs, Status]:
    """Return the inputs and the state of a pretraining, now that no other process can change it.

    Raises:
        DataError: Inputs have changed since the components were built.
        OutputError: The folder exists, or there is nothing to resume.
    """
    inputs = run.noted(pretrain_inputs(experiment, run.types, run.hashes))
    check_unchanged(before, inputs, folder)
    longer = may_be_longer(experiment, run.types)
    return inputs, decide(folder, inputs, start_in(folder, start), longer)


def _prepare_folder(
    experiment: Experiment, folder: Path, step: str, inputs: Inputs, status: Status
) -> None:
    """Make the output folder ready for the training."""
    prepare(folder, step, inputs, status)
    save_sources(folder, experiment, "pretrain")


def _train(
    experiment: Experiment,
    training: TrainingRun,
    components: Components,
    model: nn.Module,
    folder: Path,
    runtime: Runtime,
) -> None:
    """Train the method, and write the manifest."""
    with process_group.main_first():
        if process_group.is_main():
            training.open()
    progressive, probe = (
        components[name] if name in experiment.tree else None for name in ("progressive", "probe")
    )
    extensions = [*([] if probe is None else [probe]), *components["extensions"]]
    training.attach(components["manager"], extensions, experiment.file.stem)
    n_images = len(components["loader/train"].dataset)
    logger.info(f"pretraining on {counted(n_images, 'image')}, {runtime.device}, {shown(folder)}")
    training.train(components, PretrainStep(model, progressive, experiment.globals.max_epoch))
    if not process_group.is_main():
        return
    if probe is not None:
        probe.keep_best(folder)
        logger.info(f"the best probe is at epoch {probe.best_epoch}, see {PROBES_FILE}")
    # The snapshot to resume from is kept: a pretraining may be continued to a later epoch.
    training.finish(keep_resume=True, n_images=n_images)


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
