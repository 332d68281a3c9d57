"""The time that steps of a plan still take, side by side where a run does them so."""

from collections.abc import Mapping, Sequence

from foldsmith.run.slots import Slots, next_to_begin, slots_for
from foldsmith.run.state import Speeds
from foldsmith.steps.base import Step
from foldsmith.steps.status import Status, StepState


def time_left(
    steps: Sequence[Step], states: Mapping[str, StepState], speeds: Speeds
) -> float | None:
    """Return the seconds until steps are done, if this machine does them and no others.

    Args:
        steps: Steps of a plan, in its order.
        states: Label -> state of each.
        speeds: Measured speeds.

    Returns:
        Steps of unknown time count as 0 s; None if the time of all is unknown.
    """
    left = {step.label: speeds.left(step, states[step.label]) for step in steps}
    known = {label: seconds for label, seconds in left.items() if seconds is not None}
    if not known:
        return None
    to_do = [step for step in steps if not states[step.label].is_done]
    # Running steps have their places already.
    to_do.sort(key=lambda step: states[step.label].status is not Status.RUNNING)
    return duration_of(to_do, known, slots_for(to_do))


def duration_of(steps: Sequence[Step], seconds: Mapping[str, float], slots: Slots | None) -> float:
    """Return the seconds that a run of steps takes.

    Args:
        steps: The steps, in the order in which they may begin.
        seconds: Label of a step -> its seconds; 0 if it is missing.
        slots: Where they run side by side; None if they run one after another.
    """
    if slots is None:
        return sum(seconds.get(step.label, 0.0) for step in steps)
    now, waiting = 0.0, list(steps)
    ends: dict[str, tuple[float, Step]] = {}
    while waiting or ends:
        running = [step for _, step in ends.values()]
        step = next_to_begin(waiting, running, slots)
        if step is not None:
            waiting.remove(step)
            ends[step.label] = now + seconds.get(step.label, 0.0), step
            continue
        now, first = min(ends.values(), key=lambda end: end[0])
        del ends[first.label]
    return now
