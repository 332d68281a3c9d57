"""What a step holds while it runs on a machine: as it is asked for, or what its kind gets."""

from foldsmith.config import Project
from foldsmith.config.resources import Resources
from foldsmith.errors import ConfigError
from foldsmith.pipeline.plan import Step
from foldsmith.pipeline.simulate import Node

# Flags of `foldsmith plan` that say what a node has.
_FLAGS = {"cpus": "--cpus", "gpus": "--gpus", "memory_gib": "--memory"}


def demand_of(step: Step, project: Project, node: Node) -> Resources:
    """Return what a step holds, nothing left open.

    Where nothing is asked for, that is a CPU for the step and one for each of its loader's
    processes, as far as a node has them, one GPU for what a model computes if there are any and
    its device is not the CPU, and no memory.

    Args:
        step: The step.
        project: Its project.
        node: One of the machines, which are all alike.

    Raises:
        ConfigError: No node has what the step asks for.
    """
    asked = step.resources(project)
    usual = Resources(
        cpus=min(1.0 + _workers(step), node.cpus),
        gpus=1.0 if node.gpus and _computes_on_gpu(step) else 0.0,
    )
    demand = asked.over(usual)
    for name, flag in _FLAGS.items():
        wanted, there = getattr(demand, name), getattr(node, name)
        if wanted is not None and there is not None and wanted > there:
            raise ConfigError(
                f"{_key(step, project, name)}: '{step.label}' asks for {wanted:g}, but a node has "
                f"{there:g} ({flag})"
            )
    gpus = demand.gpus or 0.0
    if gpus > 1 and not gpus.is_integer():
        raise ConfigError(
            f"{_key(step, project, 'gpus')}: '{step.label}' asks for {gpus:g}; several GPUs must "
            "be a whole number"
        )
    return demand


def _computes_on_gpu(step: Step) -> bool:
    if step.experiment is None or step.kind not in ("pretrain", "train", "infer"):
        return False
    return step.experiment.globals.device != "cpu"


def _workers(step: Step) -> int:
    """Return how many processes the step's loaders have at a time."""
    loaders = step.experiment.tree.get("loader", {}) if step.experiment else {}
    names = ("train",) if step.epochs else ("val", "test")
    numbers = [loaders.get(name, {}).get("num_workers", 0) for name in names]
    return max((n for n in numbers if isinstance(n, int)), default=0)


def _key(step: Step, project: Project, name: str) -> str:
    """Return the file and key that say what a step asks for."""
    own = step.experiment
    if own is not None and getattr(own.globals.resources, name) is not None:
        return f"{own.file}: globals/resources/{name}"
    return f"{project.source_files[0]}: resources/{step.kind}/{name}"
