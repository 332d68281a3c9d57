"""The fine-tuning of a model in each fold."""

import gc
import logging
from collections.abc import Sequence
from pathlib import Path

from foldsmith.config import Experiment
from foldsmith.config.output_path import check_output
from foldsmith.config.settings import FINE_TUNINGS
from foldsmith.distributed import process_group
from foldsmith.errors import ConfigError, OutputError
from foldsmith.models.runtime import create_runtime
from foldsmith.models.threads import with_threads
from foldsmith.project import ProjectFolder
from foldsmith.steps.epoch_advice import more_epochs_may_help
from foldsmith.steps.fold_components import read_labels
from foldsmith.steps.fold_training import FoldTraining
from foldsmith.steps.inputs.train import train_inputs
from foldsmith.steps.output_folder import (
    Start,
    note_replacement,
    refuse_existing,
    start_in,
)
from foldsmith.steps.step_run import StepRun
from foldsmith.steps.training_run import Listener
from foldsmith.targets.column_scales import ScaleForm
from foldsmith.targets.task import Task
from foldsmith.targets.tasks import create_task

logger = logging.getLogger(__name__)


@with_threads
def train_folds(
    experiment: Experiment,
    folds: Sequence[int] | None,
    start: Start,
    listener: Listener | None = None,
) -> Path:
    """Fine-tune one model per fold, each validated on its own fold.

    Args:
        experiment: A fine-tuning that :func:`~foldsmith.steps.trial_build.check_components` has
            found in order.
        folds: Folds to train; all, or those of ``globals/val_fold``, if None.
        start: Treatment of existing output folders.
        listener: Called after each epoch.

    Returns:
        The output folder of the experiment.

    Raises:
        ConfigError: The experiment is not a fine-tuning, or a fold does not exist.
        OutputError: A fold has been trained already, or is being trained.
        DataError: A table or image is wrong.
        TrainingError: The loss is not a number.
    """
    project, settings = experiment.project, experiment.globals
    with process_group.main_first():
        run = StepRun.of(project)
        root = output_root(experiment)
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


def output_root(experiment: Experiment) -> Path:
    """Return the output folder of a fine-tuning.

    Raises:
        ConfigError: The experiment is not a fine-tuning, or names no folder.
    """
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
