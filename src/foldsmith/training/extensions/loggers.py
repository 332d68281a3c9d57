"""The loggers of a training."""

from pathlib import Path

from foldsmith.config import Experiment
from foldsmith.config.loggers import LoggerName, loggers_at_hand
from foldsmith.training.extensions.epoch_logger import Create, EpochLogger, LoggedRun
from foldsmith.training.extensions.log_mlflow import MlflowLogger
from foldsmith.training.extensions.log_tensorboard import TensorBoardLogger
from foldsmith.training.extensions.log_wandb import WandbLogger
from foldsmith.utils.flatten import flatten

_LOGGERS: dict[LoggerName, Create] = {
    "tensorboard": TensorBoardLogger,
    "mlflow": MlflowLogger,
    "wandb": WandbLogger,
}


def loggers_of(experiment: Experiment, folder: Path, name: str) -> list[EpochLogger]:
    """Return the extensions that send a training's log to the experiment's loggers.

    Args:
        experiment: The experiment, as it is trained.
        folder: Output folder of the training.
        name: Name of the training there: experiment and fold.
    """
    project = experiment.project
    run = LoggedRun(
        name=name,
        project=project.settings.name,
        project_folder=project.folder,
        folder=folder,
        config=flatten(experiment.tree),
    )
    chosen = loggers_at_hand(experiment.globals.loggers)
    return [EpochLogger(name, _LOGGERS[name], run) for name in chosen]
