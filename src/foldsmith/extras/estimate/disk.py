"""Estimate of the disk space that a run takes."""

import shutil
from dataclasses import dataclass

from foldsmith.extras.estimate.simulate import Schedule
from foldsmith.run.cost import Work
from foldsmith.run.disk import (
    bytes_of_step,
    bytes_of_weights_there,
    image_store_bytes,
    size_of_files,
)
from foldsmith.steps.base import Plan, Step


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


def disk_of(plan: Plan, schedule: Schedule, work: Work) -> Disk:
    """Estimate the disk space that a run takes.

    Args:
        plan: Its plan.
        schedule: Start and end of each step that is not done.
        work: Sizes of its models.
    """
    steps = {step.label: step for step in plan.steps}
    left = {one.job.label for one in schedule.placed}
    store = size_of_files(plan.project.photo_store.rglob("*.bin"))
    weights = sum(bytes_of_weights_there(step) for step in plan.steps)
    images = max(store, image_store_bytes(plan)) if left else store
    # (time, ends before starts, change in bytes) when a step starts and when it ends.
    changes: list[tuple[float, int, int]] = []
    for one in schedule.placed:
        step = steps[one.job.label]
        running, kept = bytes_of_step(step, work, plan.project.n_splits)
        before = bytes_of_weights_there(step)
        if step.kind.name == "infer":
            # It deletes the snapshots that the folds' trainings have left.
            kept -= sum(_left_by(steps[need], need in left, work) for need in step.needs)
        changes += [(one.start, 1, running - before), (one.end, 0, kept - running)]
    now = peak = images + weights
    for _, _, change in sorted(changes):
        now += change
        peak = max(peak, now)
    free = shutil.disk_usage(plan.project.folder).free
    return Disk(store + weights, images, peak, max(0, now), free)


def _left_by(step: Step, is_left: bool, work: Work) -> int:
    """Return the bytes of the snapshots that a training leaves, or has left."""
    if step.kind.name != "train":
        return 0
    return bytes_of_step(step, work, 1)[1] if is_left else bytes_of_weights_there(step)
