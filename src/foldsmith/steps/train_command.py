"""Stage 3: the training of a member in all folds, a fine-tuning or heads on frozen features."""

from collections.abc import Sequence
from pathlib import Path

from foldsmith.config import Experiment
from foldsmith.config.settings import HEAD_DECIDES
from foldsmith.distributed import process_group
from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.steps.features import fit_experiment
from foldsmith.steps.output_folder import Start
from foldsmith.steps.registry import types_of
from foldsmith.steps.train import output_root, train_folds
from foldsmith.steps.trial_build import check_components


def train(
    project: ProjectFolder,
    config: Path | str,
    overrides: Sequence[str] = (),
    folds: Sequence[int] | None = None,
    force: bool = False,
    resume: bool = False,
) -> Path:
    """Fine-tune one model per fold, or fit one head per fold on frozen features.

    A fine-tuning validates each model on its own fold. It writes into ``{output_root}/fold{k}``
    the log, plots, and snapshots of the model at the best validation metric, at the lowest
    validation loss and after the last epoch.

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
            frozen = experiment.globals.task in HEAD_DECIDES
            if not frozen:
                output_root(experiment)  # Refuse other tasks before checking the rest.
                check_components(experiment, types_of(project))
        if not frozen:
            return train_folds(experiment, folds, start)
        if folds is not None:
            raise ConfigError(f"{experiment.file}: frozen features are fitted in all folds at once")
        if process_group.size() > 1:
            raise ConfigError(f"{experiment.file}: frozen features are fitted without torchrun")
        return fit_experiment(experiment, start)
