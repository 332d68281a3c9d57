"""The state of a run with any engine: states of the steps, failures, remaining steps."""

import logging
from collections.abc import Callable

from foldsmith.config import Experiment
from foldsmith.errors import ConfigError, FoldsmithError, TrainingError
from foldsmith.project.planned_time import planned_speeds
from foldsmith.project.tables import bad_ids
from foldsmith.run.state import speeds_of, state_of_step, states_of
from foldsmith.run.table import summary
from foldsmith.steps.base import Options, Plan, Step
from foldsmith.steps.predictions import for_unreadable
from foldsmith.steps.status import Status, StepState
from foldsmith.training.epoch_report import EpochReport
from foldsmith.utils.formatting import counted
from foldsmith.utils.hashing import FileHashes

logger = logging.getLogger(__name__)

# A time plan is compared with the first epochs of a run; it is too slow if they are this much
# faster.
_COMPARED_EPOCHS, _FASTER = 3, 1.3


class RunState:
    """A run of a plan.

    Args:
        plan: The whole plan.
        chosen: The steps that are to be run.
        options: How steps are done.
        on_blend: Called when a blend of the members that are finished so far was made.

    Attributes:
        states: Label -> state of each step of the whole plan.
        speeds: Measured speeds.
        failed: Label -> error of each step that failed, or depends on a failed one.
    """

    def __init__(
        self,
        plan: Plan,
        chosen: Plan,
        options: Options,
        on_blend: Callable[[], None] | None = None,
    ) -> None:
        self.plan = plan
        self.chosen = chosen
        self.options = options
        self._on_blend = on_blend
        self.states = states_of(plan, FileHashes(plan.project.hash_store))
        self.speeds = speeds_of(plan)
        self.failed: dict[str, str] = {}
        self._planned_speeds = _speeds_as_planned(plan)
        # Epochs of trainings that were compared with them.
        self._compared = 0

    def open(self) -> None:
        """Check that the run can start, and log the steps to run.

        Raises:
            ConfigError: A step that is left out is needed and not done.
        """
        self._check_left_out()
        logger.info(summary(self.chosen, self.states, self.speeds))
        self._warn_of_bad()

    def close(self) -> None:
        """Say how the run has ended.

        Raises:
            TrainingError: Steps have failed.
        """
        if self.failed:
            raise TrainingError("\n".join(self.failed.values()))
        for step in self.chosen.steps:
            advice = step.kind.advice(step, self.plan.project)
            if advice:
                logger.info(f"{step.name}: {advice}")
        logger.info(f"everything is done: {counted(len(self.chosen.steps), 'step')}")

    def head(self, step: Step) -> str:
        """Return the name of a step with its place in the run, for people."""
        number = 1 + self.chosen.steps.index(step)
        return f"[{number}/{len(self.chosen.steps)}] {step.label}"

    def to_do(self) -> list[Step]:
        """Return the steps to run that are not done."""
        return [step for step in self.chosen.steps if not self.states[step.label].is_done]

    def to_run(self, step: Step) -> StepState | None:
        """Return how far a step is whose turn has come; None if it is not to be run.

        A step is finished if it is done (leftovers of a kill are then removed), or if it depends
        on a failed step.
        """
        lost = [label for label in step.needs if label in self.failed]
        if lost:
            self.failed[step.label] = f"{step.label}: not run, since {lost[0]} failed"
            return None
        # Look again: the steps that ran since may have changed none of its inputs.
        before = self.look_at(step)
        if before.is_done:
            step.kind.tidy(step, self.plan.project)
            return None
        return before

    def look_at(self, step: Step) -> StepState:
        """Return the state of a step now, with file hashes of other processes."""
        unfinished = [label for label, state in self.states.items() if not state.is_done]
        hashes = FileHashes(self.plan.project.hash_store)
        state = state_of_step(step, self.plan, hashes, unfinished)
        hashes.save()
        self.states[step.label] = state
        return state

    def blend_so_far(self) -> None:
        """Run the steps that can use the finished ones before all that they need is done.

        A problem is logged: the step runs again when all are done.
        """
        changed = False
        for step in self.chosen.steps:
            unfinished = [label for label in step.needs if not self.states[label].is_done]
            if not unfinished:
                continue
            try:
                changed |= step.kind.run_so_far(step, self.plan, unfinished)
            except FoldsmithError as error:
                logger.warning(f"{step.label}: no result so far: {error}")
        if changed and self._on_blend is not None:
            self._on_blend()

    def epoch(self, step: Step, report: EpochReport) -> None:
        """Take down that an epoch of a step has ended."""
        self._compare(step, report)
        self.speeds.epoch_s[step.name] = report.epoch_s
        self.states[step.label] = StepState(Status.TO_DO, "", report.max_epoch - report.epoch)

    def _compare(self, step: Step, report: EpochReport) -> None:
        """Warn once if a training is much faster than it was planned.

        The first epoch alone may be slow: other steps begin at the same time.
        """
        planned = self._planned_speeds.get(step.series)
        if planned is None or self._compared == _COMPARED_EPOCHS:
            return
        self._compared += 1
        if report.images_per_s < _FASTER * planned:
            return
        self._compared = _COMPARED_EPOCHS
        logger.warning(
            f"{step.label}: {report.images_per_s:.0f} images/s, but its epochs were planned for "
            f"{planned:.0f}: the machine was busy then, and this run ends early. To use the time, "
            "stop, and plan anew by 'foldsmith run' with a --time other than "
            f"{self.plan.project.settings.time} (the same keeps its plan)"
        )

    def seconds_left(self) -> float:
        """Return how long the rest takes, as far as it was measured."""
        left = [self.speeds.left(step, self.states[step.label]) for step in self.chosen.steps]
        return sum(seconds for seconds in left if seconds is not None)

    def epochs_left(self) -> int:
        """Return the number of epochs still to train."""
        states = [self.states[step.label] for step in self.chosen.steps]
        return sum(state.epochs_left for state in states if not state.is_done)

    def _check_left_out(self) -> None:
        """Make sure that the steps which are not to be run are not needed."""
        chosen = {step.label for step in self.chosen.steps}
        for step in self.chosen.steps:
            for label in step.needs:
                if label not in chosen and not self.states[label].is_done:
                    raise ConfigError(
                        f"'{step.label}' needs '{label}', which is {self.states[label].status}; "
                        "run it too (--only takes several names, as in 000,100)"
                    )

    def _warn_of_bad(self) -> None:
        counts = {part: len(bad_ids(self.plan.project, part)) for part in ("train", "test")}
        if any(counts.values()):
            logger.warning(
                f"{counts['train']} train images are left out and {counts['test']} test "
                f"images get {for_unreadable(self.plan.project)}, since they cannot be read"
            )


def _speeds_as_planned(plan: Plan) -> dict[str, float]:
    """Return series of trainings -> planned images per second, where a run has the planned values.

    Values of the command line may make a training faster than its file does.
    """
    found = {}
    for series, speed in planned_speeds(plan.project.folder).items():
        used = next((step.experiment for step in plan.steps if step.series == series), None)
        if used is not None and used.tree == Experiment.load(plan.project, used.file).tree:
            found[series] = speed
    return found
