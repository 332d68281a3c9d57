"""Parameters and curves for MLflow."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from foldsmith.training.extensions.epoch_logger import Log, LoggedRun, known_run, remember_run
from foldsmith.utils.locking import lock

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

# The store in the project folder, where MLFLOW_TRACKING_URI names no other.
STORE = "mlflow.db"

# As many as MLflow takes at once.
_AT_ONCE = 100

# A server that is down holds a training up for seconds, not for the minutes of MLflow's own values.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


class MlflowLogger:
    """Logs a run of MLflow per training, in an experiment that is called like the project.

    ``MLFLOW_TRACKING_URI`` says where to; a file in the project folder if it is not set.

    Args:
        run: The training.
        log: The log of the epochs that are done.
    """

    def __init__(self, run: LoggedRun, log: Log) -> None:
        from mlflow.entities import Param, RunTag
        from mlflow.tracking import MlflowClient

        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        store = f"sqlite:///{run.project_folder / STORE}"
        # Whoever comes first makes its tables, which two cannot do at once.
        with lock(run.project_folder / STORE, wait_s=60):
            self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or store)
        self.last_epoch = 0
        known = known_run(run.folder, "mlflow")
        if known is not None and self._exists(known):
            self._id = known
            # Entries that a killed training has sent are not sent again.
            history = self._client.get_metric_history(known, "epoch")
            self.last_epoch = max((metric.step for metric in history), default=0)
            self._client.update_run(known, status="RUNNING")
            return
        experiment = _experiment(self._client, run.project, run.project_folder)
        created = self._client.create_run(experiment, run_name=run.name)
        self._id = created.info.run_id
        remember_run(run.folder, "mlflow", self._id)
        params = [Param(key, str(value)) for key, value in run.config.items()]
        for start in range(0, len(params), _AT_ONCE):
            self._client.log_batch(self._id, params=params[start : start + _AT_ONCE])
        self._client.log_batch(self._id, tags=[RunTag("folder", str(run.folder))])

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Send the values of an epoch."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(key, float(value), now, epoch) for key, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self) -> None:
        """Say that the training has ended."""
        self._client.set_terminated(self._id)

    def _exists(self, run: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_run(run).info.lifecycle_stage == "active"
        except MlflowException:
            return False  # of another store


def _experiment(client: "MlflowClient", name: str, folder: Path) -> str:
    """Return the id of an experiment, which is made if there is none."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, (folder / "mlartifacts").as_uri()))
        except MlflowException:  # another training was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)
