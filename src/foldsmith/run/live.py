"""The view of a run on a terminal: its steps, and the progress of running ones.

Printed lines scroll above. No thread draws, and a failing view does not stop the run. Without a
terminal there are only printed lines.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from foldsmith.run.state import Speeds
from foldsmith.run.table import Row, duration, plan_rows
from foldsmith.steps.base import Plan, Step
from foldsmith.steps.status import Status, StepState
from foldsmith.training.epoch_report import EpochReport
from foldsmith.utils.formatting import brief
from foldsmith.utils.log_output import is_quiet
from foldsmith.utils.progress_bars import Screen, drawn_on, terminal_console

if TYPE_CHECKING:
    from rich.console import RenderableType

# Seconds between two pictures.
_PAUSE = 0.1

_FAILED = "failed"
_COLOURS = {"done": "green", "running": "cyan", "stale": "yellow", _FAILED: "red"}

# Between two columns.
_GAP = "  "
# Characters of a text that are worth their place.
_READABLE = 16

# Values of the log that are shown, where there are any.
_SHOWN = ("train/loss", "train/std", "val/loss", "val/metric")


class RunView:
    """The interface of a view of a run; this class shows nothing."""

    def begin(self, step: Step, since_s: float = 0.0) -> None:
        """Say that a step begins, or has begun some seconds ago."""

    def epoch(self, step: Step, report: EpochReport) -> None:
        """Say that an epoch of a step has ended."""

    def end(self, step: Step, failed: bool = False) -> None:
        """Say that a step has ended."""

    def draw(self) -> None:
        """Show the time that has passed."""


@contextmanager
def run_view(plan: Plan, states: dict[str, StepState], speeds: Speeds) -> Iterator[RunView]:
    """Show a run while it lasts, where someone watches.

    Args:
        plan: The steps of the run.
        states: Label -> state of each; the view follows changes by the run.
        speeds: Measured speeds; followed too.
    """
    on_terminal = sys.stdout.isatty() and sys.stderr.isatty()
    if is_quiet() or not on_terminal or os.environ.get("TERM") in (None, "dumb"):
        yield RunView()
        return
    view = _Terminal(plan, states, speeds)
    with drawn_on(view):
        try:
            yield view
        finally:
            view.close()


class _Terminal(RunView, Screen):
    """The view on a terminal."""

    def __init__(self, plan: Plan, states: dict[str, StepState], speeds: Speeds) -> None:
        super().__init__()
        # Here, not above: most commands show nothing.
        from rich.live import Live

        self._plan, self._states, self._speeds = plan, states, speeds
        # Label -> how far it is.
        self._running: dict[str, str] = {}
        self._began: dict[str, float] = {}
        self._took: dict[str, float] = {}
        self._failed: list[str] = []
        self._drawn_at = 0.0
        self._live: Live | None = Live(
            console=terminal_console(),
            auto_refresh=False,
            transient=True,
            vertical_overflow="crop",
        )
        self._live.start()

    def begin(self, step: Step, since_s: float = 0.0) -> None:
        self._began[step.label] = time.monotonic() - since_s
        self._took.pop(step.label, None)
        self._running[step.label] = ""
        self._draw_now()

    def epoch(self, step: Step, report: EpochReport) -> None:
        values = [f"{key} {report.values[key]:.4g}" for key in _SHOWN if key in report.values]
        parts = [f"epoch {report.epoch}/{report.max_epoch}", *values]
        self._running[step.label] = ", ".join([*parts, f"{report.images_per_s:.0f} images/s"])
        self._draw_now()

    def end(self, step: Step, failed: bool = False) -> None:
        if failed:
            self._failed.append(step.label)
        if step.label in self._began:
            self._took[step.label] = time.monotonic() - self._began[step.label]
        self._running.pop(step.label, None)
        self._draw_now()

    def draw(self) -> None:
        if time.monotonic() - self._drawn_at >= _PAUSE:
            self._draw_now()

    def close(self) -> None:
        """Remove the view; printed lines stay."""
        live, self._live = self._live, None
        if live is not None:
            with suppress(Exception):  # it clears its place, on a terminal that may have gone
                live.stop()

    def _draw_now(self) -> None:
        if self._live is None:
            return
        try:
            size = self._live.console.size
            self._live.update(self._picture(size.height, size.width), refresh=True)
        except Exception:  # a terminal that has gone, say
            self.close()
        self._drawn_at = time.monotonic()

    def _picture(self, height: int, width: int) -> "RenderableType":
        """Return the rows of the steps and the bars, for a terminal of this size.

        State and time of every step are always shown; names are shortened first. The message of a
        running step gets its own line if its row has no room.
        """
        from rich.console import Group
        from rich.text import Text

        states = dict(self._states)
        for label, why in self._running.items():
            states[label] = replace(states[label], status=Status.RUNNING, why=why)
        for label in self._failed:
            states[label] = replace(states[label], why=_FAILED)
        rows = plan_rows(self._plan, states, self._speeds)
        bars = [Text(str(bar), no_wrap=True, overflow="crop") for bar in self.bars]
        # Each step that runs may take two lines.
        n_rows = max(3, height - len(bars) - len(self._running) - 6)
        shown, before, after = _around_running(rows, n_rows)
        cells = [self._cells(row) for row in shown]
        if before:
            cells.insert(0, (f"{before} more", "done", "", "", ""))
        if after:
            cells.append((f"{after} more", "to do", "", "", ""))
        widths = _widths(cells, width)
        lines = []
        for label, status, took, left, why in cells:
            line = Text(no_wrap=True, overflow="crop")
            line.append(_shortened(label, widths[0]).ljust(widths[0]) + _GAP)
            line.append(status.ljust(widths[1]), _COLOURS.get(status, ""))
            line.append(_GAP + took.rjust(widths[2]))
            if widths[3]:
                line.append(_GAP + left.ljust(widths[3]))
            below = status == "running" and len(why) > widths[4]
            if why and widths[4] and not below:
                line.append(_GAP + brief(why, widths[4]))
            lines.append(line)
            if below:
                lines.append(Text(_GAP + brief(why, width - len(_GAP)), "dim", no_wrap=True))
        return Group(Text(""), *lines, *bars)

    def _cells(self, row: Row) -> tuple[str, str, str, str, str]:
        """Return the texts of a row: name, state, time taken, time left, message."""
        left = f"{row.left} left" if row.left not in ("", "?") else ""
        if row.why == _FAILED:
            return (row.label, _FAILED, self._time(row), left, "")
        return (row.label, row.status, self._time(row), left, row.why)

    def _time(self, row: Row) -> str:
        """Return how long the steps of a row have taken in this run."""
        now = time.monotonic()
        seconds = [
            self._took.get(step.label, now - self._began[step.label])
            for step in row.steps
            if step.label in self._began
        ]
        return duration(sum(seconds)) if seconds else ""


def _widths(cells: Sequence[tuple[str, ...]], total: int) -> tuple[int, ...]:
    """Return the width of each column on a terminal of a width; 0 leaves a column out.

    State and time taken have all that they need. Then come a readable part of the names, the time
    left, the rest of the names, and last the message of a step.
    """
    name, status, took, left, why = (max(len(row[k]) for row in cells) for k in range(5))
    gap = len(_GAP)
    room = max(0, total - status - took - 2 * gap)
    with_left = bool(left) and room >= min(name, _READABLE) + gap + left
    name = min(name, room - (gap + left if with_left else 0))
    room -= name + (gap + left if with_left else 0) + gap
    return (
        name,
        status,
        took,
        left if with_left else 0,
        min(why, room) if room >= _READABLE else 0,
    )


def _shortened(name: str, width: int) -> str:
    """Return a name in so many characters: its middle goes, as the end holds the fold."""
    if len(name) <= width:
        return name
    kept = max(0, width - 1)
    end = kept // 2
    return name[: kept - end] + "…" * min(1, width) + name[len(name) - end :]


def _around_running(rows: list[Row], n: int) -> tuple[list[Row], int, int]:
    """Return at most n rows, and how many are left out before and after them."""
    current = next((k for k, row in enumerate(rows) if row.status != Status.DONE), len(rows) - 1)
    first = max(0, min(current - 2, len(rows) - n))
    shown = rows[first : first + n]
    return shown, first, len(rows) - first - len(shown)
