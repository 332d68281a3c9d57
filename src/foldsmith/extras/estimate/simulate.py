"""A run on paper: when each step starts on which machine, as an engine would start it.

The simulation does not depend on the content of a step: a step has seconds, resources and
dependencies.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from foldsmith.run.node import Node

# Resources are counted in ten-thousandths, as Ray counts them: sums of fractions stay exact.
_UNIT = 10_000


@dataclass(frozen=True)
class Job:
    """A step on paper.

    Attributes:
        label: Its name.
        seconds: How long it takes.
        needs: Labels of the jobs that come before it; names of others count as done.
        cpus: CPU cores that it holds.
        gpus: GPUs that it holds: a whole number, or less than 1 of a single one.
        memory_gib: Memory that it holds.
    """

    label: str
    seconds: float
    needs: tuple[str, ...] = ()
    cpus: float = 1.0
    gpus: float = 0.0
    memory_gib: float = 0.0


@dataclass(frozen=True)
class Placed:
    """When and where a job runs.

    Attributes:
        job: The job.
        start: Seconds since the run began.
        node: Number of its node, from 0.
        gpus: Numbers of its GPUs on that node, from 0.
    """

    job: Job
    start: float
    node: int
    gpus: tuple[int, ...]

    @property
    def end(self) -> float:
        """Seconds since the run began."""
        return self.start + self.job.seconds


@dataclass(frozen=True)
class Schedule:
    """All jobs of a run, in the order in which they start.

    Attributes:
        placed: The jobs.
        nodes: The machines.
    """

    placed: tuple[Placed, ...]
    nodes: tuple[Node, ...]

    @property
    def wall_s(self) -> float:
        """Seconds from the first start to the last end."""
        return max((one.end for one in self.placed), default=0.0)

    @property
    def gpu_s(self) -> float:
        """GPU seconds that the jobs hold."""
        return sum(one.job.gpus * one.job.seconds for one in self.placed)

    @property
    def cpu_s(self) -> float:
        """CPU seconds that the jobs hold."""
        return sum(one.job.cpus * one.job.seconds for one in self.placed)


def simulate(jobs: Sequence[Job], nodes: Sequence[Node]) -> Schedule:
    """Return when and where jobs run if each starts as soon as it can.

    First come, first served by readiness, in the order of ``jobs`` where that is equal; one that
    does not fit waits, and those behind it go ahead if they fit. A job runs on one node: of those
    with room the one of which the least is held.

    Args:
        jobs: The jobs.
        nodes: The machines.

    Raises:
        ValueError: A job fits no node, or jobs wait for each other.
    """
    free = [_Free(node) for node in nodes]
    for job in jobs:
        if not any(one.gpus_for(job) is not None for one in free):
            raise ValueError(f"{job.label} fits no node")
    labels = {job.label for job in jobs}
    waiting = {k: {need for need in job.needs if need in labels} for k, job in enumerate(jobs)}
    ready = [k for k, needs in waiting.items() if not needs]
    running: list[tuple[float, int, Placed]] = []
    placed: list[Placed] = []
    now = 0.0
    while ready or running:
        for k in list(ready):
            room = [
                (one.held, number, gpus)
                for number, one in enumerate(free)
                if (gpus := one.gpus_for(jobs[k])) is not None
            ]
            if not room:
                continue
            _, number, gpus = min(room)
            free[number].take(jobs[k], gpus)
            placed.append(Placed(jobs[k], now, number, gpus))
            heapq.heappush(running, (placed[-1].end, k, placed[-1]))
            ready.remove(k)
        now = running[0][0]
        ended = set()
        while running and running[0][0] == now:
            one = heapq.heappop(running)[2]
            free[one.node].give_back(one.job, one.gpus)
            ended.add(one.job.label)
        for k, needs in waiting.items():
            if needs and not needs - ended:
                ready.append(k)
            needs -= ended
    if len(placed) < len(jobs):
        raise ValueError("jobs wait for each other")
    return Schedule(tuple(placed), tuple(nodes))


def critical_path(jobs: Sequence[Job]) -> tuple[Job, ...]:
    """Return the longest chain of jobs that need each other: no number of machines is faster.

    Args:
        jobs: The jobs, each after its dependencies.
    """
    ends: dict[str, float] = {}
    before: dict[str, str | None] = {}
    by_label = {job.label: job for job in jobs}
    for job in jobs:
        known = [need for need in job.needs if need in ends]
        last = max(known, key=lambda need: ends[need], default=None)
        before[job.label] = last
        ends[job.label] = job.seconds + (0.0 if last is None else ends[last])
    path: list[Job] = []
    label = max(ends, key=lambda name: ends[name], default=None)
    while label is not None:
        path.append(by_label[label])
        label = before[label]
    return tuple(reversed(path))


class _Free:
    """Free resources of a node."""

    def __init__(self, node: Node) -> None:
        self._cpus = self._all_cpus = _units(node.cpus)
        self._gpus = [_UNIT] * node.gpus
        self._memory = None if node.memory_gib is None else _units(node.memory_gib)

    @property
    def held(self) -> tuple[float, float]:
        """Shares that are held: of the GPUs, of the CPUs."""
        gpus = 1 - sum(self._gpus) / (_UNIT * len(self._gpus)) if self._gpus else 0.0
        return gpus, 1 - self._cpus / self._all_cpus if self._all_cpus else 0.0

    def gpus_for(self, job: Job) -> tuple[int, ...] | None:
        """Return the GPUs that a job would get, maybe none; None if it does not fit."""
        if _units(job.cpus) > self._cpus:
            return None
        if self._memory is not None and _units(job.memory_gib) > self._memory:
            return None
        wanted = _units(job.gpus)
        if wanted == 0:
            return ()
        if wanted < _UNIT:
            # The fullest that has room, so that others stay whole.
            fitting = [k for k, left in enumerate(self._gpus) if left >= wanted]
            return (min(fitting, key=lambda k: self._gpus[k]),) if fitting else None
        whole = [k for k, left in enumerate(self._gpus) if left == _UNIT]
        number = wanted // _UNIT
        return tuple(whole[:number]) if len(whole) >= number and wanted % _UNIT == 0 else None

    def take(self, job: Job, gpus: Sequence[int]) -> None:
        self._change(job, gpus, -1)

    def give_back(self, job: Job, gpus: Sequence[int]) -> None:
        self._change(job, gpus, 1)

    def _change(self, job: Job, gpus: Sequence[int], sign: int) -> None:
        self._cpus += sign * _units(job.cpus)
        if self._memory is not None:
            self._memory += sign * _units(job.memory_gib)
        for k in gpus:
            self._gpus[k] += sign * min(_units(job.gpus), _UNIT)


def _units(amount: float) -> int:
    return round(amount * _UNIT)
