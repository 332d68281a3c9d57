"""Resources of a running step: the requested ones, or defaults."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.project.project_file import PROJECT_FILE
from foldsmith.project.resources import Resources
from foldsmith.run.node import Node
from foldsmith.steps.base import Step


@dataclass(frozen=True)
class Request:
    """Resources of a running step; memory None for no limit."""

    cpus: float
    gpus: float
    memory_gib: float | None = None

    @property
    def threads(self) -> int:
        """Threads of torch."""
        return max(1, int(self.cpus))

    def fits(self, node: Node) -> bool:
        """Return whether a node has as much."""
        enough = self.cpus <= node.cpus and self.gpus <= node.gpus
        return enough and (self.memory_gib or 0) <= _memory(node)


def requests_of(
    steps: Sequence[Step], project: ProjectFolder, nodes: Sequence[Node]
) -> dict[str, Request]:
    """Return the resources of steps, by label; defaults depend on the nodes.

    That is a CPU for the step, or one for each of its threads (``globals/threads``), and one for
    each of its loader's processes, as far as a node has them, one GPU for what a model computes if
    there are any and its device is not the CPU, and no memory. With a GPU it is no more than the
    share of the node's CPUs that belongs to that GPU, so that no GPU waits for CPUs.

    Raises:
        ConfigError: One line per step that asks for what no node has, for more than one GPU, or
            for a card by a number that it will not have.
    """
    requests, problems = {}, []
    for step in steps:
        try:
            requests[step.label] = _request_of(step, project, nodes)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        # Folds of one experiment have the same problem.
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    return requests


def _request_of(step: Step, project: ProjectFolder, nodes: Sequence[Node]) -> Request:
    asked = step.resources(project)
    keys = _keys(step, project, asked)
    if asked.gpus is not None and asked.gpus > 1:
        raise ConfigError(
            f"{keys['gpus']}: a step computes on one GPU; give it 1 or less, and use torchrun for "
            "one training on several"
        )
    gpus = asked.gpus
    if gpus is None:
        gpus = 1.0 if computes(step) and any(node.gpus for node in nodes) else 0.0
    _check_device(step, gpus)
    able = [node for node in nodes if Request(asked.cpus or 0, gpus, asked.memory_gib).fits(node)]
    if not able:
        raise ConfigError(
            _impossible(step, Request(asked.cpus or 0, gpus, asked.memory_gib), keys, nodes)
        )
    cpus = asked.cpus
    if cpus is None:
        there = max(node.cpus * (gpus / node.gpus if gpus else 1.0) for node in able)
        threads = 1 if gpus else step.threads or 1
        cpus = min(float(threads) + _workers(step, gpus, there), max(1.0, there))
    return Request(cpus, gpus, asked.memory_gib)


def computes(step: Step) -> bool:
    """Return whether a step runs a model, on a card if there is one."""
    if step.experiment is None or not step.kind.computes:
        return False
    return step.experiment.globals.device != "cpu"


def _workers(step: Step, gpus: float, cpus: float) -> int:
    """Return the most loader processes that a step has beside itself."""
    # Here, not above: status asks only which steps compute, and imports no torch.
    from foldsmith.data.loader import workers_for

    loaders = step.experiment.tree.get("loader", {}) if step.experiment else {}
    numbers = [loader.get("num_workers", "auto") for loader in loaders.values() if loader]
    auto = workers_for("cuda", max(1, int(cpus))) if gpus else 0
    return max((n if isinstance(n, int) else auto for n in numbers), default=0)


def _check_device(step: Step, gpus: float) -> None:
    """Make sure that the device an experiment names is there: Ray shows a step its cards alone."""
    if not computes(step) or step.experiment is None:
        return
    kind, _, number = step.experiment.globals.device.partition(":")
    if kind != "cuda":
        return
    if not gpus:
        raise ConfigError(
            f"{step.experiment.file}: globals/device: cuda, but '{step.label}' gets no GPU: "
            "resources say so, or no node has one; use auto"
        )
    if number.isdigit() and int(number) > 0:
        raise ConfigError(
            f"{step.experiment.file}: globals/device: {kind}:{number}: on Ray a step sees its own "
            "GPU alone, as number 0; use auto or cuda"
        )


def _keys(step: Step, project: ProjectFolder, asked: Resources) -> dict[str, str]:
    """Return the key and the value of each requested number."""
    keys = {}
    for name, value in asked.model_dump(exclude_none=True).items():
        own = step.experiment and getattr(step.experiment.globals.resources, name) is not None
        if own and step.experiment:
            where = f"{step.experiment.file}: globals/resources/{name}"
        else:
            where = f"{project.path(PROJECT_FILE)}: resources/{step.kind.name}/{name}"
        keys[name] = f"{where}: {value:g}"
    return keys


def _impossible(
    step: Step, request: Request, keys: Mapping[str, str], nodes: Sequence[Node]
) -> str:
    wanted = {"cpus": request.cpus, "gpus": request.gpus, "memory_gib": request.memory_gib or 0}
    # The requested resources that no node has, alone or together.
    there_is = {
        "cpus": max(node.cpus for node in nodes),
        "gpus": max(node.gpus for node in nodes),
        "memory_gib": max(_memory(node) for node in nodes),
    }
    alone = [name for name in keys if wanted[name] > there_is[name]]
    named = "; ".join(keys[name] for name in alone or keys)
    there = "; ".join(dict.fromkeys(map(str, nodes)))
    together = "" if alone else f" together with {request.gpus:g} GPUs" if request.gpus else ""
    return f"{named}: no node has that{together} (there are: {there})"


def _memory(node: Node) -> float:
    return math.inf if node.memory_gib is None else node.memory_gib
