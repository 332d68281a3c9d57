"""How far each step of a plan is, and how long the rest takes."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from foldsmith.errors import FoldsmithError, one_line
from foldsmith.project.planned_time import planned_seconds
from foldsmith.steps.base import Plan, Step
from foldsmith.steps.manifest import UNFINISHED, read_manifest
from foldsmith.steps.status import Status, StepState
from foldsmith.utils.hashing import FileHashes
from foldsmith.utils.locking import holder
from foldsmith.utils.memo import one_look


@dataclass
class Speeds:
    """Seconds that epochs and whole steps took, by experiment.

    Attributes:
        epoch_s: Name of the experiment -> seconds per epoch.
        step_s: Label of the step -> seconds, for steps without epochs.
        estimated: Label of a step that was never measured -> estimated seconds that it takes.
    """

    epoch_s: dict[str, float] = field(default_factory=dict)
    step_s: dict[str, float] = field(default_factory=dict)
    estimated: dict[str, float] = field(default_factory=dict)

    def left(self, step: Step, state: StepState) -> float | None:
        """Return the seconds a step still takes; None if they are not known."""
        measured = self.measured(step, state)
        return self.estimated.get(step.label) if measured is None else measured

    def measured(self, step: Step, state: StepState) -> float | None:
        """Return the seconds a step still takes as they were measured; None if they were not."""
        if state.is_done:
            return 0.0
        if not step.epochs:
            return self.step_s.get(step.label)
        seconds = self.epoch_s.get(step.name)
        return None if seconds is None else seconds * state.epochs_left


def state_of_step(
    step: Step,
    plan: Plan,
    hashes: FileHashes,
    unfinished: Iterable[str],
    weights_may_be_gone: bool = False,
) -> StepState:
    """Return how far one step is.

    Args:
        step: The step.
        plan: Its plan.
        hashes: Hashes of files.
        unfinished: Labels of the steps that are not done.
        weights_may_be_gone: As for :func:`results_of`.
    """
    kind = step.kind
    progress, manifest = kind.progress(step), read_manifest(kind.manifest(step))
    process = holder(kind.locked(step, plan.project)[0])
    # An inference holds the folds too; only a training records how far it is.
    if process and (not step.epochs or progress.get("process", {}).get("pid") == process["pid"]):
        return _running(step, process, progress)
    before = [label for label in step.needs if label in set(unfinished)]
    if before:
        return kind.state_before(step, plan, manifest, before, hashes, weights_may_be_gone)
    if manifest is None and not kind.continues:
        return StepState(Status.TO_DO)
    try:
        inputs = kind.inputs(step, plan, hashes, weights_may_be_gone)
    except FoldsmithError as error:
        status = Status.TO_DO if manifest is None else Status.STALE
        return StepState(status, one_line(error)[:200], step.epochs)
    return kind.state(step, plan, inputs, manifest, hashes, weights_may_be_gone)


def states_of(plan: Plan, hashes: FileHashes) -> dict[str, StepState]:
    """Return label -> state of every step of a plan."""
    return _states(plan, hashes, weights_may_be_gone=False)


def results_of(plan: Plan, hashes: FileHashes) -> dict[str, StepState]:
    """Return label -> state of every step of a plan, for reading results.

    Like :func:`states_of`, but predictions are not stale if only the weights behind them were
    deleted.
    """
    return _states(plan, hashes, weights_may_be_gone=True)


def _states(plan: Plan, hashes: FileHashes, weights_may_be_gone: bool) -> dict[str, StepState]:
    states: dict[str, StepState] = {}
    with one_look():
        for step in plan.steps:
            unfinished = [label for label, state in states.items() if not state.is_done]
            states[step.label] = state_of_step(step, plan, hashes, unfinished, weights_may_be_gone)
    hashes.save()
    return states


def speeds_of(plan: Plan) -> Speeds:
    """Return the measured speeds, from manifests and running trainings.

    A step that was measured with another model or image size was not measured; the plan of the
    project's time may have an estimate of it.
    """
    speeds, planned = Speeds(), planned_seconds(plan.project.folder)
    for step in plan.steps:
        if step.series in planned:
            speeds.estimated[step.label] = planned[step.series]
        manifest = read_manifest(step.kind.manifest(step))
        begun = manifest or (
            read_manifest(step.folder / UNFINISHED) if step.kind.continues else None
        )
        if begun is not None and not step.kind.same_speed(step, begun):
            continue
        measured = manifest.facts.get("epoch_s" if step.epochs else "wall_s") if manifest else None
        measured = step.kind.progress(step).get("epoch_s", measured)
        if isinstance(measured, (int, float)):
            if step.epochs:
                speeds.epoch_s[step.name] = float(measured)
            else:
                speeds.step_s[step.label] = float(measured)
    return speeds


def _running(step: Step, process: dict[str, Any], progress: dict[str, Any]) -> StepState:
    by = f"process {process['pid']}"
    if not step.epochs:
        return StepState(Status.RUNNING, by)
    epoch = int(progress.get("epoch", 0))
    speed = f", {progress['images_per_s']} images/s" if "images_per_s" in progress else ""
    why = f"epoch {min(epoch + 1, step.epochs)}/{step.epochs}{speed}, {by}"
    return StepState(Status.RUNNING, why, step.epochs - epoch)
