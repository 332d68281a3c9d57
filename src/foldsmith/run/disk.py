"""What a run keeps on the disk: photos, snapshots to go on from, kept weights."""

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.config import Experiment
from foldsmith.data.images import read_photo
from foldsmith.data.intensity import IntensityRange
from foldsmith.data.statistics import IMG_INFO
from foldsmith.data.transforms import Compose
from foldsmith.errors import DataError
from foldsmith.extras.estimate.simulate import Schedule
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import photo_paths, read_test, read_train
from foldsmith.run.cost import Work
from foldsmith.run.plan import Plan, Step
from foldsmith.steps.image_store import stored_heads
from foldsmith.utils.flatten import flatten
from foldsmith.utils.path_list import Paths

# Snapshots of a fold, by metric, by loss, last, all of which an inference keeps as copies; if every
# epoch's are kept, that of the common epoch too.
_SNAPSHOTS = 3

# Photos whose size is looked up where preprocess has not measured them all.
_SAMPLE = 16


@dataclass(frozen=True)
class Disk:
    """What a run takes on the disk, in bytes.

    Attributes:
        there: Of weights and decoded photos that are there already, measured.
        photos: Of the photo store when it is full, from the photos' sizes; 0 without one.
        peak: At most at a time, what is there included, from the sizes of the models.
        end: When the run has ended.
        free: Free now.
    """

    there: int
    photos: int
    peak: int
    end: int
    free: int


def resume_bytes(experiment: Experiment, weights: int) -> int:
    """Return the size of what a training continues from.

    Args:
        experiment: A pretraining or fine-tuning.
        weights: Bytes of its model.
    """
    # The weights, and the optimizer's one or two values for each.
    optimizer = str(flatten(experiment.tree).get("optimizer/type"))
    averaged = experiment.globals.ema_decay is not None
    return weights * ((2 if optimizer == "SGD" else 3) + averaged)


def kept_backbones(experiment: Experiment) -> int:
    """Return how many backbones a pretraining keeps."""
    settings = experiment.globals
    kept = -(-settings.max_epoch // settings.snapshot_interval)
    return kept + (1 if experiment.tree.get("probe") else 0)


def disk_of(plan: Plan, schedule: Schedule, work: Work) -> Disk:
    """Return what a run takes on the disk.

    Args:
        plan: Its plan.
        schedule: When what is left of it runs.
        work: Sizes of its models.
    """
    steps = {step.label: step for step in plan.steps}
    left = {one.job.label for one in schedule.placed}
    store = _size_of(plan.project.photo_store.rglob("*.bin"))
    weights = sum(_weights_there(step) for step in plan.steps)
    photos = max(store, _photo_bytes(plan)) if left else store
    # Bytes that come and go: what a step needs while it runs, and what it leaves.
    changes: list[tuple[float, int, int]] = []
    for one in schedule.placed:
        step = steps[one.job.label]
        running, kept = _bytes_of(step, work, plan.project.n_splits)
        before = _weights_there(step)
        if step.kind == "infer":
            # It deletes the snapshots that the folds' trainings have left.
            kept -= sum(_left_by(steps[need], need in left, work) for need in step.needs)
        # What ends goes before what starts at the same time.
        changes += [(one.start, 1, running - before), (one.end, 0, kept - running)]
    there = photos + weights
    peak = there
    for _, _, change in sorted(changes):
        there += change
        peak = max(peak, there)
    free = shutil.disk_usage(plan.project.folder).free
    return Disk(store + weights, photos, peak, max(0, there), free)


def _bytes_of(step: Step, work: Work, n_splits: int) -> tuple[int, int]:
    """Return the bytes that a step needs at most while it runs, and those that it leaves."""
    size = None if step.experiment is None else work.model(step.experiment)
    if step.experiment is None or size is None:
        return 0, 0
    if step.kind == "pretrain":
        kept = kept_backbones(step.experiment) * size.backbone
        resume = resume_bytes(step.experiment, size.weights)
        # A file is written beside the one that it replaces.
        return kept + 2 * resume, kept + resume
    if step.kind == "train":
        every = step.epochs if step.experiment.globals.snapshot_epochs == "all" else 0
        kept = (_SNAPSHOTS + every) * size.weights
        return kept + size.weights + 2 * resume_bytes(step.experiment, size.weights), kept
    common = step.experiment.globals.snapshot_epochs == "all"
    copies = (_SNAPSHOTS + common) * n_splits * size.weights
    return (0, 0) if step.experiment.globals.task == "frozen-features" else (copies, copies)


def _left_by(step: Step, is_left: bool, work: Work) -> int:
    """Return the bytes of snapshots that a training leaves, or has left."""
    if step.kind != "train":
        return 0
    return _bytes_of(step, work, 1)[1] if is_left else _weights_there(step)


def _weights_there(step: Step) -> int:
    """Return the bytes of the weights in a step's own folder."""
    pattern = "*_model_fold*.pth" if step.kind == "infer" else "*.pth"
    return _size_of(step.folder.glob(pattern)) if step.epochs or step.kind == "infer" else 0


def _size_of(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files)


def _photo_bytes(plan: Plan) -> int:
    """Return the size of the photo store with all that the experiments want of each photo."""
    experiments = {
        step.name: step.experiment
        for step in plan.steps
        if step.experiment and "dataset" in step.experiment.tree
    }
    heads = stored_heads(experiments.values())
    if not heads:
        return 0
    sizes, counts, n_photos = photo_sizes(plan.project)
    rng = np.random.default_rng(0)  # a stored head draws nothing from it
    total = 0
    for (height, width), count in zip(sizes.tolist(), counts.tolist(), strict=True):
        versions = {_after(head, height, width, rng) for head in heads}
        total += count * sum(3 * h * w for h, w in versions)
    return round(total * n_photos / max(1, int(counts.sum())))


def _after(head: Compose, height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
    for transform in head.transforms:
        drawn = transform.draw(height, width, rng)
        height, width = transform.size_after(height, width, drawn)
    return height, width


def photo_sizes(project: ProjectFolder) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """Return how large a project's photos are.

    Args:
        project: The project.

    Returns:
        The heights and widths that there are, shape (n, 2); how many photos, maybe of a sample,
        have each, shape (n,); the number of all photos.
    """
    train, test = read_train(project, with_bad=True), read_test(project)
    paths = photo_paths(project, train) + photo_paths(project, test)
    try:
        info = pd.read_csv(project.data_dir / IMG_INFO)[["height", "width"]].astype(np.int64)
        sizes = info.to_numpy()
    except (OSError, KeyError, ValueError):
        sizes = np.array(list(_sampled_sizes(paths, project.intensity_range)), np.int64).reshape(
            -1, 2
        )
    found, counts = np.unique(sizes, axis=0, return_counts=True)
    return found, counts, len(paths)


def _sampled_sizes(paths: Paths, intensity: IntensityRange | None) -> Iterator[tuple[int, int]]:
    for path in paths[:: max(1, len(paths) // _SAMPLE)][:_SAMPLE]:
        try:
            image = read_photo(path, Compose([]), intensity)
        except DataError:
            continue  # preprocess says so
        yield image.shape[0], image.shape[1]
