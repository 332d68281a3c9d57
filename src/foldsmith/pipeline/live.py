"""A run as it goes on, on a terminal: its steps, and how far those are that run.

What is printed scrolls above. Nothing is drawn by a thread of its own, and a view that cannot be
drawn ends, not the run. Where stdout is no terminal there are only the lines that are printed.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from foldsmith.bars import Screen, drawn_on
from foldsmith.pipeline.plan import Plan, Step
from foldsmith.pipeline.state import Speeds, StepState
from foldsmith.pipeline.table import Row, duration, plan_rows
from foldsmith.training.extensions import EpochReport

if TYPE_CHECKING:
    from rich.console import RenderableType

# Seconds between two pictures.
_PAUSE = 0.1

_COLOURS = {"done": "green", "running": "cyan", "stale": "yellow"}

# Values of the log that are shown, where there are any.
_SHOWN = ("train/loss", "train/std", "val/loss", "val/metric")


class RunView:
    """What a run tells of itself; this one shows nothing."""

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
        states: Label -> state of each; what the run changes in it is shown.
        speeds: What has been measured; the same.
    """
    on_terminal = sys.stdout.isatty() and sys.stderr.isatty()
    if not on_terminal or os.environ.get("TERM") in (None, "dumb"):
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
        from rich.console import Console
        from rich.live import Live

        self._plan, self._states, self._speeds = plan, states, speeds
        # Label -> how far it is.
        self._running: dict[str, str] = {}
        self._began: dict[str, float] = {}
        self._took: dict[str, float] = {}
        self._failed: list[str] = []
        self._drawn_at = 0.0
        self._live: Live | None = Live(
            console=Console(), auto_refresh=False, transient=True, vertical_overflow="crop"
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
        """Take the view away; what was printed stays."""
        live, self._live = self._live, None
        if live is not None:
            with suppress(Exception):  # it clears its place, on a terminal that may have gone
                live.stop()

    def _draw_now(self) -> None:
        if self._live is None:
            return
        try:
            self._live.update(self._picture(self._live.console.height), refresh=True)
        except Exception:  # a terminal that has gone, say
            self.close()
        self._drawn_at = time.monotonic()

    def _picture(self, height: int) -> "RenderableType":
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        states = dict(self._states)
        for label, why in self._running.items():
            states[label] = replace(states[label], status="running", why=why)
        for label in self._failed:
            states[label] = replace(states[label], why="failed")
        rows = plan_rows(self._plan, states, self._speeds)
        bars = [Text(str(bar), no_wrap=True, overflow="crop") for bar in self.bars]
        shown, before, after = _around_running(rows, max(3, height - len(bars) - 6))
        grid = Table.grid(padding=(0, 2))
        for place in range(5):
            # How long it has taken, a number; what there is to say of a step, as far as it fits.
            justify: Literal["left", "right"] = "right" if place == 2 else "left"
            grid.add_column(justify=justify, no_wrap=True, overflow="ellipsis")
        if before:
            grid.add_row(f"{before} more", "done")
        for row in shown:
            left = f"{row.left} left" if row.left not in ("", "?") else ""
            status = Text(row.status, style=_COLOURS.get(row.status, ""))
            grid.add_row(Text(row.label), status, self._time(row), left, Text(row.why))
        if after:
            grid.add_row(f"{after} more", "to do")
        return Group(Text(""), grid, *bars)

    def _time(self, row: Row) -> str:
        """Return how long the steps of a row have taken in this run."""
        now = time.monotonic()
        seconds = [
            self._took.get(step.label, now - self._began[step.label])
            for step in row.steps
            if step.label in self._began
        ]
        return duration(sum(seconds)) if seconds else ""


def _around_running(rows: list[Row], n: int) -> tuple[list[Row], int, int]:
    """Return at most n rows, and how many are left out before and after them."""
    current = next((k for k, row in enumerate(rows) if row.status != "done"), len(rows) - 1)
    first = max(0, min(current - 2, len(rows) - n))
    shown = rows[first : first + n]
    return shown, first, len(rows) - first - len(shown)
