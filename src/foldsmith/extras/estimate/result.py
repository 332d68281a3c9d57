"""The estimate of a run: as values, as text and as a figure."""

import shutil
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from foldsmith.errors import ConfigError
from foldsmith.extras.estimate.disk import Disk
from foldsmith.extras.estimate.gantt import gantt_figure, gantt_text
from foldsmith.extras.estimate.simulate import Job, Schedule, critical_path
from foldsmith.run.durations import StepDuration
from foldsmith.run.table import Row, duration
from foldsmith.steps.base import Plan
from foldsmith.utils.atomic import remove_leftovers_of, replacing
from foldsmith.utils.formatting import counted, size_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Columns of the text: a narrower chart shows nothing, a wider one is no easier to read.
_LEAST, _MOST = 60, 120


@dataclass(frozen=True)
class Estimate:
    """Time, GPU hours and disk space that the rest of a run takes; nothing has been run.

    Its text is the output of ``foldsmith estimate``.

    Attributes:
        plan: All steps of the run.
        durations: Label -> duration, for each step that is not done.
        schedule: Start and machine of each of those steps, run side by side as Ray runs them.
        disk: Disk space.
        notes: Problems, and ways to a better estimate, one line each.
    """

    plan: Plan
    durations: Mapping[str, StepDuration]
    schedule: Schedule
    disk: Disk
    notes: tuple[str, ...]

    @property
    def wall_s(self) -> float:
        """Seconds from the first start to the last end."""
        return self.schedule.wall_s

    @property
    def serial_s(self) -> float:
        """Seconds of one step after another on one machine, as the local engine runs them."""
        return sum(each.serial_s for each in self.durations.values())

    @cached_property
    def critical_path(self) -> tuple[Job, ...]:
        """The longest chain of steps that need each other: more machines do not shorten it."""
        order = {step.label: number for number, step in enumerate(self.plan.steps)}
        jobs = [one.job for one in self.schedule.placed]
        return critical_path(sorted(jobs, key=lambda job: order[job.label]))

    @property
    def gpu_hours(self) -> float:
        """GPU hours that the steps hold."""
        return self.schedule.gpu_s / 3600

    @property
    def cpu_hours(self) -> float:
        """CPU hours that the steps hold."""
        return self.schedule.cpu_s / 3600

    @property
    def gpu_fraction(self) -> float | None:
        """Fraction of the machines' GPU time that is held, 0..1; None without GPUs."""
        return self._fraction(self.schedule.gpu_s, sum(node.gpus for node in self.schedule.nodes))

    @property
    def cpu_fraction(self) -> float | None:
        """Fraction of the machines' CPU time that is held, 0..1; None if no step is left."""
        return self._fraction(self.schedule.cpu_s, sum(node.cpus for node in self.schedule.nodes))

    def _fraction(self, held_s: float, number: float) -> float | None:
        return held_s / (number * self.wall_s) if number and self.wall_s else None

    @property
    def steps(self) -> pd.DataFrame:
        """A row per step that is left, in the order in which they start.

        Columns: step, kind, experiment, fold, start_s, end_s, seconds, epoch_s (missing without
        epochs), serial_s, source, measured, node, gpu_numbers, gpus, cpus.
        """
        columns = ["step", "kind", "experiment", "fold", "start_s", "end_s", "seconds", "epoch_s"]
        columns += ["serial_s", "source", "measured", "node", "gpu_numbers", "gpus", "cpus"]
        by_label = {step.label: step for step in self.plan.steps}
        rows = []
        for one in self.schedule.placed:
            step, found = by_label[one.job.label], self.durations[one.job.label]
            rows.append(
                (
                    *(step.label, step.kind.name, step.name, step.fold, one.start, one.end),
                    *(found.seconds, found.epoch_s, found.serial_s, found.source),
                    *(found.measured, one.node, list(one.gpus), one.job.gpus, one.job.cpus),
                )
            )
        frame = pd.DataFrame(rows, columns=columns)
        return frame.astype({"fold": "Int64", "epoch_s": "Float64"})

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values; times in seconds, sizes in bytes."""
        steps = self.steps.astype(object)
        return {
            "nodes": [vars(node) for node in self.schedule.nodes],
            "done": len(self.plan.steps) - len(self.durations),
            "steps": steps.where(steps.notna(), None).to_dict("records"),
            "wall_s": self.wall_s,
            "serial_s": self.serial_s,
            "critical_path": [
                {"step": job.label, "seconds": job.seconds} for job in self.critical_path
            ],
            "gpu_hours": self.gpu_hours,
            "cpu_hours": self.cpu_hours,
            "gpu_fraction": self.gpu_fraction,
            "cpu_fraction": self.cpu_fraction,
            "disk_bytes": vars(self.disk),
            "notes": list(self.notes),
        }

    def figure(self) -> "Figure":
        """Return a Gantt chart of the run: a row per GPU or worker, a bar per step."""
        names = {step.label: step.name or step.label for step in self.plan.steps}
        guessed = not all(each.measured for each in self.durations.values())
        title = (
            f"{'estimated: ' if guessed else ''}{duration(self.wall_s)}; one after another "
            f"{duration(self.serial_s)} (black rim: critical path)"
        )
        return gantt_figure(self.schedule, names, self._critical_labels(), title)

    def save(self, path: Path | str) -> None:
        """Write the figure to a file.

        Args:
            path: A .png, .svg or .pdf file.

        Raises:
            ConfigError: It has another suffix.
        """
        path = Path(path)
        if path.suffix not in (".png", ".svg", ".pdf"):
            raise ConfigError(f"--save {path}: must be a .png, .svg or .pdf file")
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers_of(path)
        with replacing(path) as temporary:
            self.figure().savefig(temporary, format=path.suffix[1:], dpi=150)

    def __str__(self) -> str:
        return self.text()

    def text(self, width: int | None = None) -> str:
        """Return a table of the steps, a summary, a chart and the notes in plain characters.

        Args:
            width: Columns; None takes the terminal's, or 80 without a terminal.
        """
        if not self.durations:
            steps = counted(len(self.plan.steps), "step")
            return f"everything is done: {steps} (--from-scratch estimates the whole run)"
        columns = width or shutil.get_terminal_size((80, 24)).columns
        columns = min(max(columns, _LEAST), _MOST)
        rows = self._rows()
        chart = gantt_text(self.schedule, rows, self._critical_labels(), columns)
        notes = "\n".join(f"note: {note}" for note in self.notes)
        return "\n\n".join([self._table(rows), self._summary(), chart, *([notes] if notes else [])])

    def _critical_labels(self) -> set[str]:
        return {job.label for job in self.critical_path}

    def _rows(self) -> list[Row]:
        """Return the steps that are left, with the folds of a training in one row."""
        left = [step for step in self.plan.steps if step.label in self.durations]
        return [
            Row(list(group), "to do", "", "")
            for _, group in groupby(left, lambda step: step.series)
        ]

    def _table(self, rows: list[Row]) -> str:
        """Return the durations of the steps and their sources."""
        table = [("step", "each", "per epoch", "total", "source")]
        for row in rows:
            found = [self.durations[step.label] for step in row.steps]
            first, seconds = found[0], [each.seconds for each in found]
            low, high = _fine(min(seconds)), _fine(max(seconds))
            each = low if low == high else f"{low} - {high}"
            epoch = "" if first.epoch_s is None else _fine(first.epoch_s)
            sources = ", ".join(dict.fromkeys(each.source for each in found))
            table.append((row.label, each, epoch, _fine(sum(seconds)), sources))
        widths = [max(len(line[k]) for line in table) for k in range(4)]
        return "\n".join(
            f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}  {e}".rstrip()
            for a, b, c, d, e in table
        )

    def _summary(self) -> str:
        nodes, found, disk = self.schedule.nodes, self.durations.values(), self.disk
        done = len(self.plan.steps) - len(found)
        machine = f"{_number(nodes[0].gpus, 'GPU')} and {_number(nodes[0].cpus, 'CPU')}"
        machines = machine if len(nodes) == 1 else f"{len(nodes)} nodes, each {machine}"
        times = self.serial_s / self.wall_s if self.wall_s else 1.0
        measured, total = (
            sum(each.seconds for each in some)
            for some in ([each for each in found if each.measured], found)
        )
        fraction = measured / total if total else 0.0
        path = ", ".join(f"{job.label} ({duration(job.seconds)})" for job in self.critical_path)
        path_s = sum(job.seconds for job in self.critical_path)
        lines = [
            ("machines", machines),
            ("steps", f"{len(found)} to do, {done} done; {fraction:.0%} of their time is measured"),
            ("wall time", f"{duration(self.wall_s)}"),
            (
                "serial time",
                f"{duration(self.serial_s)} one step after another, {times:.1f} times as long",
            ),
            ("critical path", f"{duration(path_s)}: {path}"),
            ("GPU hours", _hours(self.gpu_hours, self.gpu_fraction)),
            ("CPU hours", _hours(self.cpu_hours, self.cpu_fraction)),
            (
                "disk",
                f"{size_text(disk.used)} used now (measured); {size_text(disk.peak)} at the peak, "
                f"{size_text(disk.end)} at the end, {size_text(disk.images)} of it decoded images "
                f"(computed); {size_text(disk.free)} free",
            ),
        ]
        return "\n".join(_wrapped(name, text) for name, text in lines)


def _wrapped(name: str, text: str, width: int = 80) -> str:
    lines = textwrap.wrap(text, width - 15, break_long_words=False)
    return f"{name:<13}  " + ("\n" + " " * 15).join(lines)


def _hours(hours: float, fraction: float | None) -> str:
    if fraction is None:
        return "none"
    return f"{hours:.{1 if hours > 10 else 2}f} held, {fraction:.0%} of the machines' time"


def _number(n: float, noun: str) -> str:
    return f"{n:g} {noun}{'' if n == 1 else 's'}"


def _fine(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 10 else duration(seconds)
