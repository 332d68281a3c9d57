"""Extensions of the manager, one subject each."""

from foldsmith.config import Types
from foldsmith.training.extensions.beginning import Beginning
from foldsmith.training.extensions.collapse import CollapseWatch, RankWatch
from foldsmith.training.extensions.console import ConsoleReport
from foldsmith.training.extensions.evaluator import Evaluator
from foldsmith.training.extensions.log import create_log_report
from foldsmith.training.extensions.memory import MemoryPeak
from foldsmith.training.extensions.plots import PlotLog
from foldsmith.training.extensions.probe import Probe
from foldsmith.training.extensions.progress import EpochReport, Progress
from foldsmith.training.extensions.snapshots import (
    best_value,
    every_and_last,
    last_epoch,
    resume_snapshot,
    weights_snapshot,
)

__all__ = ["TYPES", "Beginning", "EpochReport", "MemoryPeak", "Progress", "resume_snapshot"]

TYPES: Types = {
    "CollapseWatch": CollapseWatch,
    "ConsoleReport": ConsoleReport,
    "Evaluator": Evaluator,
    "LogReport": create_log_report,
    "PlotReport": PlotLog,
    "Probe": Probe,
    "RankWatch": RankWatch,
    "WeightsSnapshot": weights_snapshot,
    "BestValueTrigger": best_value,
    "EveryAndLast": every_and_last,
    "LastEpoch": last_epoch,
}
