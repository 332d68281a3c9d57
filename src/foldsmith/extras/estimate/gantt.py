"""Gantt charts of a schedule: as text and as a figure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from foldsmith.extras.estimate.simulate import Placed, Schedule
from foldsmith.run.table import Row, duration

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def gantt_text(
    schedule: Schedule, rows: Sequence[Row], critical: Collection[str], width: int
) -> str:
    """Return a chart in plain characters: a digit is the number of steps that run at once.

    Args:
        schedule: Start and end of each step.
        rows: The steps, a line of the chart for each row.
        critical: Labels of the steps on the critical path.
        width: Columns.
    """
    placed = {one.job.label: one for one in schedule.placed}
    labels = [row.label for row in rows]
    indent = min(max(map(len, labels)), 30) + 2
    n_cells = width - indent - 2
    cell = schedule.wall_s / n_cells or 1.0
    lines = []
    for row, label in zip(rows, labels, strict=True):
        on_path = any(step.label in critical for step in row.steps)
        bar = _bar([placed[step.label] for step in row.steps], cell, n_cells)
        lines.append(
            f"{'*' if on_path else ' '} {label[: indent - 2]:<{indent - 2}} {bar}".rstrip()
        )
    lines.append(" " * (indent + 1) + _axis(schedule.wall_s, n_cells))
    lines.append("digit: number of steps at once (+: ten or more); *: on the critical path")
    return "\n".join(lines)


def gantt_figure(
    schedule: Schedule, names: Mapping[str, str], critical: Collection[str], title: str
) -> "Figure":
    """Return a figure with a row per GPU, and a row per step that runs on CPUs at a time.

    Args:
        schedule: Start, end and machine of each step.
        names: Label of a step -> name of its experiment, which has one colour.
        critical: Labels of the steps on the critical path.
        title: Title of the figure.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    lanes = _lanes(schedule.placed)
    shown = list(dict.fromkeys(names[one.job.label] for one in schedule.placed))
    colours = {name: colormaps["tab20"](number % 20) for number, name in enumerate(shown)}
    unit, word = (3600.0, "hours") if schedule.wall_s > 5400 else (60.0, "minutes")
    figure = Figure(figsize=(10, 1.3 + 0.32 * max(1, len(lanes))), layout="constrained")
    axis = figure.subplots()
    for place, bars in enumerate(lanes.values()):
        for one in bars:
            name = names[one.job.label]
            rim = "black" if one.job.label in critical else "white"
            span = (one.start / unit, max(one.job.seconds, schedule.wall_s / 2000) / unit)
            axis.broken_barh(
                [span], (place - 0.4, 0.8), color=colours[name], edgecolor=rim, linewidth=0.8
            )
            text = _short(one.job.label)
            # Some 4.5 points a letter, on 560 points of an axis.
            if one.job.seconds / schedule.wall_s * 560 > 4.5 * len(text):
                middle = (one.start + one.end) / 2 / unit
                axis.text(middle, place, text, ha="center", va="center", fontsize=7, clip_on=True)
    axis.set_yticks(range(len(lanes)), list(lanes), fontsize=7)
    axis.invert_yaxis()
    axis.set_xlim(0, schedule.wall_s / unit or 1.0)
    axis.set_xlabel(word, fontsize=8)
    axis.tick_params(labelsize=8)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.set_title(title, fontsize=9)
    return figure


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
        # Steps without a GPU come last.
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
