"""What a run will take on some machines: time, GPU hours and disk, before it begins."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from foldsmith.data.table_checks import table_problems
from foldsmith.errors import ConfigError, DataError
from foldsmith.extras.estimate.disk import Disk, disk_of
from foldsmith.extras.estimate.simulate import Job, Schedule, critical_path, simulate
from foldsmith.project import ProjectFolder
from foldsmith.run.durations import Estimate, Estimates
from foldsmith.run.node import Node, this_node
from foldsmith.run.plan import Plan, plan_of, plan_of_all
from foldsmith.run.resources import requests_of
from foldsmith.run.state import StepState, states_of
from foldsmith.utils.atomic import remove_leftovers_of, replacing
from foldsmith.utils.hashing import FileHashes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Share of the time from which on it is said that it is guessed; the table says so anyway.
_WORTH_SAYING = 0.01

# CPU cores per GPU of machines that nobody has described.
_CPUS_PER_GPU = 8


@dataclass(frozen=True)
class Forecast:
    """What is left of a run, on paper; as text, what ``foldsmith plan`` prints.

    Attributes:
        plan: All steps of the run.
        estimates: Label -> time, of each step that is not done.
        schedule: When and where those steps run, side by side as Ray starts them.
        disk: What it takes on the disk.
        notes: What makes the times better, or what is amiss, a line each.
    """

    plan: Plan
    estimates: Mapping[str, Estimate]
    schedule: Schedule
    disk: Disk
    notes: tuple[str, ...]

    @property
    def wall_s(self) -> float:
        """Seconds from the first start to the last end."""
        return self.schedule.wall_s

    @property
    def serial_s(self) -> float:
        """Seconds of one step after another on one of the machines, as the local engine does."""
        return sum(estimate.serial_s for estimate in self.estimates.values())

    @cached_property
    def critical_path(self) -> tuple[Job, ...]:
        """The longest chain of steps that need each other: more machines do not shorten it."""
        order = {step.label: number for number, step in enumerate(self.plan.steps)}
        jobs = [one.job for one in self.schedule.placed]
        return critical_path(sorted(jobs, key=lambda job: order[job.label]))

    @property
    def gpu_hours(self) -> float:
        """GPU hours that the steps hold."""
        return self.schedule.gpu_s / 3600

    @property
    def cpu_hours(self) -> float:
        """CPU hours that the steps hold."""
        return self.schedule.cpu_s / 3600

    @property
    def gpu_share(self) -> float | None:
        """Share of the machines' GPU time that is held, 0..1; None without GPUs."""
        return _share(self.schedule.gpu_s, sum(node.gpus for node in self.schedule.nodes), self)

    @property
    def cpu_share(self) -> float | None:
        """Share of the machines' CPU time that is held, 0..1; None if nothing is left to do."""
        return _share(self.schedule.cpu_s, sum(node.cpus for node in self.schedule.nodes), self)

    @property
    def steps(self) -> pd.DataFrame:
        """A row per step that is left, in the order in which they start.

        Columns: step, kind, experiment, fold, start_s, end_s, seconds, epoch_s (missing without
        epochs), serial_s, source, measured, node, gpu_numbers, gpus, cpus.
        """
        columns = ["step", "kind", "experiment", "fold", "start_s", "end_s", "seconds", "epoch_s"]
        columns += ["serial_s", "source", "measured", "node", "gpu_numbers", "gpus", "cpus"]
        by_label = {step.label: step for step in self.plan.steps}
        rows = []
        for one in self.schedule.placed:
            step, estimate = by_label[one.job.label], self.estimates[one.job.label]
            rows.append(
                (
                    *(step.label, step.kind, step.name, step.fold, one.start, one.end),
                    *(estimate.seconds, estimate.epoch_s, estimate.serial_s, estimate.source),
                    *(estimate.measured, one.node, list(one.gpus), one.job.gpus, one.job.cpus),
                )
            )
        frame = pd.DataFrame(rows, columns=columns)
        return frame.astype({"fold": "Int64", "epoch_s": "Float64"})

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values; times in seconds, sizes in bytes."""
        steps = self.steps.astype(object)
        return {
            "nodes": [vars(node) for node in self.schedule.nodes],
            "done": len(self.plan.steps) - len(self.estimates),
            "steps": steps.where(steps.notna(), None).to_dict("records"),
            "wall_s": self.wall_s,
            "serial_s": self.serial_s,
            "critical_path": [
                {"step": job.label, "seconds": job.seconds} for job in self.critical_path
            ],
            "gpu_hours": self.gpu_hours,
            "cpu_hours": self.cpu_hours,
            "gpu_share": self.gpu_share,
            "cpu_share": self.cpu_share,
            "disk_bytes": vars(self.disk),
            "notes": list(self.notes),
        }

    def figure(self) -> "Figure":
        """Return a picture of which step runs where and when: a row per GPU or worker."""
        from foldsmith.extras.estimate.gantt import gantt_figure

        return gantt_figure(self)

    def save(self, path: Path | str) -> None:
        """Write the picture to a file.

        Args:
            path: A .png, .svg or .pdf file.

        Raises:
            ConfigError: It has another suffix.
        """
        path = Path(path)
        if path.suffix not in (".png", ".svg", ".pdf"):
            raise ConfigError(f"--save {path}: must be a .png, .svg or .pdf file")
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers_of(path)
        with replacing(path) as temporary:
            self.figure().savefig(temporary, format=path.suffix[1:], dpi=150)

    def __str__(self) -> str:
        from foldsmith.extras.estimate.gantt import forecast_text

        return forecast_text(self)


def forecast(
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
) -> Forecast:
    """Work out what the rest of a run takes on some machines; nothing is run.

    Args:
        project: The project.
        config: Experiment file of any kind, relative to the project folder.
        overrides: As those of :func:`foldsmith.run.engine`.
        nodes: Number of machines, all alike.
        gpus: GPUs of each; as many as this machine has if None.
        cpus: CPU cores of each; if None as many as this machine has, or 8 for each GPU if it has
            fewer GPUs than that.
        memory_gib: Memory of each; that of this machine if None, or no limit if it has fewer GPUs.
        speedup: How many times as fast the GPUs are as the device that was measured on.
        epoch_s: Name of an experiment -> seconds of its epochs on these machines.
        measure: Time the models of steps that were never measured, on this machine.
        from_scratch: Plan everything, what is done too.

    Raises:
        ConfigError: An experiment is wrong, a step fits no machine, or nothing says how long a
            step takes.
        DataError: One line per problem of the tables.
    """
    node, notes = _node(gpus, cpus, memory_gib)
    if speedup != 1.0 and not node.gpus:
        raise ConfigError("--speedup: is that of the GPUs, and there are none; give --gpus")
    plan = plan_of(project, config, overrides)
    problems = table_problems(project, plan.meta_files)
    if problems:
        raise DataError("\n".join(problems))
    others = plan
    with contextlib.suppress(ConfigError):  # of an experiment that this run does not need
        others = plan_of_all(project, str(project.path(config).parent))
    states = (
        {step.label: StepState("to do", "", step.epochs) for step in plan.steps}
        if from_scratch
        else states_of(plan, FileHashes(project.hash_store))
    )
    estimates = Estimates(plan, others, node, speedup, epoch_s, measure)
    found: dict[str, Estimate] = {}
    jobs = []
    to_do = [step for step in plan.steps if states[step.label].status != "done"]
    requests = requests_of(to_do, project, [node])
    for step in to_do:
        request = requests[step.label]
        estimate = found[step.label] = estimates.of(step, states[step.label], request)
        held = request.cpus, request.gpus, request.memory_gib or 0.0
        jobs.append(Job(step.label, estimate.seconds, step.needs, *held))
    schedule = simulate(jobs, [node] * nodes)
    disk = disk_of(plan, schedule, estimates.work)
    uncounted = dict.fromkeys(
        step.name
        for step in plan.steps
        if step.label in found
        and step.epochs
        and step.experiment
        and estimates.work.model(step.experiment) is None
    )
    notes += [f"{name}: its model cannot be counted, and is not in the disk" for name in uncounted]
    return Forecast(plan, found, schedule, disk, (*notes, *_notes(plan, found, disk)))


def _node(gpus: int | None, cpus: float | None, memory_gib: float | None) -> tuple[Node, list[str]]:
    """Return the resources of each machine, and a note on every assumption made about them."""
    here = this_node()
    if gpus is None or gpus <= here.gpus:
        memory = memory_gib or here.memory_gib
        return Node(cpus or here.cpus, here.gpus if gpus is None else gpus, memory), []
    if cpus is not None:
        return Node(cpus, gpus, memory_gib), []
    assumed = _CPUS_PER_GPU * gpus
    note = f"{assumed} CPUs per node are assumed, {_CPUS_PER_GPU} for each GPU; --cpus says it"
    return Node(assumed, gpus, memory_gib), [note]


def _notes(plan: Plan, estimates: Mapping[str, Estimate], disk: Disk) -> list[str]:
    notes = []
    names = {step.label: step.name for step in plan.steps}

    def seconds(where: str) -> float:
        return sum(e.seconds for e in estimates.values() if where in e.source)

    # With a speedup the source goes on behind the device.
    slow = {names[label] for label, e in estimates.items() if e.source.endswith(" on cpu")}
    if slow:
        notes.append(
            f"measured on a CPU, but planned on GPUs: {', '.join(sorted(slow))}; say with "
            "--speedup how many times as fast these GPUs are"
        )
    total = sum(e.seconds for e in estimates.values())
    share = seconds("guess") / total if total else 0.0
    if share >= _WORTH_SAYING:
        unknown = dict.fromkeys(
            step.name
            for step in plan.steps
            if step.epochs and step.label in estimates and "guess" in estimates[step.label].source
        )
        first = next(iter(unknown), None)
        remedy = (
            "; --measure times the models here in seconds, one epoch of a training is a "
            f"measurement, --epoch-s {first}=SECONDS says it"
            if first
            else ""
        )
        notes.append(f"{share:.0%} of the time is guessed, and may be wrong by ten times{remedy}")
    more = disk.peak - disk.there
    if more > disk.free:
        notes.append(
            f"the disk is too small: {more / 2**30:.1f} GiB more at the peak, "
            f"{disk.free / 2**30:.1f} GiB are free"
        )
    return notes


def _share(held: float, there: float, forecast: Forecast) -> float | None:
    return held / (there * forecast.wall_s) if there and forecast.wall_s else None
