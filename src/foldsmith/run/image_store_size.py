"""Size of the store of decoded images that a run needs."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.data.image_table import IMG_INFO
from foldsmith.data.images import read_image
from foldsmith.data.intensity import IntensityRange
from foldsmith.data.transforms.base import Compose
from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import image_paths, read_test, read_train
from foldsmith.steps.base import Plan
from foldsmith.steps.image_store import stored_heads
from foldsmith.utils.path_list import Paths

# Images whose size is looked up if preprocess has not measured all of them.
_SAMPLE = 16


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
    sizes, counts, n_images = image_sizes(plan.project)
    rng = np.random.default_rng(0)  # a stored head draws nothing from it
    total = 0
    for (height, width), count in zip(sizes.tolist(), counts.tolist(), strict=True):
        versions = {_after(head, height, width, rng) for head in heads}
        total += count * sum(3 * h * w for h, w in versions)
    return round(total * n_images / max(1, int(counts.sum())))


def _after(head: Compose, height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
    for transform in head.transforms:
        drawn = transform.draw(height, width, rng)
        height, width = transform.size_after(height, width, drawn)
    return height, width


def image_sizes(project: ProjectFolder) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """Return the sizes of a project's images.

    Args:
        project: The project.

    Returns:
        The distinct heights and widths, shape (n, 2); the number of images of each size, perhaps of
        a sample, shape (n,); the number of all images.
    """
    train, test = read_train(project, with_bad=True), read_test(project)
    paths = image_paths(project, train) + image_paths(project, test)
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
            image = read_image(path, Compose([]), intensity)
        except DataError:
            continue  # preprocess reports it
        yield image.shape[0], image.shape[1]
