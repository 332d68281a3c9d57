"""Heat maps of a finished fine-tuning for images of the validation folds."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from foldsmith.config import Checkpoint, Context, Experiment
from foldsmith.data.datasets import Batch, ImageDataset, stored_head
from foldsmith.data.images import Image, decode
from foldsmith.data.loader import ImageLoader
from foldsmith.data.loose_images import ImagesAtHand
from foldsmith.data.transforms.base import Transform
from foldsmith.errors import ConfigError
from foldsmith.inference.saliency import grad_cam
from foldsmith.models.classifier import ImageModel
from foldsmith.models.runtime import Runtime, create_runtime, random_state_kept
from foldsmith.models.snapshots import load_weights
from foldsmith.predictor.member_models import kept_snapshots, read_inferred
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import FOLD_COLUMN, image_paths, read_folds
from foldsmith.steps.registry import types_of
from foldsmith.targets.scale_buffer import task_kept
from foldsmith.targets.task import Explained
from foldsmith.targets.tasks import create_task
from foldsmith.utils.hashing import FileHashes


@dataclass(frozen=True)
class HeatMap:
    """One image and the heat map of its fold's model.

    Attributes:
        view: Input of the model: uint8 RGB, shape (H, W, 3).
        heat: Where its prediction comes from, in 0..1, shape (rows, columns) of a coarse grid
            over the view.
    """

    view: Image
    heat: npt.NDArray[np.float32]


def look_at(
    project: ProjectFolder, root: Path, checkpoint: Checkpoint, rows: Sequence[int]
) -> tuple[list[HeatMap], str]:
    """Return heat maps of labelled images, each by the model that was not trained on it.

    Weights, transforms and epoch are those of the out-of-fold predictions; mirror images that
    these may be averaged over are left out.

    Args:
        project: The project.
        root: Output folder of a fine-tuning.
        checkpoint: By which snapshots it was inferred.
        rows: Rows of its fold table.

    Returns:
        One for each row, in their order; and a description of the explained output.

    Raises:
        ConfigError: The model or its backbone has no feature map that is known how to read.
        OutputError: Weights are missing, or inputs have changed since the inference.
        DataError: An image cannot be read.
    """
    experiment, manifest = read_inferred(project, root, checkpoint)
    table = read_folds(project, experiment.globals.meta_file)
    folds = table[FOLD_COLUMN].to_numpy(dtype=np.int64)[list(rows)]
    hashes = FileHashes(project.hash_store)
    runtime = create_runtime(experiment.globals)
    found: dict[int, HeatMap] = {}
    for fold in np.unique(folds).tolist():
        (weights,) = kept_snapshots(root, manifest, checkpoint, [fold], hashes)
        chosen = [row for row, of in zip(rows, folds, strict=True) if of == fold]
        model = _model_of_fold(experiment, fold, weights, runtime)
        images = _decoded(project, image_paths(project, table.iloc[chosen]), model.transforms)
        heat_maps = _heat_maps(model, images, runtime)
        found |= dict(zip(chosen, heat_maps, strict=True))
    hashes.save()
    grids = {heat_map.heat.shape for heat_map in found.values()}
    cells = ", ".join(sorted(f"{high} x {wide}" for high, wide in grids))
    return [found[row] for row in rows], f"parts {model.score.text}, on a grid of {cells}"


@dataclass(frozen=True)
class _FoldModel:
    """The model of a fold.

    Attributes:
        network: The network, on its device.
        transforms: Those of the validation.
        score: The output that is explained.
    """

    network: ImageModel
    transforms: list[Transform]
    score: Explained


def _model_of_fold(
    experiment: Experiment, fold: int, weights: Path, runtime: Runtime
) -> _FoldModel:
    """Load the model of a fold.

    Raises:
        ConfigError: It has no backbone of timm.
    """
    task = create_task(experiment.globals, experiment.project)
    of_fold = experiment.with_values({"globals/val_fold": fold})
    # The caller may be drawing random numbers too.
    with random_state_kept():
        context = Context(runtime=runtime, task=task)
        components = of_fold.build(types_of(experiment.project), context)
        network, transforms = components["model"], list(components["dataset/val/transforms"])
    if not isinstance(network, ImageModel):
        raise ConfigError(f"{type(network).__name__}: has no backbone of timm to look into")
    load_weights(network, weights)
    score = task_kept(task, network).explained()
    runtime.place(network.eval())
    return _FoldModel(network, transforms, score)


def _decoded(
    project: ProjectFolder, paths: Iterable[Path], transforms: Sequence[Transform]
) -> ImagesAtHand:
    images = ImagesAtHand([stored_head(transforms)])
    for path in paths:
        images.add(images.versions(decode(path, project.intensity_range)))
    return images


def _heat_maps(model: _FoldModel, images: ImagesAtHand, runtime: Runtime) -> Iterator[HeatMap]:
    """Yield the heat map of each image."""
    n = len(images)
    dataset = ImageDataset(images, [Path()] * n, np.arange(n), None, model.transforms, seed=0)
    loader = ImageLoader(dataset, n)
    # One by one: they may be of different sizes, and need little memory so.
    for index in range(n):
        batch = dataset[0, index]
        assert isinstance(batch, Batch)
        pixels = runtime.transfer(batch, loader.on_device).views[0].float()
        heat = grad_cam(model.network, pixels, model.score)[0]
        yield HeatMap(_shown(batch.views[0][0].permute(1, 2, 0).numpy()), heat)


def _shown(view: npt.NDArray[np.generic]) -> Image:
    """Return a view as it can be seen; one that was normalised already is stretched."""
    values = view.astype(np.float64)
    if view.dtype != np.uint8:
        values = 255 * (values - values.min()) / max(np.ptp(values), 1e-9)
    return values.astype(np.uint8)
