"""What is told of steps that other processes do: of Ray, or one for each GPU of this machine."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TextIO

from foldsmith.errors import FoldsmithError, one_line
from foldsmith.run.live import RunView
from foldsmith.run.plan import Step
from foldsmith.run.run_state import Course
from foldsmith.run.state import StepState
from foldsmith.training.epoch_report import EpochReport


@dataclass(frozen=True)
class Said:
    """A line of a step; of the run itself if it has no label."""

    label: str
    text: str
    is_error: bool = False

    def __str__(self) -> str:
        return f"{self.label} | {self.text}" if self.label else self.text


@dataclass(frozen=True)
class Begun:
    """A step begins."""

    label: str


@dataclass(frozen=True)
class Epoch:
    """An epoch of a step has ended."""

    label: str
    report: EpochReport


@dataclass(frozen=True)
class Ended:
    """A step has ended, or was found to be done."""

    label: str
    state: StepState
    failed: bool = False


Event = Said | Begun | Epoch | Ended


def show(event: Event, course: Course, steps: Mapping[str, Step], view: RunView) -> None:
    """Show an event, and take it down.

    Args:
        event: The event.
        course: The run.
        steps: Its steps, by label.
        view: Where the run is shown.
    """
    if isinstance(event, Said):
        print(event, file=sys.stderr if event.is_error else sys.stdout, flush=True)
        return
    step = steps[event.label]
    if isinstance(event, Begun):
        view.begin(step)
    elif isinstance(event, Epoch):
        course.epoch(step, event.report)
        view.epoch(step, event.report)
    else:
        course.states[step.label] = event.state
        view.end(step, event.failed)


@contextlib.contextmanager
def lines_told(label: str, tell: Callable[[list[Event]], None]) -> Iterator[None]:
    """Tell what this process prints while it does a step, line by line.

    Args:
        label: The step's.
        tell: Is given the lines.
    """
    printed = _Lines(label, tell, sys.stdout, is_error=False)
    complained = _Lines(label, tell, sys.stderr, is_error=True)
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complained):
        try:
            yield
        finally:
            printed.end()
            complained.end()


class _Lines(io.TextIOBase):
    """A file whose lines are told."""

    def __init__(
        self, label: str, tell: Callable[[list[Event]], None], file: TextIO, is_error: bool
    ) -> None:
        self._label, self._tell, self._file = label, tell, file
        self._is_error = is_error
        self._process = os.getpid()
        self._begun = ""

    def write(self, text: str) -> int:
        if os.getpid() != self._process:  # a loader process, whose lines are its own
            return self._file.write(text)
        *lines, self._begun = (self._begun + text).split("\n")
        said: list[Event] = [Said(self._label, line, self._is_error) for line in lines if line]
        if said:
            self._tell(said)
        return len(text)

    def end(self) -> None:
        """Tell a line that has no end."""
        self.write("\n")


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
