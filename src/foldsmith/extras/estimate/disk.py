"""Estimate of the disk space that a run takes."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from foldsmith.extras.estimate.simulate import Schedule
from foldsmith.run.image_store_size import image_store_bytes
from foldsmith.steps.base import Plan, Step
from foldsmith.steps.cost import Costs


@dataclass(frozen=True)
class Disk:
    """Bytes that a run takes on the disk.

    Attributes:
        used: Weights and decoded images that exist already (measured).
        images: The full store of decoded images, by the images' sizes; 0 without one.
        peak: The most at any time, including the existing files, by the sizes of the models.
        end: At the end of the run.
        free: Free space now.
    """

    used: int
    images: int
    peak: int
    end: int
    free: int


def disk_of(plan: Plan, schedule: Schedule, costs: Costs) -> Disk:
    """Estimate the disk space that a run takes.

    Args:
        plan: Its plan.
        schedule: Start and end of each step that is not done.
        costs: Sizes of its models.
    """
    steps = {step.label: step for step in plan.steps}
    left = {one.job.label for one in schedule.placed}
    store = _size_of(plan.project.image_store.rglob("*.bin"))
    used = {label: _size_of(step.kind.weights(step)) for label, step in steps.items()}
    needed = {label: _weights_of(steps[label], costs) for label in left}
    # Bytes that each step has left before its successors run.
    kept = used | {label: at_end for label, (_, at_end) in needed.items()}
    images = max(store, image_store_bytes(plan)) if left else store
    # (time, ends before starts, change in bytes) when a step starts and when it ends.
    changes: list[tuple[float, int, int]] = []
    for one in schedule.placed:
        step = steps[one.job.label]
        peak, at_end = needed[step.label]
        freed = sum(kept[need] for need in step.needs) if step.kind.frees_needs else 0
        changes += [(one.start, 1, peak - used[step.label]), (one.end, 0, at_end - freed - peak)]
    weights = sum(used.values())
    now = most = images + weights
    for _, _, change in sorted(changes):
        now += change
        most = max(most, now)
    free = shutil.disk_usage(plan.project.folder).free
    return Disk(store + weights, images, most, max(0, now), free)


def _weights_of(step: Step, costs: Costs) -> tuple[int, int]:
    """Return the bytes of weights that a step needs at its peak, and that it leaves."""
    size = None if step.experiment is None else costs.model(step.experiment)
    return (0, 0) if size is None else step.kind.disk(step, size, costs.project.n_splits)


def _size_of(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files)
