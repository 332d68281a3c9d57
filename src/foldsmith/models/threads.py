"""The threads that a step computes with on a CPU."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar

import torch
from threadpoolctl import threadpool_limits

from foldsmith.config import Experiment, Globals
from foldsmith.models.devices import kind_of_device

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
