"""Running the steps of a plan side by side on this machine: a process for each slot.

Steps that do not need each other run at the same time, each on a GPU of its own, or on its share of
the cores (:mod:`foldsmith.run.slots`). This takes no package and no option; Ray does the same on
several machines, and several steps on one GPU.
"""

import contextlib
import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import foldsmith
from foldsmith.errors import OutputError, TrainingError
from foldsmith.run.events import Event, show
from foldsmith.run.execute import refuse_running
from foldsmith.run.live import RunView
from foldsmith.run.run_state import RunState
from foldsmith.run.slots import Slot, Slots, next_to_begin
from foldsmith.run.step_worker import Order, Outcome
from foldsmith.steps.base import Step
from foldsmith.utils.machine import cores_here

logger = logging.getLogger(__name__)

# Seconds between two drawings of the view while nothing happens.
_PAUSE_S = 0.25

# Grace period for a process to finish a write before it is killed.
_ENDING_S = 30.0


def run_side_by_side(run_state: RunState, view: RunView, slots: Slots) -> None:
    """Do the steps of a run, as many at once as there are slots and room in them.

    Args:
        run_state: The run; it contains failed steps afterwards.
        view: Where it is shown.
        slots: The slots, as :func:`~foldsmith.run.slots.slots_for` returns them.

    Raises:
        FoldsmithError: A step cannot be done, for another reason than its own training; what ran
            beside it has come to its end.
    """
    logger.info(f"{slots}: steps that do not need each other run side by side")
    answers: queue.Queue[tuple[_Worker, Event | Outcome | None]] = queue.Queue()
    with contextlib.ExitStack() as stack:
        free = [stack.enter_context(_worker(slot, answers)) for slot in reversed(slots.slots)]
        _Run(run_state, view, slots, free, answers).go()


class _Worker:
    """The process of one slot; it is started when there is something to do.

    Args:
        slot: The slot.
        answers: Queue of the process's messages; None when it has ended.
    """

    def __init__(
        self, slot: Slot, answers: "queue.Queue[tuple[_Worker, Event | Outcome | None]]"
    ) -> None:
        self.slot = slot
        self._answers = answers
        self._process: subprocess.Popen[bytes] | None = None

    def order(self, order: Order) -> None:
        """Give the process a step to do."""
        if self._process is None:
            self._process = self._started()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its end is told by the thread that listens
            pickle.dump(order, self._process.stdin)
            self._process.stdin.flush()

    def _started(self) -> "subprocess.Popen[bytes]":
        code = "from foldsmith.run.step_worker import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | self.slot.environment,
            # Python imports from there first: nothing of a project is to come before.
            cwd=Path(foldsmith.__file__).parents[1],
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            pickle.dump([path for path in sys.path if path], process.stdin)
            pickle.dump(os.getcwd(), process.stdin)
            process.stdin.flush()
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        return process

    def _listen(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        with contextlib.suppress(EOFError, pickle.UnpicklingError):
            while True:
                self._answers.put((self, pickle.load(process.stdout)))
        self._answers.put((self, None))

    def end(self) -> int:
        """End the process, whatever it does; returns its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        with contextlib.suppress(OSError):
            process.terminate()
        try:
            return process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
        finally:
            with contextlib.suppress(OSError):
                assert process.stdin is not None
                process.stdin.close()


@contextlib.contextmanager
def _worker(
    slot: Slot, answers: "queue.Queue[tuple[_Worker, Event | Outcome | None]]"
) -> Iterator[_Worker]:
    worker = _Worker(slot, answers)
    try:
        yield worker
    finally:
        worker.end()


class _Run:
    """The steps of a run, given to workers as they become free.

    Args:
        run_state: The run.
        view: Where it is shown.
        slots: The slots.
        workers: One for each slot.
        answers: Queue of their messages.
    """

    def __init__(
        self,
        run_state: RunState,
        view: RunView,
        slots: Slots,
        workers: list[_Worker],
        answers: "queue.Queue[tuple[_Worker, Event | Outcome | None]]",
    ) -> None:
        self._run_state, self._view, self._answers = run_state, view, answers
        self._steps = {step.label: step for step in run_state.chosen.steps}
        self._waiting = list(run_state.chosen.steps)
        self._running: dict[_Worker, Step] = {}
        self._slots, self._free = slots, workers
        # Whether a step has ended since the finished members were blended.
        self._news = True
        # The error that ends the run early; running steps may finish.
        self._broken: Exception | None = None

    def go(self) -> None:
        """Do all steps.

        Raises:
            FoldsmithError: As :func:`run_side_by_side`.
        """
        while True:
            while self._broken is None and (step := self._next()) is not None:
                self._waiting.remove(step)
                self._begin(step)
            if not self._running:
                break
            # While the workers go on. Answers first: a worker that is free waits for its next step.
            if self._news and self._answers.empty():
                self._news = False
                self._run_state.blend_so_far()
            try:
                self._take(*self._answers.get(timeout=_PAUSE_S))
            except queue.Empty:
                self._view.draw()
        if self._broken is not None:
            raise self._broken

    def _next(self) -> Step | None:
        return next_to_begin(self._waiting, self._running.values(), self._slots)

    def _begin(self, step: Step) -> None:
        run_state = self._run_state
        before = run_state.to_run(step)
        if before is None:
            return
        try:
            refuse_running(step, before)
        except OutputError as error:
            self._broken = error
            return
        worker = self._free.pop()
        self._running[worker] = step
        share, name = self._slots.share(step), worker.slot.name
        where = f" ({name})" if share and name else ""
        logger.info(f"{run_state.head(step)}: {before.why or before.status}{where}")
        self._view.begin(step)
        whole = step.kind.context(step, run_state.plan)
        cores = cores_here() if self._is_alone(step) else share or cores_here()
        project, level = run_state.plan.project, logger.getEffectiveLevel()
        how = (step.label, run_state.options, cores, self._slots.threads(step), level)
        worker.order(Order(project, whole, *how))

    def _is_alone(self, step: Step) -> bool:
        """Return whether no other step that computes runs, or could beside this one."""
        ahead = {other.label for other in [*self._waiting, *self._running.values()]}
        ready = [other for other in self._waiting if not ahead & set(other.needs)]
        return not any(
            self._slots.share(other)
            for other in [*ready, *self._running.values()]
            if other is not step
        )

    def _take(self, worker: _Worker, answer: Event | Outcome | None) -> None:
        if answer is not None and not isinstance(answer, Outcome):
            show(answer, self._run_state, self._steps, self._view)
            return
        step = self._running.pop(worker, None)
        if step is None:
            return  # the end of a process that had nothing to do
        if answer is None:
            answer = Outcome(None, _death_of(step, worker.end()))
        self._free.append(worker)
        self._news = True
        if answer.state is not None:
            self._run_state.states[step.label] = answer.state
        if answer.error is not None:
            logger.error(str(answer.error))
            if isinstance(answer.error, TrainingError):
                # The other trainings may succeed; this error is printed again at the end.
                self._run_state.failed[step.label] = str(answer.error)
            else:
                self._broken = self._broken or answer.error
        self._view.end(step, failed=answer.error is not None)


def _death_of(step: Step, code: int) -> TrainingError:
    how = f"exit code {code}"
    if code < 0:
        with contextlib.suppress(ValueError):
            how = signal.Signals(-code).name
    return TrainingError(
        f"{step.label}: its process has died ({how}); most often the machine is out of memory. "
        "Every finished epoch is kept: run the same command again"
    )
