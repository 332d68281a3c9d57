"""The threads that a step computes with on a CPU."""

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar

import torch
from threadpoolctl import threadpool_limits

from foldsmith.config import Experiment
from foldsmith.config.settings import Globals
from foldsmith.models.devices import kind_of_device
from foldsmith.utils.machine import cores_here, idle_cores

logger = logging.getLogger(__name__)

# Seconds in which the other processes of the machine are watched.
_WATCHED_S = 0.2

# Whether the advice was logged.
_advised = False

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def threads_of(settings: Globals) -> Iterator[None]:
    """Compute with the threads that an experiment asks for, and with as many as before afterwards.

    Results depend on the number of threads in their last digits. So it is a value of the
    experiment, and neither the machine nor the steps that run beside this one change it.

    Args:
        settings: ``threads`` is used on a CPU; null leaves torch's own choice.
    """
    if settings.threads is None or kind_of_device(settings.device) != "cpu":
        yield
        return
    # The heads on frozen features are fitted with its BLAS: only loaded libraries can be limited.
    import scipy.linalg  # noqa: F401

    before = torch.get_num_threads()
    with threadpool_limits(settings.threads):
        torch.set_num_threads(settings.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def with_threads(
    step: Callable[Concatenate[Experiment, P], R],
) -> Callable[Concatenate[Experiment, P], R]:
    """Let a function compute with the threads of the experiment that is its first argument."""

    @functools.wraps(step)
    def computing(experiment: Experiment, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with threads_of(experiment.globals):
            return step(experiment, *args, **kwargs)

    return computing


def advise_if_busy(settings: Globals) -> None:
    """Log a remedy if a training on a CPU starts while other processes keep its cores busy.

    The threads of a training wait for each other, so that one busy process takes far more than its
    share from it. It is logged once per process.

    Args:
        settings: Settings of the training.
    """
    global _advised
    threads = torch.get_num_threads()
    if _advised or settings.threads is not None or threads == 1:
        return
    if kind_of_device(settings.device) != "cpu":
        return
    idle = idle_cores(_WATCHED_S)
    if idle is None or idle > threads - 0.5:
        return
    _advised = True
    cores = cores_here()
    logger.info(
        f"other processes keep {max(0.0, cores - idle):.1f} of {cores} cores busy, and "
        f"the {threads} threads of this training wait for each other. Set globals/threads: 1 to "
        "train faster beside them (trainings begin again with another number of threads)"
    )
