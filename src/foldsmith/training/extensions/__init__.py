"""Extensions of the manager, one subject each."""

from foldsmith.config import Types
from foldsmith.training.extensions.console import ConsoleReport
from foldsmith.training.extensions.evaluator import Evaluator
from foldsmith.training.extensions.log import create_log_report
from foldsmith.training.extensions.plots import PlotLog
from foldsmith.training.extensions.snapshots import (
    MinValueTrigger,
    every_and_last,
    full_snapshot,
    last_epoch,
    weights_snapshot,
)

TYPES: Types = {
    "ConsoleReport": ConsoleReport,
    "Evaluator": Evaluator,
    "LogReport": create_log_report,
    "PlotReport": PlotLog,
    "WeightsSnapshot": weights_snapshot,
    "FullSnapshot": full_snapshot,
    "MinValueTrigger": MinValueTrigger,
    "EveryAndLast": every_and_last,
    "LastEpoch": last_epoch,
}
