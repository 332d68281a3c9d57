"""The process that does steps in one slot of this machine, one after the other.

It is started by :mod:`foldsmith.run.parallel_engine`. Orders come as pickles on its standard input;
events go back as pickles by the standard output that it was started with. It ends when the orders
do, that is, with the process that gives them.
"""

import logging
import os
import pickle
import queue
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch

from foldsmith.errors import FoldsmithError, Stopped
from foldsmith.project import ProjectFolder
from foldsmith.run.events import EpochEnded, Event, lines_told, portable
from foldsmith.run.execute import execute_alone
from foldsmith.steps.base import Options, Plan, Step
from foldsmith.steps.registry import types_of
from foldsmith.steps.status import StepState
from foldsmith.training.epoch_report import EpochReport
from foldsmith.utils.machine import use_cores

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """A step to do.

    Attributes:
        project: The project.
        steps: The steps of the plan that matter to it.
        label: The step's.
        options: How it is done.
        cores: CPU cores for it.
        threads: Threads of torch, independent of other running steps: another number may change
            the last digits of results on the CPU. None leaves torch's own choice.
        log_level: Lowest level of the messages to send.
    """

    project: ProjectFolder
    steps: tuple[Step, ...]
    label: str
    options: Options
    cores: int
    threads: int | None
    log_level: int


@dataclass(frozen=True)
class Outcome:
    """How a step has ended.

    Attributes:
        state: Its state afterwards; None after an error.
        error: The error that ended it.
    """

    state: StepState | None
    error: Exception | None = None


def main() -> None:
    """Run ordered steps until there are no more orders."""
    # The lines of libraries written in C, and of loader processes, are not pickles.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that gives the orders decides
    signal.signal(signal.SIGTERM, _stop)
    sending = threading.Lock()

    def send(answer: Event | Outcome) -> None:
        with sending:
            pickle.dump(answer, answers)
            answers.flush()

    def tell(events: list[Event]) -> None:
        for event in events:
            send(event)

    orders: queue.Queue[Order | None] = queue.Queue()
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    try:
        while (order := orders.get()) is not None:
            with lines_told(order.label, tell, order.log_level):
                outcome = _outcome(order, tell)
            send(outcome)
    except (Stopped, BrokenPipeError):
        # Not by way of Python's end, which would wait for a thread that reads.
        os._exit(128 + signal.SIGTERM)


def _outcome(order: Order, tell: Callable[[list[Event]], None]) -> Outcome:
    use_cores(order.cores)
    if order.threads is not None:
        torch.set_num_threads(order.threads)
    # The holder that a lock names.
    sys.argv = ["foldsmith", f"(run: {order.label})"]

    def listen(report: EpochReport) -> None:
        tell([EpochEnded(order.label, report)])

    try:
        step = next(step for step in order.steps if step.label == order.label)
        plan = Plan(order.project, order.steps, types_of(order.project))
        return Outcome(execute_alone(step, plan, order.options, listen))
    except (FoldsmithError, OSError, MemoryError) as error:
        return Outcome(None, portable(error))
    except Exception as error:
        logger.exception("the step has failed unexpectedly")
        return Outcome(None, portable(error, order.label))


def _listen(orders: "queue.Queue[Order | None]") -> None:
    """Read orders; when there are no more, end whatever is being done."""
    try:
        # First where Python finds modules: as the process that gives the orders.
        sys.path[:] = pickle.load(sys.stdin.buffer)
        os.chdir(pickle.load(sys.stdin.buffer))
        while True:
            orders.put(pickle.load(sys.stdin.buffer))
    except EOFError:
        orders.put(None)
        os.kill(os.getpid(), signal.SIGTERM)


def _stop(number: int, _: object) -> None:
    raise Stopped(number)
