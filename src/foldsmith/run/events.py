"""Events of steps in other processes: Ray's, or those of this machine's slots."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from foldsmith.errors import FoldsmithError, one_line
from foldsmith.run.live import RunView
from foldsmith.run.run_state import RunState
from foldsmith.steps.base import Step
from foldsmith.steps.status import StepState
from foldsmith.training.epoch_report import EpochReport
from foldsmith.utils.log_output import LOGGER, LineHandler, line_of
from foldsmith.utils.progress_bars import no_bars


@dataclass(frozen=True)
class LoggedLine:
    """A message that was logged.

    Attributes:
        label: Label of its step; empty for the run itself.
        text: The message, with its traceback if there is one.
        level: Its level, as in :mod:`logging`.
        logger: Name of its logger.
    """

    label: str
    text: str
    level: int = logging.INFO
    logger: str = __name__

    def __str__(self) -> str:
        return line_of(self.level, self.text, self.label)


@dataclass(frozen=True)
class StepBegan:
    """A step begins."""

    label: str


@dataclass(frozen=True)
class EpochEnded:
    """An epoch of a step has ended."""

    label: str
    report: EpochReport


@dataclass(frozen=True)
class StepEnded:
    """A step has ended, or was found to be done."""

    label: str
    state: StepState
    failed: bool = False


Event = LoggedLine | StepBegan | EpochEnded | StepEnded


def show(event: Event, run_state: RunState, steps: Mapping[str, Step], view: RunView) -> None:
    """Show an event, and take it down.

    Args:
        event: The event.
        run_state: The run.
        steps: Its steps, by label.
        view: Where the run is shown.
    """
    if isinstance(event, LoggedLine):
        source = logging.getLogger(event.logger)
        source.log(event.level, event.text, extra={"step": event.label})
        return
    step = steps[event.label]
    if isinstance(event, StepBegan):
        view.begin(step)
    elif isinstance(event, EpochEnded):
        run_state.epoch(step, event.report)
        view.epoch(step, event.report)
    else:
        run_state.states[step.label] = event.state
        view.end(step, event.failed)


@contextlib.contextmanager
def lines_told(
    label: str, tell: Callable[[list[Event]], None], level: int = logging.INFO
) -> Iterator[None]:
    """Send what this process logs while it does a step, and draw no progress bars.

    The process is ours: its root logger is used, so that the lines of libraries are sent too,
    and so are Python's warnings.

    Args:
        label: Label of the step.
        tell: Called with the messages.
        level: Lowest level of foldsmith's messages.
    """
    handler, root, before = _EventHandler(label, tell), logging.getLogger(), LOGGER.level
    LOGGER.setLevel(level)
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        with no_bars():
            yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        LOGGER.setLevel(before)


class _EventHandler(logging.Handler):
    """Makes an event of each record."""

    def __init__(self, label: str, tell: Callable[[list[Event]], None]) -> None:
        super().__init__()
        self._label, self._tell = label, tell
        self._process = os.getpid()
        self._directly = LineHandler()

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if os.getpid() != self._process:
            # A loader process: its message could overlap with another one in the pipe.
            record.step = self._label
            self._directly.emit(record)
        elif text.strip():
            # The other process shows what foldsmith logs; it has no place for libraries' lines.
            name = record.name if record.name.startswith("foldsmith.") else LOGGER.name
            self._tell([LoggedLine(self._label, text.rstrip(), record.levelno, name)])


def portable(error: BaseException, label: str = "") -> Exception:
    """Return an error as one that can be sent to another process, whatever it holds."""
    if isinstance(error, FoldsmithError):
        return type(error)(str(error))
    if isinstance(error, OSError) and not label:
        return OSError(error.errno, error.strerror or one_line(error), error.filename)
    if isinstance(error, MemoryError):
        return MemoryError(one_line(error))
    where = f"{label}: " if label else ""
    return RuntimeError(f"{where}{type(error).__name__}: {one_line(error)}")
