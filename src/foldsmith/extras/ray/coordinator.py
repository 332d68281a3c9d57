"""A run on Ray: the actor that submits its steps, and the task that does one.

The actor owns the tasks, so that a run does not depend on the process that started it. It keeps
events for attached commands, and restarts from the manifests if it dies: its whole state follows
from the project folder.
"""

import logging
import os
import pickle
import socket
import sys
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError, TaskCancelledError

from foldsmith.errors import FoldsmithError, OutputError, TrainingError, one_line
from foldsmith.project import ProjectFolder
from foldsmith.run.events import (
    EpochEnded,
    Event,
    LoggedLine,
    StepBegan,
    StepEnded,
    lines_told,
    portable,
)
from foldsmith.run.execute import execute_alone
from foldsmith.run.resources import Request
from foldsmith.run.run_state import RunState
from foldsmith.run.state import Speeds
from foldsmith.steps.base import Options, Plan, Step
from foldsmith.steps.registry import types_of
from foldsmith.steps.status import StepState
from foldsmith.training.epoch_report import EpochReport
from foldsmith.utils.locking import is_free
from foldsmith.utils.machine import use_cores

logger = logging.getLogger(__name__)

# How often Ray begins a step again whose process or node has died.
RETRIES = 3

# A worker of a dead node, or of a dead coordinator, may need a moment to die itself.
_DYING_S = 60.0

# Number of events kept for attached commands; older ones are in the log file.
_KEPT = 10_000

# An actor whose run has ended waits so long for those who watch to ask how.
_LINGER_S = 3.0


@dataclass(frozen=True)
class RunSpec:
    """The work of a coordinator; a few kilobytes.

    The steps are those at the start of the run: later edits of files matter to the next run, as
    without Ray.

    Attributes:
        project: The project.
        steps: All steps of the plan.
        chosen: Labels of those to run.
        options: How steps are done.
        requests: Label -> resources of a step, for steps that were not done.
        asked: Arguments of the command, to recognise another command with the same.
        log: File of all output.
    """

    project: ProjectFolder
    steps: tuple[Step, ...]
    chosen: frozenset[str]
    options: Options
    requests: dict[str, Request]
    asked: tuple[Any, ...]
    log: Path

    def run_state(self) -> RunState:
        """Return the run, as far as it is."""
        types = types_of(self.project)
        chosen = tuple(step for step in self.steps if step.label in self.chosen)
        plan, part = (Plan(self.project, steps, types) for steps in (self.steps, chosen))
        return RunState(plan, part, self.options)


@dataclass(frozen=True)
class RunEnd:
    """How a run has ended.

    Attributes:
        failed: Label -> error of failed steps that did not stop the run.
        error: The error that ended the run early, if there was one.
    """

    failed: dict[str, str]
    error: Exception | None


@dataclass(frozen=True)
class RunProgress:
    """A run as it is, for who begins to watch.

    Attributes:
        asked: As :class:`RunSpec`.
        chosen: The steps to run.
        states: Label -> state of each.
        speeds: Measured speeds.
        running: Label -> seconds since it began.
    """

    asked: tuple[Any, ...]
    chosen: tuple[Step, ...]
    states: dict[str, StepState]
    speeds: Speeds
    running: dict[str, float]


@dataclass(frozen=True)
class Update:
    """Events since the last request.

    Attributes:
        name: Name of the coordinator, another one when it was begun again.
        until: Number of events so far.
        progress: State of the run, for a command that attaches.
        events: Events since the last request.
        end: How the run has ended, if it has.
    """

    name: str
    until: int
    progress: RunProgress | None
    events: list[Event]
    end: RunEnd | None


class Coordinator:
    """Submits each step when its dependencies are done; the engine makes it an actor.

    Args:
        spec: A pickled :class:`RunSpec`: reading it imports the project's own Python.
    """

    def __init__(self, spec: bytes) -> None:
        self._name = uuid.uuid4().hex
        self._events: deque[Event] = deque(maxlen=_KEPT)
        self._n_events = 0
        self._telling = threading.Lock()
        self._attempts: dict[str, int] = {}
        self._began: dict[str, float] = {}
        self._broken: Exception | None = None
        self._end: RunEnd | None = None
        self._last_asked = time.monotonic()
        self._me = ray.get_runtime_context().current_actor
        try:
            self._spec: RunSpec = pickle.loads(spec)
            self._run_state: RunState = self._spec.run_state()
        except Exception as error:  # an actor that cannot be made would say it in Ray's words
            self._end = RunEnd({}, portable(error))
            return
        # A thread, not a method: it starts again whenever the actor is restarted.
        threading.Thread(target=self._run, daemon=True).start()

    def begin(self, label: str, host: str) -> int:
        """Take down that a step begins; return for which time."""
        self._attempts[label] = attempt = self._attempts.get(label, 0) + 1
        self._began[label] = time.monotonic()
        state = self._run_state.states[label]
        why = state.why or state.status
        if attempt > 1:
            why = f"its process or node has died; attempt {attempt} of {1 + RETRIES}"
        head = self._run_state.head(self._step(label))
        self.tell([LoggedLine("", f"{head}: {why} (on {host})"), StepBegan(label)])
        return attempt

    def tell(self, events: list[Event]) -> None:
        """Record events."""
        for event in events:
            if isinstance(event, EpochEnded):
                self._run_state.epoch(self._step(event.label), event.report)
            with self._telling:
                self._events.append(event)
                self._n_events += 1
                if isinstance(event, LoggedLine):
                    with self._spec.log.open("a", encoding="utf-8") as file:
                        file.write(f"{event}\n")

    def updates(self, name: str | None, first: int | None) -> Update:
        """Return the events since a number.

        Args:
            name: Name of the coordinator of the last request; None for the first request.
            first: Number of the first event to return; None for future events only.
        """
        self._last_asked = time.monotonic()
        end = self._end  # before the events, so that none is missed
        with self._telling:
            until = self._n_events
            if name not in (None, self._name):
                first = 0
            gone = until - len(self._events)
            events = list(self._events)[max(0, (until if first is None else first) - gone) :]
        progress = None if name == self._name else self._progress()
        return Update(self._name, until, progress, events, end)

    def _progress(self) -> RunProgress | None:
        if self._end is not None:
            return None
        run_state, now = self._run_state, time.monotonic()
        running = {label: now - began for label, began in dict(self._began).items()}
        speeds = Speeds(dict(run_state.speeds.epoch_s), dict(run_state.speeds.step_s))
        steps = run_state.chosen.steps
        return RunProgress(self._spec.asked, steps, dict(run_state.states), speeds, running)

    def _step(self, label: str) -> Step:
        return next(step for step in self._run_state.chosen.steps if step.label == label)

    def _run(self) -> None:
        try:
            self._steps()
        except Exception as error:
            self._broken = portable(error)
        self._end = RunEnd(self._run_state.failed, self._broken)
        # Attached commands receive the end; then this process is not needed any more.
        while time.monotonic() - self._last_asked < _LINGER_S:
            time.sleep(_LINGER_S / 10)
        ray.kill(self._me)

    def _steps(self) -> None:
        waiting = list(self._run_state.chosen.steps)
        running: dict[Any, Step] = {}
        while True:
            for step in list(waiting):
                ahead = {other.label for other in [*waiting, *running.values()]}
                if self._broken is None and not ahead & set(step.needs):
                    waiting.remove(step)
                    if self._run_state.to_run(step) is not None:
                        running[self._submit(step)] = step
                    elif step.label not in self._run_state.failed:
                        self.tell([StepEnded(step.label, self._run_state.states[step.label])])
            if not running:
                return
            (task,), _ = ray.wait(list(running), num_returns=1)
            self._finish(task, running.pop(task))
            if self._broken is not None:
                # Running steps may finish; waiting steps do not start.
                for task, step in running.items():
                    if step.label not in self._began:
                        ray.cancel(task)

    def _submit(self, step: Step) -> Any:
        request = self._spec.requests.get(step.label)
        if request is None:
            raise OutputError(
                f"{step.folder}: '{step.label}' was done when the run began and is not any more; "
                "give the command again"
            )
        steps = step.kind.context(step, self._run_state.plan)
        task = ray.remote(max_calls=1)(run_step).options(  # a process of its own
            name=step.label,
            num_cpus=request.cpus,
            num_gpus=request.gpus,
            memory=None if request.memory_gib is None else int(request.memory_gib * 2**30),
            max_retries=RETRIES,
        )
        payload = pickle.dumps((self._spec.project, steps))
        return task.remote(self._me, payload, step.label, self._spec.options, request)

    def _finish(self, task: Any, step: Step) -> None:
        """Take down how a task has ended."""
        try:
            outcome: StepState | Exception = ray.get(task)
        except TaskCancelledError:
            return
        except RayTaskError as error:
            outcome = portable(error.cause, step.label)
        except RayError as error:  # its worker or node, more often than it is begun again
            outcome = TrainingError(
                f"{step.label}: its process has died {1 + RETRIES} times, the last time: "
                f"{one_line(error)[:300]}"
            )
        self._began.pop(step.label, None)
        if isinstance(outcome, StepState):
            self._run_state.states[step.label] = outcome
            self.tell([StepEnded(step.label, outcome)])
            return
        self.tell(
            [
                LoggedLine("", str(outcome), logging.ERROR),
                StepEnded(step.label, self._run_state.states[step.label], failed=True),
            ]
        )
        if isinstance(outcome, TrainingError):
            # The other trainings may succeed; this error is printed again at the end.
            self._run_state.failed[step.label] = str(outcome)
        elif self._broken is None:
            self._broken = outcome


def run_step(
    coordinator: Any, payload: bytes, label: str, options: Options, request: Request
) -> StepState | Exception:
    """Do one step: the task of Ray.

    Args:
        coordinator: The actor, which receives its events.
        payload: Pickled project and steps, among them the one to do.
        label: Its label.
        options: How steps are done.
        request: Resources of the step.

    Returns:
        Its state afterwards, or an error that Ray must not retry.
    """
    if not request.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves it as it is then
    torch.set_num_threads(request.threads)
    use_cores(request.threads)
    # The holder that a lock names.
    sys.argv = ["foldsmith", f"(Ray: {label})"]
    try:
        with lines_told(label, coordinator.tell.remote):
            try:
                return _do(coordinator, payload, label, options)
            except (FoldsmithError, OSError, MemoryError) as error:
                return portable(error)
            except Exception:
                logger.exception("the step has failed unexpectedly")
                raise
    finally:
        # All that was told has arrived when this has.
        _answer(coordinator.tell.remote([]))


def _do(coordinator: Any, payload: bytes, label: str, options: Options) -> StepState:
    project: ProjectFolder
    steps: tuple[Step, ...]
    project, steps = pickle.loads(payload)
    os.chdir(project.folder)
    step = next(step for step in steps if step.label == label)
    attempt: int = _answer(coordinator.begin.remote(label, socket.gethostname()))
    if attempt > 1 + RETRIES:
        # Ray does not count attempts that it killed because memory was low.
        raise TrainingError(
            f"{label}: its process has died {attempt - 1} times, maybe for want of memory; say "
            f"how much it needs (resources/{step.kind.name}/memory_gib in project.yml)"
        )
    until = time.monotonic() + _DYING_S
    for folder in step.kind.locked(step, project):
        is_free(folder, max(0.0, until - time.monotonic()))
    plan = Plan(project, steps, types_of(project))

    def listen(report: EpochReport) -> None:
        coordinator.tell.remote([EpochEnded(label, report)])

    # The state is read here: an attempt continues after the previous one.
    return execute_alone(step, plan, options, listen)


def _answer(asked: Any) -> Any:
    """Return an actor's answer to a task.

    Not by ``ray.get``, in which a task counts as idle: Ray would give its CPUs to another one.
    """
    return asked.future().result()
