"""Sizes of the files that a run keeps: decoded images, snapshots to continue from, weights."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.config import Experiment
from foldsmith.data.image_table import IMG_INFO
from foldsmith.data.images import read_photo
from foldsmith.data.intensity import IntensityRange
from foldsmith.data.transforms import Compose
from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import photo_paths, read_test, read_train
from foldsmith.run.cost import Work
from foldsmith.steps.base import Plan, Step
from foldsmith.steps.image_store import stored_heads
from foldsmith.utils.flatten import flatten
from foldsmith.utils.path_list import Paths

# Snapshots of a fold, by metric, by loss, last, all of which an inference keeps as copies; if every
# epoch's are kept, that of the common epoch too.
_SNAPSHOTS = 3

# Photos whose size is looked up where preprocess has not measured them all.
_SAMPLE = 16


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


def bytes_of_step(step: Step, work: Work, n_splits: int) -> tuple[int, int]:
    """Return the bytes of weights that a step needs at most while it runs, and that it leaves.

    Args:
        step: The step.
        work: Sizes of its plan's models.
        n_splits: Number of folds.
    """
    size = None if step.experiment is None else work.model(step.experiment)
    if step.experiment is None or size is None:
        return 0, 0
    if step.kind.name == "pretrain":
        kept = kept_backbones(step.experiment) * size.backbone
        resume = resume_bytes(step.experiment, size.weights)
        # A file is written beside the one that it replaces.
        return kept + 2 * resume, kept + resume
    if step.kind.name == "train":
        every = step.epochs if step.experiment.globals.snapshot_epochs == "all" else 0
        kept = (_SNAPSHOTS + every) * size.weights
        return kept + size.weights + 2 * resume_bytes(step.experiment, size.weights), kept
    common = step.experiment.globals.snapshot_epochs == "all"
    copies = (_SNAPSHOTS + common) * n_splits * size.weights
    return (copies, copies) if step.kind.name == "infer" else (0, 0)


def bytes_of_weights_there(step: Step) -> int:
    """Return the bytes of the weights that are in a step's own folder now."""
    pattern = "*_model_fold*.pth" if step.kind.name == "infer" else "*.pth"
    there = step.epochs or step.kind.name == "infer"
    return size_of_files(step.folder.glob(pattern)) if there else 0


def size_of_files(files: Iterable[Path]) -> int:
    """Return the bytes of some files."""
    return sum(path.stat().st_size for path in files)


def image_store_bytes(plan: Plan) -> int:
    """Return the bytes of the store of decoded images when it is full; 0 if none is needed."""
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
