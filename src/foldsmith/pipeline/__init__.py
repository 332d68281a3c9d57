"""The whole job: which steps an experiment needs, which of them are done, running the rest."""

from foldsmith.pipeline.doctor import doctor
from foldsmith.pipeline.forecast import Forecast, forecast
from foldsmith.pipeline.run import dry_run, run, stop
from foldsmith.pipeline.status import status, status_frame

__all__ = ["Forecast", "doctor", "dry_run", "forecast", "run", "status", "status_frame", "stop"]
