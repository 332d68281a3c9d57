"""Stage 3: K-fold fine-tuning."""

import gc
import logging
from collections.abc import Sequence
from pathlib import Path

from foldsmith.config import Experiment
from foldsmith.config.output_path import check_output
from foldsmith.config.settings import FINE_TUNINGS, HEAD_DECIDES
from foldsmith.distributed import process_group
from foldsmith.errors import ConfigError, OutputError
from foldsmith.models.runtime import create_runtime
from foldsmith.models.threads import with_threads
from foldsmith.project import ProjectFolder
from foldsmith.steps.epoch_advice import more_epochs_may_help
from foldsmith.steps.features import fit_experiment
from foldsmith.steps.fingerprint import train_inputs
from foldsmith.steps.fold_components import read_labels
from foldsmith.steps.fold_training import FoldTraining
from foldsmith.steps.output_folder import (
    Start,
    note_replacement,
    refuse_existing,
    start_in,
)
from foldsmith.steps.step_run import StepRun
from foldsmith.steps.training_run import Listener
from foldsmith.steps.trial_build import check_components
from foldsmith.targets.column_scales import ScaleForm
from foldsmith.targets.task import Task
from foldsmith.targets.tasks import create_task

logger = logging.getLogger(__name__)


def train(
    project: ProjectFolder,
    config: Path | str,
    overrides: Sequence[str] = (),
    folds: Sequence[int] | None = None,
    force: bool = False,
    resume: bool = False,
) -> Path:
    """Fine-tune one model per fold, each validated on its own fold.

    Writes into ``{output_root}/fold{k}`` the log, plots, and snapshots of the model at the
    best validation metric, at the lowest validation loss and after the last epoch.

    Processes that torchrun has started train together
    (:mod:`foldsmith.distributed.process_group`); processes that it restarts continue.

    Args:
        project: The project.
        config: Experiment file, relative to the project folder.
        overrides: ``PATH=VALUE`` each.
        folds: Folds to train; all, or those of ``globals/val_fold``, if None.
        force: Allow existing output; the chosen folds are trained again.
        resume: Skip the chosen folds that are finished and continue the others after their
            last finished epoch. The result equals that of an uninterrupted run.

    Returns:
        The output folder of the experiment.

    Raises:
        ConfigError: The experiment is wrong or no fine-tuning, or a fold does not exist.
        OutputError: A fold has been trained already, or is being trained.
        DataError: A table or image is wrong.
        TrainingError: The loss is not a number.
    """
    start: Start = "resume" if resume else "force" if force else "new"
    with process_group.joined():
        with process_group.main_first():
            experiment = Experiment.load(project, Path(config), overrides)
        if experiment.globals.task not in HEAD_DECIDES:
            return train_folds(experiment, folds, start)
        if folds is not None:
            raise ConfigError(f"{experiment.file}: frozen features are fitted in all folds at once")
        if process_group.size() > 1:
            raise ConfigError(f"{experiment.file}: frozen features are fitted without torchrun")
        return fit_experiment(experiment, start)


@with_threads
def train_folds(
    experiment: Experiment,
    folds: Sequence[int] | None,
    start: Start,
    listener: Listener | None = None,
) -> Path:
    """Train one model per fold of a fine-tuning; as :func:`train`.

    Args:
        experiment: A fine-tuning.
        folds: Folds to train; None as in :func:`train`.
        start: Treatment of existing output folders.
        listener: Called after each epoch.
    """
    project, settings = experiment.project, experiment.globals
    with process_group.main_first():
        run = StepRun.of(project)
        root = _root_of(experiment)
        check_components(experiment, run.types)
        check_output(experiment, force=start == "force")
        chosen = _chosen_folds(project, settings.val_fold if folds is None else list(folds))
        task = create_task(settings, project)
        form = _target_form(experiment, task)
        # Other processes look when the main process has made the folders.
        if process_group.is_main():
            _check_folders(experiment, run, root, chosen, start)
        if start == "resume" and not root.exists():
            raise OutputError(f"{root}: no such folder to resume in; leave out --resume")
        context = run.context(settings, create_runtime(settings), task)
    for fold in chosen:
        FoldTraining(experiment, run.restarted(), root, fold, start, context, form, listener).run()
        # A manager and its extensions refer to each other: free the model and the workers now.
        gc.collect()
    if process_group.is_main() and (advice := more_epochs_may_help(root, project.n_splits)):
        logger.info(advice)
    return root


def _target_form(experiment: Experiment, task: Task) -> ScaleForm | None:
    """Return the form of the target scale, and print why; None for a task without one."""
    _, labels = read_labels(experiment, task)
    form, reason = task.scale_form(experiment.globals.target_scale, labels)
    if reason and process_group.is_main():
        logger.info(reason)
    return form


def _check_folders(
    experiment: Experiment, run: StepRun, root: Path, folds: Sequence[int], start: Start
) -> None:
    """Refuse folders that exist, or note that they will be replaced, as ``start`` says.

    Raises:
        OutputError: A folder exists and may not be replaced.
    """
    for fold in folds:
        folder = root / f"fold{fold}"
        start_here = start_in(folder, start)
        if start_here == "new":
            refuse_existing(folder)
        elif start_here == "force":
            note_replacement(folder, train_inputs(experiment, fold, run.types, run.hashes))


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


def _chosen_folds(project: ProjectFolder, wanted: int | list[int] | None) -> list[int]:
    if wanted is None:
        return list(range(project.n_splits))
    folds = sorted(set([wanted] if isinstance(wanted, int) else wanted))
    wrong = [fold for fold in folds if not 0 <= fold < project.n_splits]
    if wrong or not folds:
        raise ConfigError(f"fold {wrong or 'list'}: the folds are 0 to {project.n_splits - 1}")
    return folds
