"""Slots of this machine for steps that run side by side: its GPUs, or shares of its cores."""

import os
import platform
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from foldsmith.run.resources import computes
from foldsmith.steps.base import Step
from foldsmith.utils.machine import cores_here, memory_here

# Memory of a process that trains a small network: about a third is torch itself. Larger networks,
# batches and images need more (docs/performance.md).
PROCESS_BYTES = 1.5 * 2**30

# The folder in which NVIDIA's driver has one for each GPU.
_GPUS = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class Slot:
    """The place of one process.

    Attributes:
        name: Name for people, as in ``GPU 0``; empty if the slots are alike.
        environment: Variables of its process, beside those of this one.
    """

    name: str
    environment: dict[str, str]


class Slots(Protocol):
    """The slots of a run, and the cores that its steps take in them."""

    slots: tuple[Slot, ...]

    def __str__(self) -> str:
        """Return a text for the log."""

    def share(self, step: Step) -> int:
        """Return the cores that are kept for a step while others run; 0 if it computes nothing."""

    def threads(self, step: Step) -> int | None:
        """Return the number of torch's threads for a step; None for torch's own choice."""

    def has_room(self, step: Step, running: Collection[Step]) -> bool:
        """Return whether a step may begin, if a slot is free.

        Args:
            step: The step.
            running: The steps that run.
        """


class Cards(Slots):
    """The GPUs of this machine, each with its share of the cores.

    Args:
        cards: The GPUs, as :func:`cards_here`.
    """

    def __init__(self, cards: Sequence[str]) -> None:
        self.slots = tuple(Slot(f"GPU {card}", {"CUDA_VISIBLE_DEVICES": card}) for card in cards)

    def __str__(self) -> str:
        return f"{len(self.slots)} GPUs"

    def share(self, step: Step) -> int:
        """As :meth:`Slots.share`."""
        return max(1, cores_here() // len(self.slots)) if computes(step) else 0

    def threads(self, step: Step) -> int | None:
        """As :meth:`Slots.threads`."""
        return self.share(step) or cores_here()

    def has_room(self, step: Step, running: Collection[Step]) -> bool:
        """As :meth:`Slots.has_room`."""
        return True


class CoreShares(Slots):
    """Processes on the cores of this machine, each with the threads of its step.

    A step sets its threads itself (:mod:`foldsmith.models.threads`), so that its results are the
    same in a process of its own. The processes have the environment of the run: steps that do not
    compute, and those without ``threads``, do the same as in a run of one step after another.

    Args:
        n: Number of processes.
    """

    def __init__(self, n: int) -> None:
        self.slots = (Slot("", {}),) * n

    def __str__(self) -> str:
        return f"{len(self.slots)} processes on {cores_here()} cores"

    def share(self, step: Step) -> int:
        """As :meth:`Slots.share`."""
        return min(cores_here(), step.threads or cores_here()) if _on_cpu(step) else 0

    def threads(self, step: Step) -> int | None:
        """As :meth:`Slots.threads`."""
        return None

    def has_room(self, step: Step, running: Collection[Step]) -> bool:
        """As :meth:`Slots.has_room`."""
        taken = sum(map(self.share, running))
        return not taken or taken + self.share(step) <= cores_here()


def slots_for(steps: Sequence[Step]) -> Slots | None:
    """Return the slots in which steps are to run side by side; None for one after another.

    Args:
        steps: The steps to do.
    """
    cards = cards_for(steps, cards_here())
    if len(cards) > 1:
        return Cards(cards)
    n = processes_for(steps)
    return CoreShares(n) if n > 1 else None


def next_to_begin(waiting: Sequence[Step], running: Collection[Step], slots: Slots) -> Step | None:
    """Return the step that begins next; None if all must wait.

    It is the first for which there is a slot and room, and that needs no step which waits or runs.

    Args:
        waiting: The steps that have not begun, in the order of the plan.
        running: The steps that run.
        slots: Where they run.
    """
    if len(running) >= len(slots.slots):
        return None
    ahead = {step.label for step in (*waiting, *running)}
    for step in waiting:
        if not ahead & set(step.needs) and slots.has_room(step, running):
            return step
    return None


def cards_here() -> list[str]:
    """Return the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names each.

    Commands that only estimate import no torch; they count the GPUs that the driver lists.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [] if visible is None else [name.strip() for name in visible.split(",")]
    torch = sys.modules.get("torch")
    if torch is not None:
        n = torch.cuda.device_count() if torch.cuda.is_available() else 0
    else:
        n = len(list(_GPUS.glob("*")))
        if visible is not None:
            n = min(n, sum(name not in ("", "-1") for name in names))
    return names[:n] if len(names) >= n else [str(k) for k in range(n)]


def cards_for(steps: Sequence[Step], cards: Sequence[str]) -> list[str]:
    """Return the GPUs on which steps are to run side by side; fewer than two if they are not.

    Args:
        steps: The steps to do.
        cards: The GPUs that there are.
    """
    on_gpu = [step for step in steps if computes(step)]
    named = [s for s in on_gpu if s.experiment and ":" in s.experiment.globals.device]
    if named:
        return []  # the GPUs are assigned already
    return list(cards[: _most_at_once({step.label: 1 for step in on_gpu}, steps, len(cards))])


def processes_for(steps: Sequence[Step]) -> int:
    """Return how many processes do steps side by side on the cores of this machine.

    A step takes as many cores as its experiment has ``globals/threads``, and all of them without.

    Args:
        steps: The steps to do.

    Returns:
        At least 1; 1 if a step computes on another device than the CPU, if no two steps can run
        side by side, or if the memory suffices for one process only.
    """
    computing = [s for s in steps if s.kind.computes and s.experiment is not None]
    if not all(map(_on_cpu, computing)):
        return 1
    cores = cores_here()
    shares = {step.label: min(cores, step.threads or cores) for step in computing}
    return max(1, min(_most_at_once(shares, steps, cores), _most_in_memory()))


def processes_with(threads: int | None) -> int:
    """Return how many steps of so many threads this machine does at once, at least 1.

    Args:
        threads: Value of ``globals/threads``; None for steps that take all cores.
    """
    if threads is None:
        return 1
    return max(1, min(cores_here() // threads, _most_in_memory()))


def _most_in_memory() -> int:
    memory = memory_here()
    return cores_here() if memory is None else max(1, int(memory // PROCESS_BYTES))


def _on_cpu(step: Step) -> bool:
    """Return whether a step computes on the CPU."""
    if step.experiment is None or not step.kind.computes:
        return False
    device = step.experiment.globals.device
    if device != "auto":
        return device == "cpu"
    if "torch" in sys.modules:
        from foldsmith.models.devices import kind_of_device

        return kind_of_device(device) == "cpu"
    return not cards_here() and (platform.system(), platform.machine()) != ("Darwin", "arm64")


def _most_at_once(shares: dict[str, int], steps: Sequence[Step], room: int) -> int:
    """Return how many steps may run at once if each begins as soon as it can.

    Args:
        shares: Label of each step that counts -> what it takes of the room.
        steps: All steps.
        room: What there is.
    """
    left, most = {step.label: step for step in steps}, 0
    while left:
        ready = [s for s in left.values() if not any(label in left for label in s.needs)]
        taken, n = 0, 0
        for share in sorted(shares[s.label] for s in ready if s.label in shares):
            taken, n = taken + share, n + 1
            if taken <= room:
                most = max(most, n)
        for step in ready:
            del left[step.label]
    return most
