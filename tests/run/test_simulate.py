"""The simulated run: what must hold for any steps on any machines."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldsmith.extras.estimate.simulate import Job, critical_path, simulate
from foldsmith.run.node import Node

CLOSE = 1e-6


@st.composite
def runs(draw):
    """Steps that need earlier ones, and machines each of which has room for any of them."""
    node = Node(draw(st.integers(1, 4)), draw(st.integers(0, 3)), draw(st.sampled_from([None, 8])))
    shares = [0, 0.25, 0.3, 0.5, *range(1, node.gpus + 1)] if node.gpus else [0]
    jobs = []
    for k in range(draw(st.integers(1, 14))):
        needs = draw(st.sets(st.integers(0, k - 1), max_size=3)) if k else set()
        jobs.append(
            Job(
                f"job {k}",
                draw(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0, 7.1])),
                tuple(f"job {need}" for need in sorted(needs)),
                cpus=draw(st.sampled_from([0.1, 0.7, 1, node.cpus])),
                gpus=draw(st.sampled_from(shares)),
                memory_gib=draw(st.sampled_from([0, 2.5, 8])),
            )
        )
    return jobs, [node] * draw(st.integers(1, 3))


def at_once(schedule, moment):
    """Return the steps that run right after a moment."""
    return [one for one in schedule.placed if one.start <= moment < one.end]


@given(runs())
@settings(max_examples=150)
def test_what_holds_for_every_schedule(run):
    jobs, nodes = run
    schedule = simulate(jobs, nodes)
    by_label = {one.job.label: one for one in schedule.placed}
    assert sorted(by_label) == sorted(job.label for job in jobs)
    for one in schedule.placed:
        assert all(by_label[need].end <= one.start for need in one.job.needs)
        assert len(one.gpus) == (1 if 0 < one.job.gpus < 1 else one.job.gpus)
        running = at_once(schedule, one.start)
        for number, node in enumerate(nodes):
            here = [other.job for other in running if other.node == number]
            assert sum(job.cpus for job in here) <= node.cpus + CLOSE
            if node.memory_gib is not None:
                assert sum(job.memory_gib for job in here) <= node.memory_gib
        # No GPU is given out more than once over, and each is one that the node has.
        held = {}
        for other in running:
            for gpu in other.gpus:
                assert gpu < nodes[other.node].gpus
                share = min(1, other.job.gpus)
                held[other.node, gpu] = held.get((other.node, gpu), 0) + share
        assert all(share <= 1 + CLOSE for share in held.values())
    total = sum(job.seconds for job in jobs)
    path = critical_path(jobs)
    assert all(a.label in b.needs for a, b in itertools.pairwise(path))
    least = [
        sum(job.seconds for job in path),
        schedule.cpu_s / sum(node.cpus for node in nodes),
        schedule.gpu_s / max(1, sum(node.gpus for node in nodes)),
    ]
    assert max(least) - CLOSE <= schedule.wall_s <= total + CLOSE


@given(runs())
@settings(max_examples=50)
def test_nothing_waits_that_could_start(run):
    """While a step waits with all its needs done, no machine has room for it."""
    jobs, nodes = run
    schedule = simulate(jobs, nodes)
    ends = {one.job.label: one.end for one in schedule.placed}
    for one in schedule.placed:
        job = one.job
        ready = max((ends[need] for need in job.needs), default=0.0)
        for moment in [m for m in {0.0, *ends.values()} if ready <= m < one.start]:
            for number, node in enumerate(nodes):
                here = [p for p in at_once(schedule, moment) if p.node == number]
                lacks_cpus = sum(p.job.cpus for p in here) + job.cpus > node.cpus + CLOSE
                memory = sum(p.job.memory_gib for p in here) + job.memory_gib
                lacks_memory = node.memory_gib is not None and memory > node.memory_gib
                used = [
                    sum(min(1, p.job.gpus) for p in here if k in p.gpus) for k in range(node.gpus)
                ]
                fitting = sum(share + min(1, job.gpus) <= 1 + CLOSE for share in used)
                lacks_gpus = job.gpus > 0 and fitting < max(1, job.gpus)
                assert lacks_cpus or lacks_memory or lacks_gpus


@given(runs())
@settings(max_examples=50)
def test_room_for_one_is_one_after_another(run):
    jobs, _ = run
    alone = [Job(job.label, job.seconds, job.needs, cpus=1) for job in jobs]
    schedule = simulate(alone, [Node(1)])
    assert schedule.wall_s == pytest.approx(sum(job.seconds for job in jobs))
    # Nothing is ready before another: in the order of their needs, as the local engine.
    free = [Job(job.label, job.seconds, cpus=1) for job in jobs]
    assert [one.job for one in simulate(free, [Node(1)]).placed] == free


def test_first_come_first_served_and_small_ones_go_ahead():
    jobs = [
        Job("first", 4, cpus=2),
        Job("large", 1, cpus=3),
        Job("small", 3, cpus=1),
        Job("late", 1, ("small",), cpus=2),
    ]
    starts = {one.job.label: one.start for one in simulate(jobs, [Node(3)]).placed}
    assert starts == {"first": 0, "small": 0, "large": 4, "late": 5}


def test_shares_of_gpus_fill_one_before_the_next():
    jobs = [Job(f"{k}", 1, cpus=0, gpus=0.5) for k in range(3)] + [Job("whole", 1, cpus=0, gpus=1)]
    placed = {one.job.label: one for one in simulate(jobs, [Node(1, 3)]).placed}
    assert [placed[str(k)].gpus for k in range(3)] == [(0,), (0,), (1,)]
    assert placed["whole"].gpus == (2,) and placed["whole"].start == 0
    # Two shares that are free on two GPUs are not one that is.
    split = [Job(f"{k}", 1, cpus=0, gpus=0.6) for k in range(3)]
    assert simulate(split, [Node(1, 2)]).wall_s == 2


def test_what_fits_nowhere_is_an_error():
    for job in (Job("x", 1, cpus=3), Job("x", 1, gpus=1.5), Job("x", 1, memory_gib=9)):
        with pytest.raises(ValueError, match="x fits no node"):
            simulate([job], [Node(2, 2, 8)] * 4)
    circle = [Job("a", 1, ("b",)), Job("b", 1, ("a",))]
    with pytest.raises(ValueError, match="wait for each other"):
        simulate(circle, [Node(2)])


def test_nothing_to_do():
    assert simulate([], [Node(1)]).wall_s == 0
    assert critical_path([]) == ()


def test_the_critical_path_is_the_longest_chain():
    jobs = [Job("a", 1), Job("b", 5, ("a",)), Job("c", 2, ("a",)), Job("d", 1, ("b", "c"))]
    jobs += [Job("alone", 6), Job("e", 1, ("alone", "gone"))]
    assert [job.label for job in critical_path(jobs)] == ["a", "b", "d"]
