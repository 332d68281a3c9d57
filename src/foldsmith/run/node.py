"""The resources of a machine on which steps run."""

from dataclasses import dataclass

from foldsmith.utils.machine import cores_here, memory_here


@dataclass(frozen=True)
class Node:
    """A machine.

    Attributes:
        cpus: CPU cores.
        gpus: GPUs.
        memory_gib: Memory in GiB; None if it limits nothing.
    """

    cpus: float
    gpus: int = 0
    memory_gib: float | None = None

    def __str__(self) -> str:
        memory = "" if self.memory_gib is None else f", {self.memory_gib:.1f} GiB"
        return f"{self.cpus:g} CPUs, {self.gpus:g} GPUs{memory}"


def this_node() -> Node:
    """Return the cores, GPUs and memory that this process may use."""
    # Here, not above: status and dry runs import no torch.
    import torch

    n_bytes = memory_here()
    memory = None if n_bytes is None else n_bytes / 2**30
    return Node(cores_here(), torch.cuda.device_count(), memory)
