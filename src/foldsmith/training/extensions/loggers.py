"""The loggers of a training."""

from collections.abc import Mapping
from pathlib import Path

from foldsmith.config import Experiment
from foldsmith.config.lazy_types import LazyTypes
from foldsmith.config.loggers import loggers_at_hand
from foldsmith.training.extensions.epoch_logger import Create, EpochLogger, LoggedRun
from foldsmith.utils.flatten import flatten

# Imported when an experiment names them.
_LOGGERS: Mapping[str, Create] = LazyTypes(
    {
        "tensorboard": "foldsmith.training.extensions.log_tensorboard:TensorBoardLogger",
        "mlflow": "foldsmith.training.extensions.log_mlflow:MlflowLogger",
        "wandb": "foldsmith.training.extensions.log_wandb:WandbLogger",
    }
)


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
