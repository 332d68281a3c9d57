"""What a run will take, as text and as a picture."""

import shutil
import textwrap
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from foldsmith.extras.estimate.simulate import Placed
from foldsmith.run.plan import Step
from foldsmith.run.table import Row, duration
from foldsmith.utils.formatting import counted, size_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from foldsmith.extras.estimate.estimate import Forecast

# Narrower than this a chart shows nothing, wider than that it is no easier to read.
_LEAST, _MOST = 60, 120


def forecast_text(forecast: "Forecast", width: int | None = None) -> str:
    """Return what a run will take, in plain characters.

    Args:
        forecast: The run.
        width: Columns; those of the terminal if None, 80 where there is none.
    """
    total, left = len(forecast.plan.steps), len(forecast.estimates)
    if not left:
        return f"everything is done: {counted(total, 'step')} (--from-scratch plans them all)"
    columns = width or shutil.get_terminal_size((80, 24)).columns
    columns = min(max(columns, _LEAST), _MOST)
    notes = [f"note: {note}" for note in forecast.notes]
    parts = [_table(forecast), _summary(forecast), gantt_text(forecast, columns)]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])


def gantt_text(forecast: "Forecast", width: int) -> str:
    """Return a chart of the steps over time: how many run at once, in digits.

    Args:
        forecast: The run.
        width: Columns.
    """
    critical = {job.label for job in forecast.critical_path}
    placed = {one.job.label: one for one in forecast.schedule.placed}
    rows = _rows(forecast)
    labels = [row.label for row in rows]
    indent = min(max(map(len, labels)), 30) + 2
    n_cells = width - indent - 2
    cell = forecast.wall_s / n_cells or 1.0
    lines = []
    for row, label in zip(rows, labels, strict=True):
        on_path = any(step.label in critical for step in row.steps)
        bar = _bar([placed[step.label] for step in row.steps], cell, n_cells)
        lines.append(
            f"{'*' if on_path else ' '} {label[: indent - 2]:<{indent - 2}} {bar}".rstrip()
        )
    lines.append(" " * (indent + 1) + _axis(forecast.wall_s, n_cells))
    lines.append("a digit: so many steps at once (+ is ten or more); *: on the critical path")
    return "\n".join(lines)


def gantt_figure(forecast: "Forecast") -> "Figure":
    """Return a picture of the steps over time: a row per GPU, and per step on CPUs at a time.

    Args:
        forecast: The run.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    names = {step.label: step.name or step.label for step in forecast.plan.steps}
    lanes = _lanes(forecast.schedule.placed)
    shown = list(dict.fromkeys(names[one.job.label] for one in forecast.schedule.placed))
    colours = {name: colormaps["tab20"](number % 20) for number, name in enumerate(shown)}
    critical = {job.label for job in forecast.critical_path}
    unit, word = (3600.0, "hours") if forecast.wall_s > 5400 else (60.0, "minutes")
    figure = Figure(figsize=(10, 1.3 + 0.32 * max(1, len(lanes))), layout="constrained")
    axis = figure.subplots()
    for place, bars in enumerate(lanes.values()):
        for one in bars:
            name = names[one.job.label]
            rim = "black" if one.job.label in critical else "white"
            span = (one.start / unit, max(one.job.seconds, forecast.wall_s / 2000) / unit)
            axis.broken_barh(
                [span], (place - 0.4, 0.8), color=colours[name], edgecolor=rim, linewidth=0.8
            )
            text = _short(one.job.label)
            # Some 4.5 points a letter, on 560 points of an axis.
            if one.job.seconds / forecast.wall_s * 560 > 4.5 * len(text):
                middle = (one.start + one.end) / 2 / unit
                axis.text(middle, place, text, ha="center", va="center", fontsize=7, clip_on=True)
    axis.set_yticks(range(len(lanes)), list(lanes), fontsize=7)
    axis.invert_yaxis()
    axis.set_xlim(0, forecast.wall_s / unit or 1.0)
    axis.set_xlabel(word, fontsize=8)
    axis.tick_params(labelsize=8)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    guessed = all(estimate.measured for estimate in forecast.estimates.values())
    axis.set_title(
        f"{'' if guessed else 'estimated: '}{duration(forecast.wall_s)}; one after another "
        f"{duration(forecast.serial_s)} (black rim: critical path)",
        fontsize=9,
    )
    return figure


def _table(forecast: "Forecast") -> str:
    """Return the steps that are left with their times, and where those come from."""
    head = ("step", "each", "epochs of", "in all", "from")
    table = [head]
    for row in _rows(forecast):
        estimates = [forecast.estimates[step.label] for step in row.steps]
        first, seconds = estimates[0], [estimate.seconds for estimate in estimates]
        low, high = _fine(min(seconds)), _fine(max(seconds))
        each = low if low == high else f"{low} - {high}"
        epoch = "" if first.epoch_s is None else _fine(first.epoch_s)
        sources = ", ".join(dict.fromkeys(estimate.source for estimate in estimates))
        table.append((row.label, each, epoch, _fine(sum(seconds)), sources))
    widths = [max(len(line[k]) for line in table) for k in range(4)]
    return "\n".join(
        f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}  {e}".rstrip()
        for a, b, c, d, e in table
    )


def _summary(forecast: "Forecast") -> str:
    nodes = forecast.schedule.nodes
    node, estimates = nodes[0], forecast.estimates.values()
    done = len(forecast.plan.steps) - len(estimates)
    machine = f"{_number(node.gpus, 'GPU')} and {_number(node.cpus, 'CPU')}"
    machines = machine if len(nodes) == 1 else f"{len(nodes)} nodes, each {machine}"
    times = forecast.serial_s / forecast.wall_s if forecast.wall_s else 1.0
    measured = sum(e.seconds for e in estimates if e.measured)
    total = sum(e.seconds for e in estimates)
    share = measured / total if total else 0.0
    path = ", ".join(f"{job.label} ({duration(job.seconds)})" for job in forecast.critical_path)
    path_s = sum(job.seconds for job in forecast.critical_path)
    disk = forecast.disk
    lines = [
        ("machines", machines),
        ("steps", f"{len(estimates)} to do, {done} done; {share:.0%} of their time was measured"),
        ("wall time", f"{duration(forecast.wall_s)}"),
        ("in turn", f"{duration(forecast.serial_s)} one after another, {times:.1f} times that"),
        ("critical path", f"{duration(path_s)}: {path}"),
        ("GPU hours", _hours(forecast.gpu_hours, forecast.gpu_share)),
        ("CPU hours", _hours(forecast.cpu_hours, forecast.cpu_share)),
        (
            "disk",
            f"{size_text(disk.there)} there (measured); {size_text(disk.peak)} at the peak, "
            f"{size_text(disk.end)} at the end, {size_text(disk.photos)} of it photos (computed); "
            f"{size_text(disk.free)} free",
        ),
    ]
    return "\n".join(_wrapped(name, text) for name, text in lines)


def _wrapped(name: str, text: str, width: int = 80) -> str:
    lines = textwrap.wrap(text, width - 15, break_long_words=False)
    return f"{name:<13}  " + ("\n" + " " * 15).join(lines)


def _hours(hours: float, share: float | None) -> str:
    if share is None:
        return "none"
    return f"{hours:.{1 if hours > 10 else 2}f} held, {share:.0%} of what there is"


def _number(n: float, what: str) -> str:
    return f"{n:g} {what}{'' if n == 1 else 's'}"


def _rows(forecast: "Forecast") -> list[Row]:
    """Return the steps that are left, folds of a training in one row."""

    def alike(step: Step) -> tuple[str, str]:
        return step.kind, step.name if step.kind == "train" else step.label

    left = [step for step in forecast.plan.steps if step.label in forecast.estimates]
    return [Row(list(group), "to do", "", "") for _, group in groupby(left, alike)]


def _bar(placed: Iterable[Placed], cell: float, n_cells: int) -> str:
    """Return a row of digits: the most steps that run at once in each cell of time."""
    changes: list[list[tuple[float, int]]] = [[] for _ in range(n_cells)]
    for one in placed:
        first = min(int(one.start / cell), n_cells - 1)
        # A step that ends where a cell begins is not in it, but every step is in one.
        last = min(max(first, -int(-one.end // cell) - 1), n_cells - 1)
        for k in range(first, last + 1):
            changes[k] += [(max(one.start, k * cell), 1), (min(one.end, (k + 1) * cell), -1)]
    counts = []
    for of_cell in changes:
        most = running = 0
        for _, change in sorted(of_cell):
            running += change
            most = max(most, running)
        counts.append(most or (1 if of_cell else 0))
    return "".join("+" if n > 9 else str(n) if n else " " for n in counts)


def _axis(wall_s: float, n_cells: int) -> str:
    """Return the times below a chart, at its quarters."""
    line = [" "] * (n_cells + 1)
    end = duration(wall_s)
    for k in range(4):
        at, text = round(k * n_cells / 4), "|" + (duration(wall_s * k / 4) if k else "0")
        if at + len(text) < n_cells - len(end) - 1:
            line[at : at + len(text)] = text
    line[n_cells - len(end) :] = end + "|"
    return "".join(line)


def _lanes(placed: Sequence[Placed]) -> dict[str, list[Placed]]:
    """Return the rows of a picture by name: GPUs, then CPUs; steps side by side have their own."""
    lanes: dict[tuple[int, int, int], list[Placed]] = {}
    for one in sorted(placed, key=lambda p: p.start):
        # Behind the GPUs what needs none.
        for gpu in one.gpus or (1_000_000,):
            row = 0
            while (bars := lanes.setdefault((one.node, gpu, row), [])) and (
                bars[-1].end > one.start + 1e-9
            ):
                row += 1
            bars.append(one)
    several = len({node for node, _, _ in lanes}) > 1
    named = {}
    for (node, gpu, row), bars in sorted(lanes.items()):
        device = f"GPU {gpu}" if gpu < 1_000_000 else f"CPU {row}"
        share = f" ({row + 1})" if gpu < 1_000_000 and row else ""
        named[f"{f'node {node} ' if several else ''}{device}{share}"] = bars
    return named


def _short(label: str) -> str:
    return label.replace(" fold ", ".").removeprefix("train ").removeprefix("pretrain ")


def _fine(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 10 else duration(seconds)
