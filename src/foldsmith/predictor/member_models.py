"""The models of a finished experiment, for new images."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from foldsmith.config import Checkpoint, Components, Context, Experiment
from foldsmith.config.check import check_experiment
from foldsmith.data.datasets import ImageDataset, stored_head
from foldsmith.data.loader import ImageLoader
from foldsmith.data.loose_images import ImagesAtHand
from foldsmith.data.transforms.base import Compose, Transform
from foldsmith.errors import ConfigError, OutputError
from foldsmith.inference.predict import predict_in_turn
from foldsmith.models.feature_heads import FeatureHead
from foldsmith.models.fitted_arrays import read_arrays
from foldsmith.models.learns_from_images import LEARNED, LearnsFromImages, read_learned
from foldsmith.models.runtime import create_runtime, random_state_kept, seed_everything
from foldsmith.models.snapshots import load_weights
from foldsmith.project import ProjectFolder
from foldsmith.steps.checkpoint_choice import (
    LABELS,
    checkpoint_for,
    inference_manifest,
    predicting_command,
)
from foldsmith.steps.fold_heads import HeadOfFold, head_file, head_of
from foldsmith.steps.inputs.predictions import new_image_inputs
from foldsmith.steps.inputs.shared import without_pretrained
from foldsmith.steps.kinds.predictions import as_inferred
from foldsmith.steps.kinds.registry import kind_of
from foldsmith.steps.manifest import Inputs, Manifest, differences, read_manifest
from foldsmith.steps.output_folder import shown
from foldsmith.steps.registry import types_of
from foldsmith.steps.run_records import read_resolved
from foldsmith.targets.scale_buffer import task_kept
from foldsmith.targets.task import Task
from foldsmith.targets.tasks import create_task
from foldsmith.utils.hashing import FileHashes

Array = npt.NDArray[np.float32]


class MemberModels:
    """Models and image preparation of a finished experiment, for new images.

    Args:
        name: Name of its output folder.
        experiment: As its inference has run it.
        models: One per fold, on the CPU; if there are heads, the backbone that all folds share.
        heads: The fitted head of each fold on frozen features; empty for other members.

    Attributes:
        name: Name of the output folder.
        experiment: As its inference has run it.
        models: As given.
        heads: As given.
        tasks: How the logits of each fold become predictions, each with the fold's target scale.
        transforms: Transforms of an image.

    Raises:
        ConfigError: The experiment's transforms are not those of a list.
    """

    def __init__(
        self,
        name: str,
        experiment: Experiment,
        models: Sequence[nn.Module],
        heads: Sequence[HeadOfFold] = (),
    ) -> None:
        self.name = name
        self.experiment = experiment
        self.models = list(models)
        self.heads = list(heads)
        parts = parts_of(experiment)
        task: Task = parts["task"]
        self.tasks: list[Task] = [task_kept(task, model) for model in self.models]
        if self.heads:
            self.tasks = [task.with_scale(head.scale) for head in self.heads]
        self.transforms = _read_transforms(experiment, parts)
        self._batch_size = int(parts["loader/test/batch_size"])

    @property
    def head(self) -> Compose:
        """Transforms that run once per image, before the others."""
        return stored_head(self.transforms)

    def logits(self, images: ImagesAtHand) -> Array:
        """Return the logits of each fold's model for images.

        Args:
            images: At least one, in a version that :attr:`head` made.

        Returns:
            Shape (n_folds, n, n_outputs).
        """
        settings, loader = self.experiment.globals, self._loader(images)
        runtime = create_runtime(settings)
        made = predict_in_turn(self.models, loader, runtime, self.name, settings.tta)
        if not self.heads:
            return made
        return np.stack([head.logits(made[0]) for head in self.heads])

    def images_of(self, images: ImagesAtHand) -> torch.Tensor:
        """Return images as the models get them: float32, normalised, shape (n, 3, H, W)."""
        loader = self._loader(images)
        runtime = create_runtime(self.experiment.globals.model_copy(update={"device": "cpu"}))
        views = [runtime.transfer(batch, loader.on_device).views[0] for batch in loader]
        return torch.cat(views)

    def _loader(self, images: ImagesAtHand) -> ImageLoader:
        n = len(images)
        dataset = ImageDataset(
            images, [Path()] * n, np.arange(n), None, self.transforms, seed=0, label=self.name
        )
        return ImageLoader(dataset, self._batch_size)


def parts_of(experiment: Experiment, fold: int | None = None) -> Components:
    """Return the parts of an experiment that predicts, without images.

    Args:
        experiment: The experiment.
        fold: The fold whose model is built.
    """
    project, types = experiment.project, types_of(experiment.project)
    task: Task
    if kind_of(experiment).frozen:
        _, task = head_of(experiment, types)
    else:
        task = create_task(experiment.globals, project)
    context = Context(task=task)
    return experiment.with_values({"globals/val_fold": fold}).build(types, context)


def read_member(
    project: ProjectFolder, folder: str | Path, checkpoint: Checkpoint, device: str | None
) -> MemberModels:
    """Read the models and the image preparation of a finished experiment.

    Args:
        project: The project.
        folder: Output folder of a fine-tuning or of frozen features.
        checkpoint: Which snapshots.
        device: Where to compute; None for the device of the experiment.

    Raises:
        ConfigError: The experiment is wrong, or a file that it names is missing.
        OutputError: The folder holds no finished experiment, a file is missing, or something
            is not as it was when the test images were predicted.
    """
    experiment, manifest = read_inferred(project, folder, checkpoint)
    if device is not None:
        experiment = experiment.with_values({"globals/device": device})
    root, hashes = project.path(folder), FileHashes(project.hash_store)
    # The caller may be drawing random numbers too.
    with random_state_kept():
        if kind_of(experiment).frozen:
            models, heads = _read_frozen(experiment, root, manifest, hashes)
        else:
            folds = range(project.n_splits)
            snapshots = kept_snapshots(root, manifest, checkpoint, folds, hashes)
            models, heads = _load_folds(experiment, snapshots), []
    hashes.save()
    return MemberModels(root.name, experiment, models, heads)


def _load_folds(experiment: Experiment, snapshots: Sequence[Path]) -> list[nn.Module]:
    models = []
    for fold, path in enumerate(snapshots):
        model: nn.Module = parts_of(experiment, fold)["model"]
        load_weights(model, path)
        models.append(model)
    return models


def read_inferred(
    project: ProjectFolder, folder: str | Path, checkpoint: Checkpoint
) -> tuple[Experiment, Manifest]:
    """Return a finished experiment as its inference has run it, and the inference's manifest.

    Args:
        project: The project.
        folder: Output folder of a fine-tuning or of frozen features.
        checkpoint: Which snapshots.

    Raises:
        ConfigError: The experiment is wrong, or a file that it names is missing.
        OutputError: The folder holds no finished experiment, or something is not as it was when
            the test images were predicted.
    """
    root = project.path(folder)
    experiment = read_resolved(project, root)
    if not kind_of(experiment).predicts:
        raise OutputError(f"{root}: holds a {experiment.globals.task} run, which predicts nothing")
    path = inference_manifest(root, checkpoint_for(experiment.globals.task, checkpoint))
    manifest = read_manifest(path)
    if manifest is None:
        again = predicting_command(experiment.globals.task, folder, checkpoint)
        raise OutputError(f"{path}: no such file; run {again} first")
    if not kind_of(experiment).frozen:
        experiment = without_pretrained(experiment)
    types = types_of(project)
    check_experiment(experiment, types)
    hashes = FileHashes(project.hash_store)
    experiment = as_inferred(experiment, manifest, types, hashes)
    changed = _changed(experiment, manifest, types, hashes)
    if changed:
        raise OutputError(
            f"{root}: has predicted the test images from other inputs than today's "
            f"({'; '.join(changed[:5])}); restore them, or run 'foldsmith run' again"
        )
    return experiment, manifest


def _read_transforms(experiment: Experiment, parts: Components) -> list[Transform]:
    dataset = experiment.tree["dataset"].get("test")
    if not isinstance(dataset, dict) or "transforms" not in dataset:
        raise ConfigError(
            f"{experiment.file}: dataset/test has no transforms, by which new images would be "
            "prepared"
        )
    return list(parts["dataset/test/transforms"])


def _read_frozen(
    experiment: Experiment, root: Path, manifest: Manifest, hashes: FileHashes
) -> tuple[list[nn.Module], list[HeadOfFold]]:
    """Return the backbone, and the fitted head of each fold."""
    # A backbone with random weights is possible too; the seed restores its weights.
    seed_everything(experiment.globals.seed)
    parts = parts_of(experiment)
    head: FeatureHead = parts["head"]
    remedy = "run 'foldsmith train --resume' with the experiment's file, which makes it"
    heads = []
    for fold in range(experiment.project.n_splits):
        path = root / head_file(fold)
        _check_file(path, manifest.outputs.get(path.name), hashes, remedy)
        heads.append(HeadOfFold.restore(head, read_arrays(path)))
    model: nn.Module = parts["model"]
    if isinstance(model, LearnsFromImages):
        path = root / LEARNED
        _check_file(path, manifest.outputs.get(path.name), hashes, remedy)
        read_learned(model, path)
    return [model], heads


def kept_snapshots(
    root: Path,
    manifest: Manifest,
    checkpoint: Checkpoint,
    folds: Iterable[int],
    hashes: FileHashes,
) -> list[Path]:
    """Return the weights that folds were inferred with.

    Args:
        root: Output folder of the fine-tuning.
        manifest: Manifest of its inference.
        checkpoint: Which snapshots.
        folds: The folds.
        hashes: Hashes of files.

    Raises:
        OutputError: A file is missing, or differs from the file behind the predictions.
    """
    wanted = dict(manifest.inputs["snapshots"])
    paths = {fold: root / f"{LABELS[checkpoint]}_model_fold{fold}.pth" for fold in folds}
    remedy = (
        f"run 'foldsmith infer -e {shown(root)} -cri {checkpoint}', which makes it from "
        "what the training has kept, or says which fold to train again"
    )
    for fold, path in paths.items():
        _check_file(path, wanted[f"fold{fold}"], hashes, remedy)
    return list(paths.values())


def _changed(
    experiment: Experiment,
    manifest: Manifest,
    types: Mapping[str, Callable[..., Any]],
    hashes: FileHashes,
) -> Sequence[str]:
    """Return the inputs that have changed since the test images were predicted."""
    today = new_image_inputs(experiment, types, hashes)
    then: Inputs = {name: manifest.inputs[name] for name in today if name in manifest.inputs}
    # The sample submission is of no matter here.
    then["files"] = {name: then["files"].get(name) for name in today["files"]}
    return differences(then, today)


def _check_file(path: Path, wanted: str | None, hashes: FileHashes, remedy: str) -> None:
    digest = hashes.of(path)
    if digest != wanted:
        changed = "differs from the file that predicted the test images"
        state = "no such file" if digest == "missing" else changed
        raise OutputError(f"{path}: {state}; put it back, or {remedy}")
