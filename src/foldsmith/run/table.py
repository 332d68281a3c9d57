"""The table of a plan: states of the steps, reasons, times."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from foldsmith.run.state import Speeds
from foldsmith.run.time_left import time_left
from foldsmith.steps.base import Plan, Step
from foldsmith.steps.status import StepState
from foldsmith.utils.formatting import counted


@dataclass(frozen=True)
class Row:
    """Steps that are alike: one, or folds of a training.

    Attributes:
        steps: The steps.
        status: Their state.
        left: How long they still take, for people: ``~`` before an estimate, ``?`` if there is
            none.
        why: Changes, or progress.
    """

    steps: list[Step]
    status: str
    left: str
    why: str

    @property
    def label(self) -> str:
        """Name of the steps, for people."""
        if len(self.steps) == 1:
            return self.steps[0].label
        return f"{self.steps[0].series} folds {self.steps[0].fold}-{self.steps[-1].fold}"


def plan_rows(plan: Plan, states: dict[str, StepState], speeds: Speeds) -> list[Row]:
    """Return a plan's steps as rows; folds that are alike share one.

    Args:
        plan: The plan.
        states: Label -> state of each step.
        speeds: Measured speeds.
    """
    rows = []

    def alike(step: Step) -> tuple[object, ...]:
        state = states[step.label]
        # A training that is under way has a row of its own.
        own = step.label if "epoch" in state.why else step.series
        return (own, state.status, state.why, state.epochs_left)

    for _, group in groupby(plan.steps, alike):
        steps = list(group)
        state = states[steps[0].label]
        left = time_left(steps, states, speeds)
        shown = "" if state.is_done else "?" if left is None else duration(left)
        if any(speeds.measured(step, state) is None for step in steps) and left is not None:
            shown = f"~{shown}"
        rows.append(Row(steps, state.status, shown, state.why))
    return rows


def plan_table(plan: Plan, states: dict[str, StepState], speeds: Speeds) -> str:
    """Return the rows of a plan as a table; as :func:`plan_rows`."""
    rows = [(row.label, row.status, row.left, row.why) for row in plan_rows(plan, states, speeds)]
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    lines = [
        f"{name:<{widths[0]}}  {status:<{widths[1]}}  {left:>{widths[2]}}  {why}".rstrip()
        for name, status, left, why in rows
    ]
    return "\n".join([*lines, *next_members(plan, states, speeds), summary(plan, states, speeds)])


def next_members(plan: Plan, states: Mapping[str, StepState], speeds: Speeds) -> Iterator[str]:
    """Yield the next member of each incomplete blend, and its cost.

    Args:
        plan: The plan.
        states: Label -> state of each step.
        speeds: Measured speeds.
    """
    steps = {step.label: step for step in plan.steps}
    for blend in plan.steps:
        if not blend.kind.gathers:
            continue
        missing = [step for step in plan.steps if step.label in blend.needs]
        missing = [step for step in missing if not states[step.label].is_done]
        if not missing:
            continue
        labels, waiting = dict[str, None](), [missing[0].label]
        while waiting:  # the steps before it, too
            label = waiting.pop()
            if label in steps and not states[label].is_done:
                labels[label] = None
                waiting += steps[label].needs
        ahead = [step for step in plan.steps if step.label in labels]
        left = time_left(ahead, states, speeds)
        cost = "its time is not known yet" if left is None else f"about {duration(left)}"
        unknown = sum(speeds.left(step, states[step.label]) is None for step in ahead)
        if left is not None and unknown:
            cost += f" and {counted(unknown, 'step')} of unknown time"
        yield f"the next member of {blend.name} is {missing[0].name}: {cost}"


def summary(plan: Plan, states: dict[str, StepState], speeds: Speeds) -> str:
    """Return one line: how many steps are done, how long the others take."""
    done = sum(states[step.label].is_done for step in plan.steps)
    line = f"{done} of {counted(len(plan.steps), 'step')} done"
    if done == len(plan.steps):
        return line
    left = time_left(plan.steps, states, speeds)
    if left:
        unknown = sum(speeds.left(step, states[step.label]) is None for step in plan.steps)
        line += f", about {duration(left)} left"
        line += (
            f" and {counted(unknown, 'step that was', 'steps that were')} never timed"
            if unknown
            else ""
        )
        line += " (~: estimated)" if speeds.estimated else ""
    else:
        line += "; the time is estimated once an epoch was measured"
    return line


def duration(seconds: float) -> str:
    """Return seconds as ``45 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
