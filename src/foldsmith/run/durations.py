"""Durations of a plan's steps: measured, scaled from a measurement, or guessed.

Each duration has its source, so that only measurements are called measured.
"""

import contextlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from foldsmith.errors import ConfigError, FoldsmithError
from foldsmith.models.devices import kind_of_device
from foldsmith.models.measured_choices import pass_seconds
from foldsmith.models.runtime import create_runtime
from foldsmith.models.threads import threads_of
from foldsmith.run.node import Node, this_node
from foldsmith.run.resources import Request, requests_of
from foldsmith.steps.base import Plan, Step
from foldsmith.steps.cost import TRAINING_PASS, Costs, build_model
from foldsmith.steps.manifest import UNFINISHED, read_manifest
from foldsmith.steps.run_records import read_resolved
from foldsmith.steps.status import StepState
from foldsmith.utils.machine import cores_here

# Guessed operations per second of a core and a GPU without a measurement. Machines and models
# differ by more than a factor of ten.
_GUESSED_CORE, _GUESSED_GPU = 3e10, 1e13

# Further guesses, in seconds: an image in a loader and each pixel of its view, the end of an epoch.
_LOADED_S, _PIXEL_S, _EPOCH_S = 0.0002, 6e-9, 1.0

# Images of a batch that is timed: more do not make a CPU faster, and take longer.
_TIMED_IMAGES = {"cpu": 8, "cuda": 64, "mps": 64}


@dataclass(frozen=True)
class StepDuration:
    """The estimated time of a step.

    Attributes:
        seconds: Duration with the step's resources.
        serial_s: Duration alone on a node, as in the engine that runs one step after another.
        epoch_s: Duration of an epoch with the step's resources; None for steps without epochs.
        source: ``measured``, ``given``, ``timed`` (the model alone, in a short measurement),
            ``from NAME`` (of another experiment, by images and operations; ``(changed)`` if it is
            the same one with other values) or ``guess``; and what was done to it, as in
            ``measured on cpu /30`` or ``measured x2`` (with half the cores).
    """

    seconds: float
    serial_s: float
    epoch_s: float | None
    source: str

    @property
    def measured(self) -> bool:
        """Whether this very step was measured, on such a device."""
        return self.source == "measured"


@dataclass(frozen=True)
class _Base:
    """Seconds of an epoch, or of a whole step, somewhere.

    Attributes:
        seconds: The seconds.
        source: Source of the time, as for an estimate.
        device: ``cpu`` or ``cuda``, where it was measured; empty if it is meant for the machines
            of the plan.
        cores: CPU cores that it had; None where more of them do not help.
    """

    seconds: float
    source: str
    device: str = ""
    cores: float | None = None


@dataclass(frozen=True)
class _Measured:
    """A measurement of an experiment's epochs, or of a step without.

    Attributes:
        name: Name of the experiment.
        kind: Kind of the step.
        seconds: Duration of an epoch, or of the step.
        operations: Operations in that time; None if they cannot be counted.
        model: Key of the model.
        device: ``cpu`` or ``cuda``; empty for a time given by the user.
        cores: CPU cores that computed; None if it was a GPU.
    """

    name: str
    kind: str
    seconds: float
    operations: float | None
    model: str
    device: str
    cores: float | None = None


class Durations:
    """Estimated times of the steps of a plan.

    Args:
        plan: The plan.
        others: Plan of the experiments beside it, whose measurements help; or the same.
        node: The machines.
        speedup: Speed of its GPUs relative to the measured device.
        epoch_s: Name of an experiment -> seconds of an epoch on the plan's machines.
        measure: Time the models whose steps were never measured, here and now.

    Raises:
        ConfigError: ``epoch_s`` names no experiment of the plan that has epochs.
    """

    def __init__(
        self,
        plan: Plan,
        others: Plan,
        node: Node,
        speedup: float = 1.0,
        epoch_s: Mapping[str, float] | None = None,
        measure: bool = False,
    ) -> None:
        self.plan = plan
        self.costs = Costs(plan.project, plan.types)
        self.node = node
        self.speedup = speedup
        self.given = dict(epoch_s or {})
        self.measure = measure
        with_epochs = {step.name for step in plan.steps if step.epochs}
        unknown = sorted(self.given.keys() - with_epochs)
        if unknown:
            raise ConfigError(
                f"--epoch-s {unknown[0]}: no experiment with epochs in the plan (there is "
                f"{', '.join(sorted(with_epochs)) or 'none'})"
            )
        self._rates: dict[str, _Base] = {}
        # Label of the step, of a training the name of its experiment -> its own measurement.
        self._own: dict[str, _Base] = {}
        self._known: list[_Measured] = []
        for step in plan.steps:
            if step.epochs and step.name in self.given:
                self._know(step, self.given[step.name], "")
        labels = {step.label for step in plan.steps}
        self._read([*plan.steps, *(step for step in others.steps if step.label not in labels)])

    def of(self, step: Step, state: StepState, request: Request) -> StepDuration:
        """Return how long a step takes.

        Args:
            step: The step.
            state: How far it is.
            request: Its resources.
        """
        cpus, on_gpu = request.cpus, bool(request.gpus)
        threads = step.threads or self.node.cpus
        base = self._base(step, on_gpu)
        seconds = serial = base.seconds
        source = base.source
        there = "cuda" if on_gpu else "cpu"
        if base.device and step.kind.computes:
            # A machine that is planned for without a GPU may have Apple's.
            if base.device != there and (on_gpu or base.device != "mps"):
                source += " on cpu" if base.device == "cpu" else " on gpu"
            if on_gpu and self.speedup != 1.0:
                seconds, serial = seconds / self.speedup, serial / self.speedup
                source += f" /{self.speedup:g}"
        if base.cores is not None and not on_gpu:
            # Torch uses as many threads as it has cores; no gain beyond the measured number is
            # assumed.
            seconds *= (slower := max(1.0, base.cores / min(cpus, threads)))
            serial *= max(1.0, base.cores / min(self.node.cpus, threads))
            source += f" x{slower:.3g}" if slower > 1 else ""
        if not step.epochs:
            return StepDuration(seconds, serial, None, source)
        left = state.epochs_left
        return StepDuration(seconds * left, serial * left, seconds, source)

    def _base(self, step: Step, on_gpu: bool) -> _Base:
        if step.epochs and step.name in self.given:
            return _Base(self.given[step.name], "given")
        own = self._own.get(step.series)
        if own is not None:
            return own
        operations = step.kind.operations(step, self.costs)
        if operations is None:
            return self._without_operations(step)
        beside = self._loading_s(step) + _EPOCH_S
        alike = self._alike(step)
        itself = alike is not None and (alike.name, alike.kind) == (step.name, step.kind.name)
        # A whole epoch of the same experiment is a better measurement than a few passes of its
        # model.
        timed = self._timed(step) if self.measure and not itself else None
        if timed is not None:
            return replace(timed, seconds=timed.seconds * operations + beside)
        if alike is not None and alike.operations:
            seconds = alike.seconds * operations / alike.operations
            changed = " (changed)" if itself else ""
            return _Base(seconds, f"from {alike.name}{changed}", alike.device, alike.cores)
        if on_gpu:
            return _Base(operations / _GUESSED_GPU + beside, "guess")
        seconds = operations / (_GUESSED_CORE * self.node.cpus) + beside
        return _Base(seconds, "guess", cores=self.node.cpus)

    def _loading_s(self, step: Step) -> float:
        """Return the seconds in which the loader makes the views of an epoch."""
        dataset = step.experiment.tree.get("dataset", {}) if step.experiment else {}
        side = dataset.get("img_size")
        pixels = side**2 if isinstance(side, int) else 0
        return (_LOADED_S + _PIXEL_S * pixels) * sum(step.kind.images(step, self.costs))

    def _alike(self, step: Step) -> _Measured | None:
        """Return the measurement that is most like a step: its kind, its model, its size."""
        size = self.costs.model(step.experiment) if step.experiment else None
        wanted = step.kind.operations(step, self.costs)
        usable = [known for known in self._known if known.operations]
        if size is None or not wanted or not usable:
            return None

        def unlike(known: _Measured) -> tuple[bool, bool, bool, float]:
            ratio = (known.operations or 1.0) / wanted
            same_model, same_name = known.model == size.key, known.name == step.name
            same_kind = known.kind == step.kind.name
            return not same_kind, not same_model, not same_name, max(ratio, 1 / ratio)

        return min(usable, key=unlike)

    def _without_operations(self, step: Step) -> _Base:
        """Return the guessed time of a step without a model that can be counted."""
        seconds = step.kind.guess_s(step, self.costs)
        if seconds is None:
            raise ConfigError(
                f"{step.experiment.file if step.experiment else step.label}: the time of an epoch "
                f"is unknown; give --epoch-s {step.name}=SECONDS, or train one epoch"
            )
        return _Base(seconds, "guess", cores=cores_here() if step.kind.computes else None)

    def _timed(self, step: Step) -> _Base | None:
        """Return the seconds per operation of a step's model on this machine, timed once."""
        experiment = step.experiment
        size = self.costs.model(experiment) if experiment else None
        if experiment is None or size is None:
            return None
        key = f"{size.key} {experiment.globals.threads}"
        if key not in self._rates:
            runtime = create_runtime(experiment.globals)
            side = experiment.tree["dataset"]["img_size"]
            model = build_model(experiment, self.plan.types, "cpu")
            backbone = runtime.place(getattr(model, "backbone", model))
            n_images = _TIMED_IMAGES[runtime.device.type]
            shape = (n_images, 3, side, side)
            images = torch.zeros(shape, device=runtime.device)
            passes = TRAINING_PASS * n_images
            with threads_of(experiment.globals):
                each = pass_seconds(backbone, images, runtime) / (passes * size.forward[side])
            device, cores = runtime.device.type, experiment.globals.threads or cores_here()
            self._rates[key] = _Base(each, "timed", device, cores if device == "cpu" else None)
        return self._rates[key]

    def _read(self, steps: Sequence[Step]) -> None:
        """Collect the recorded times of steps."""
        folds: dict[tuple[str, bool], list[float]] = {}
        last: dict[tuple[str, bool], tuple[Step, str, float | None]] = {}
        own = {step.series for step in self.plan.steps}
        for step in steps:
            found = _left_behind(step, self.costs)
            if found is None:
                continue
            seconds, device, cores, as_now = found
            if not step.kind.computes:
                if as_now and step.series in own:
                    # Such a step takes all cores, or one.
                    self._own[step.series] = _Base(seconds, "measured")
                continue
            key = (step.series, as_now)
            folds.setdefault(key, []).append(seconds)
            last[key] = step, device, cores
        for (name, as_now), times in folds.items():
            step, device, cores = last[name, as_now]
            seconds = statistics.median(times)
            if as_now:
                self._know(step, seconds, device, cores)
                if name in own:
                    self._own[name] = _Base(seconds, "measured", device, cores)
            else:
                self._know(_as_run(step), seconds, device, cores)

    def _know(
        self, step: Step | None, seconds: float, device: str, cores: float | None = None
    ) -> None:
        size = self.costs.model(step.experiment) if step and step.experiment else None
        if step is not None and size is not None:
            operations = step.kind.operations(step, self.costs)
            self._known.append(
                _Measured(step.name, step.kind.name, seconds, operations, size.key, device, cores)
            )


def seconds_here(
    plan: Plan, steps: Sequence[Step], states: Mapping[str, StepState]
) -> dict[str, float]:
    """Return the estimated seconds of steps on this machine, one after the other.

    A few passes of each model are timed.

    Args:
        plan: The plan.
        steps: Steps of it that were never measured.
        states: Label -> state of each step of the plan.

    Returns:
        Label -> seconds; without the steps of models that cannot be counted.
    """
    node = this_node()
    durations = Durations(plan, plan, node, measure=True)
    requests = requests_of(steps, plan.project, [node])
    found = {}
    for step in steps:
        with contextlib.suppress(ConfigError):  # the time of an epoch is unknown
            request = requests[step.label]
            found[step.label] = durations.of(step, states[step.label], request).serial_s
    return found


def _left_behind(step: Step, costs: Costs) -> tuple[float, str, float | None, bool] | None:
    """Return the recorded time of a step.

    Returns:
        The seconds, the kind of device (empty if it did not compute on one), the CPU cores that
        computed (None on a GPU), and whether the step would do the same work today.
    """
    manifest = read_manifest(step.kind.manifest(step))
    begun = manifest or (read_manifest(step.folder / UNFINISHED) if step.epochs else None)
    facts: dict[str, Any] = manifest.facts if manifest else {}
    seconds = facts.get("epoch_s" if step.epochs else "wall_s")
    seconds = step.kind.progress(step).get("epoch_s", seconds)
    if begun is None or not isinstance(seconds, (int, float)):
        return None
    same = step.kind.same_speed(step, begun) and step.kind.same_images(step, begun, costs)
    if not step.kind.computes or step.experiment is None:
        return float(seconds), "", None, same
    # The kind alone, also for cuda:1.
    here = kind_of_device(step.experiment.globals.device)
    device = (str(facts.get("device", "")) or here).partition(":")[0]
    # The manifest of an unfinished training has no number of cores yet.
    cores = float(facts.get("cores", cores_here())) if device == "cpu" else None
    return float(seconds), device, cores, same


def _as_run(step: Step) -> Step | None:
    """Return a step with the experiment in its folder, which may differ from today's file."""
    if step.experiment is None:
        return None
    try:
        run = read_resolved(step.experiment.project, step.folder)
    except FoldsmithError:
        return None
    # Its own name, by which it is spoken of.
    run.file = step.experiment.file
    return replace(step, experiment=run)
