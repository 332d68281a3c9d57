"""Configuration and curves for Weights & Biases."""

import os
from collections.abc import Mapping
from uuid import uuid4

from foldsmith.training.extensions.epoch_logger import Log, LoggedRun, known_run, remember_run


class WandbLogger:
    """Logs a run of Weights & Biases per training, in a project that is called like ours.

    Its environment variables count: ``WANDB_MODE=offline`` sends nothing, ``wandb sync`` does
    later.

    Args:
        run: The training.
        log: The log of the epochs that are done.
    """

    def __init__(self, run: LoggedRun, log: Log) -> None:
        import wandb

        known = known_run(run.folder, "wandb")
        self._id = known or uuid4().hex
        # silent also prevents a prompt for a missing key.
        settings = wandb.Settings(silent=True, console="off", login_timeout=1, init_timeout=30)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or run.project,
            name=run.name,
            id=self._id,
            resume="allow",
            dir=os.environ.get("WANDB_DIR") or str(run.project_folder),
            config=dict(run.config),
            reinit="create_new",
            settings=settings,
        )
        # The server's last epoch; offline there is none, and the last part of a run has all
        # entries.
        self.last_epoch = max(0, self._run.starting_step - 1)
        remember_run(run.folder, "wandb", self._id)

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Send the values of an epoch."""
        self._run.log(dict(values), step=epoch, commit=True)

    def close(self) -> None:
        """Send the remaining entries."""
        self._run.finish()
