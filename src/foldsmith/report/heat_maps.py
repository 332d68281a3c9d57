"""Heat maps of a finished fine-tuning for photos of the validation folds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from foldsmith.config import Checkpoint, Context
from foldsmith.data.datasets import Batch, PhotoDataset, stored_head
from foldsmith.data.images import Image, decode
from foldsmith.data.loader import PhotoLoader
from foldsmith.data.loose_images import PhotosAtHand
from foldsmith.errors import ConfigError
from foldsmith.inference.saliency import grad_cam
from foldsmith.models.classifier import ImageModel
from foldsmith.models.runtime import create_runtime, random_state_kept
from foldsmith.models.snapshots import load_weights
from foldsmith.predictor.member_models import kept_snapshots, read_inferred
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import FOLD_COLUMN, photo_paths, read_folds
from foldsmith.steps.registry import types_of
from foldsmith.targets.scale_buffer import task_kept
from foldsmith.targets.tasks import create_task
from foldsmith.utils.hashing import FileHashes


@dataclass(frozen=True)
class HeatMap:
    """One photo and what its fold's model looked at.

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
    """Return what models looked at in labelled photos, each the model that had not seen it.

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
        OutputError: Weights are gone, or something is not as it was at the inference.
        DataError: A photo cannot be read.
    """
    experiment, manifest = read_inferred(project, root, checkpoint)
    settings, types = experiment.globals, types_of(project)
    runtime, task = create_runtime(settings), create_task(settings, project)
    table = read_folds(project, settings.meta_file)
    folds = table[FOLD_COLUMN].to_numpy(dtype=np.int64)[list(rows)]
    hashes = FileHashes(project.hash_store)
    context = Context(runtime=runtime, task=task)
    found: dict[int, HeatMap] = {}
    for fold in np.unique(folds).tolist():
        (weights,) = kept_snapshots(root, manifest, checkpoint, [fold], hashes)
        chosen = [row for row, of in zip(rows, folds, strict=True) if of == fold]
        # The caller may be drawing random numbers too.
        with random_state_kept():
            parts = experiment.with_values({"globals/val_fold": fold}).build(types, context)
            model, transforms = parts["model"], list(parts["dataset/val/transforms"])
        if not isinstance(model, ImageModel):
            raise ConfigError(f"{type(model).__name__}: has no backbone of timm to look into")
        load_weights(model, weights)
        score = task_kept(task, model).explained()
        runtime.place(model.eval())
        photos = PhotosAtHand([stored_head(transforms)])
        for path in photo_paths(project, table.iloc[chosen]):
            photos.add(photos.versions(decode(path, project.intensity_range)))
        n = len(chosen)
        dataset = PhotoDataset(photos, [Path()] * n, np.arange(n), None, transforms, seed=0)
        loader = PhotoLoader(dataset, n)
        # One by one: they may be of different sizes, and need little memory so.
        for k, row in enumerate(chosen):
            batch = dataset[0, k]
            assert isinstance(batch, Batch)
            images = runtime.transfer(batch, loader.on_device).views[0].float()
            heat = grad_cam(model, images, score)[0]
            found[row] = HeatMap(_shown(batch.views[0][0].permute(1, 2, 0).numpy()), heat)
    hashes.save()
    grids = {looked.heat.shape for looked in found.values()}
    cells = ", ".join(sorted(f"{high} x {wide}" for high, wide in grids))
    return [found[row] for row in rows], f"parts {score.text}, on a grid of {cells}"


def _shown(view: npt.NDArray[np.generic]) -> Image:
    """Return a view as it can be seen; one that was normalised already is stretched."""
    values = view.astype(np.float64)
    if view.dtype != np.uint8:
        values = 255 * (values - values.min()) / max(np.ptp(values), 1e-9)
    return values.astype(np.uint8)
