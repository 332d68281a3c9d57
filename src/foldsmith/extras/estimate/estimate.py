"""Estimate the time, the GPU hours and the disk space that a run takes on some machines."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from foldsmith.data.table_checks import check_tables
from foldsmith.errors import ConfigError
from foldsmith.extras.estimate.disk import Disk, disk_of
from foldsmith.extras.estimate.result import Estimate
from foldsmith.extras.estimate.simulate import Job, simulate
from foldsmith.project import ProjectFolder
from foldsmith.run.durations import Durations, StepDuration
from foldsmith.run.node import Node, this_node
from foldsmith.run.plan import plan_of, plan_of_all
from foldsmith.run.resources import requests_of
from foldsmith.run.state import states_of
from foldsmith.steps.base import Plan
from foldsmith.steps.status import Status, StepState
from foldsmith.utils.hashing import FileHashes

# A note names the fraction of the time that is guessed if it is at least this.
_NOTED_GUESS = 0.01

# CPU cores per GPU that are assumed for machines with more GPUs than this one.
_CPUS_PER_GPU = 8


def estimate(
    project: ProjectFolder,
    config: Path | str,
    overrides: Sequence[str] = (),
    *,
    nodes: int = 1,
    gpus: int | None = None,
    cpus: float | None = None,
    memory_gib: float | None = None,
    speedup: float = 1.0,
    epoch_s: Mapping[str, float] | None = None,
    measure: bool = False,
    from_scratch: bool = False,
) -> Estimate:
    """Estimate the rest of a run on some machines; nothing is run.

    Args:
        project: The project.
        config: Experiment file of any kind, relative to the project folder.
        overrides: As those of :func:`foldsmith.run.engine`.
        nodes: Number of machines, all alike.
        gpus: GPUs of each; as many as this machine has if None.
        cpus: CPU cores of each; if None as many as this machine has, or 8 for each GPU if it has
            fewer GPUs than that.
        memory_gib: Memory of each; if None, the memory of this machine, or no limit if it has
            fewer GPUs.
        speedup: How many times as fast the GPUs are as the device that was measured on.
        epoch_s: Name of an experiment -> seconds of its epochs on these machines.
        measure: Time the models of steps without a measurement, on this machine.
        from_scratch: Estimate the whole run, including the steps that are done.

    Raises:
        ConfigError: An experiment is wrong, a step fits no machine, or the duration of
            a step cannot be estimated.
        DataError: One line per problem of the tables.
    """
    node, notes = _node(gpus, cpus, memory_gib)
    if speedup != 1.0 and not node.gpus:
        raise ConfigError("--speedup is for GPUs, and these machines have none; give --gpus")
    plan = plan_of(project, config, overrides)
    check_tables(project, plan.meta_files)
    others = plan
    with contextlib.suppress(ConfigError):  # of an experiment that this run does not need
        others = plan_of_all(project, str(project.path(config).parent))
    states = (
        {step.label: StepState(Status.TO_DO, "", step.epochs) for step in plan.steps}
        if from_scratch
        else states_of(plan, FileHashes(project.hash_store))
    )
    durations = Durations(plan, others, node, speedup, epoch_s, measure)
    found: dict[str, StepDuration] = {}
    jobs = []
    to_do = [step for step in plan.steps if not states[step.label].is_done]
    requests = requests_of(to_do, project, [node])
    for step in to_do:
        request = requests[step.label]
        found[step.label] = durations.of(step, states[step.label], request)
        held = request.cpus, request.gpus, request.memory_gib or 0.0
        jobs.append(Job(step.label, found[step.label].seconds, step.needs, *held))
    schedule = simulate(jobs, [node] * nodes)
    disk = disk_of(plan, schedule, durations.costs)
    uncounted = dict.fromkeys(
        step.name
        for step in plan.steps
        if step.label in found
        and step.epochs
        and step.experiment
        and durations.costs.model(step.experiment) is None
    )
    notes += [
        f"{name}: its model has no known size, and is left out of the disk space"
        for name in uncounted
    ]
    return Estimate(plan, found, schedule, disk, (*notes, *_notes(plan, found, disk)))


def _node(gpus: int | None, cpus: float | None, memory_gib: float | None) -> tuple[Node, list[str]]:
    """Return the resources of each machine, and a note on every assumption made about them."""
    here = this_node()
    if gpus is None or gpus <= here.gpus:
        memory = memory_gib or here.memory_gib
        return Node(cpus or here.cpus, here.gpus if gpus is None else gpus, memory), []
    if cpus is not None:
        return Node(cpus, gpus, memory_gib), []
    assumed = _CPUS_PER_GPU * gpus
    note = (
        f"{assumed} CPUs per node are assumed, {_CPUS_PER_GPU} for each GPU; change it with --cpus"
    )
    return Node(assumed, gpus, memory_gib), [note]


def _notes(plan: Plan, durations: Mapping[str, StepDuration], disk: Disk) -> list[str]:
    notes = []
    names = {step.label: step.name for step in plan.steps}
    # With a speedup the source goes on behind the device.
    slow = {names[label] for label, each in durations.items() if each.source.endswith(" on cpu")}
    if slow:
        notes.append(
            f"measured on a CPU, but estimated for GPUs: {', '.join(sorted(slow))}; set the ratio "
            "of their speeds with --speedup"
        )
    total = sum(each.seconds for each in durations.values())
    guessed = sum(each.seconds for each in durations.values() if "guess" in each.source)
    if total and guessed / total >= _NOTED_GUESS:
        unknown = dict.fromkeys(
            step.name
            for step in plan.steps
            if step.epochs and step.label in durations and "guess" in durations[step.label].source
        )
        first = next(iter(unknown), None)
        remedy = (
            "; --measure times the models on this machine in seconds, one trained epoch is a "
            f"measurement, --epoch-s {first}=SECONDS sets it"
            if first
            else ""
        )
        notes.append(
            f"{guessed / total:.0%} of the time is guessed, and may be wrong by a factor of "
            f"ten{remedy}"
        )
    more = disk.peak - disk.used
    if more > disk.free:
        notes.append(
            f"the disk is too small: the run needs {more / 2**30:.1f} GiB more at its peak, and "
            f"{disk.free / 2**30:.1f} GiB are free"
        )
    return notes
