"""The models behind a finished experiment's predictions, for photos that it has not seen."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from foldsmith.config import Criterion, Experiment, Parts, Project
from foldsmith.config.flatten import flatten
from foldsmith.config.settings import MEMBERS
from foldsmith.data.datasets import PhotoDataset, stored_head
from foldsmith.data.loader import PhotoLoader
from foldsmith.data.photos_at_hand import PhotosAtHand
from foldsmith.data.tables import FOLD_COLUMN, groups_of, read_folds, targets_of
from foldsmith.data.transforms import Compose, Transform
from foldsmith.errors import ConfigError, OutputError
from foldsmith.evaluation.predict import predict_in_turn
from foldsmith.hashing import FileHashes
from foldsmith.models.feature_heads import FeatureHead
from foldsmith.models.runtime import create_runtime, random_state_kept, seed_everything
from foldsmith.models.weights import load_weights
from foldsmith.stages.frozen import FEATURES_MANIFEST, TRAIN_FEATURES, fit_fold
from foldsmith.stages.inputs import new_photo_inputs, without_pretrained
from foldsmith.stages.manifest import Inputs, Manifest, differences, read_manifest
from foldsmith.stages.output_folder import RESOLVED_CONFIG, read_resolved, shown
from foldsmith.stages.selection import LABELS, inference_manifest
from foldsmith.stages.types import types_of
from foldsmith.tasks.regression import Regression
from foldsmith.tasks.task import Task, create_task

Array = npt.NDArray[np.float32]


class MemberModels:
    """What a finished experiment predicts new photos with: one model per fold.

    All is read when it is made: what happens to the files afterwards does not matter.

    Args:
        experiment: As its inference has run it.
        root: Its output folder.
        manifest: That of its inference.
        criterion: Which snapshots.

    Attributes:
        name: Name of the output folder.
        task: How logits become predictions.
        transforms: What is done to a photo.

    Raises:
        ConfigError: The experiment's transforms are not those of a list.
        OutputError: A file is missing, or is not what the predictions were made with.
    """

    def __init__(
        self, experiment: Experiment, root: Path, manifest: Manifest, criterion: Criterion
    ) -> None:
        self.name = root.name
        self._experiment = experiment
        self._root = root
        settings, project = experiment.globals, experiment.project
        self._frozen = settings.task == "frozen-features"
        self.task: Task = (
            Regression(project.target_range) if self._frozen else create_task(settings, project)
        )
        self._types = types_of(project)
        hashes = FileHashes(project.hash_store)
        parts = self._build()
        self.transforms = self._read_transforms(parts)
        self._batch_size = int(parts["loader/test/batch_size"])
        # Of frozen features: from those of new photos to what each fold says.
        self._heads: list[Callable[[Array], Array]] = []
        # Who calls this may be drawing random numbers too.
        with random_state_kept():
            if self._frozen:
                self._check_features(hashes)
                # Random weights are a backbone too: those that the features were made with.
                seed_everything(settings.seed)
                self._models: list[nn.Module] = [parts["model"]]
                self._heads = self._fit_heads(parts["head"])
            else:
                folds = range(project.n_splits)
                snapshots = kept_snapshots(root, manifest, criterion, folds, hashes)
                self._models = self._load_models(snapshots)
        hashes.save()

    @property
    def head(self) -> Compose:
        """What is done to each photo once, before the rest of the transforms."""
        return stored_head(self.transforms)

    def logits(self, photos: PhotosAtHand) -> Array:
        """Return what each fold's model says of photos.

        Args:
            photos: At least one, in a version that :attr:`head` made.

        Returns:
            Shape (n_folds, n, n_outputs).
        """
        settings, n = self._experiment.globals, len(photos)
        runtime = create_runtime(settings)
        dataset = PhotoDataset(
            photos, [Path()] * n, np.arange(n), None, self.transforms, seed=0, label=self.name
        )
        loader = PhotoLoader(dataset, self._batch_size)
        made = predict_in_turn(self._models, loader, runtime, self.name, settings.tta)
        return np.stack([predict(made[0]) for predict in self._heads]) if self._frozen else made

    def _build(self, fold: int | None = None) -> Parts:
        experiment = self._experiment.with_values({"globals/val_fold": fold})
        context = {"project": experiment.project, "images": None, "runtime": None}
        return experiment.build(self._types, context | {"task": self.task})

    def _read_transforms(self, parts: Parts) -> list[Transform]:
        dataset = self._experiment.tree["dataset"].get("test")
        if not isinstance(dataset, dict) or "transforms" not in dataset:
            raise ConfigError(
                f"{self._root / RESOLVED_CONFIG}: dataset/test has no transforms, by which new "
                "photos would be prepared"
            )
        return list(parts["dataset/test/transforms"])

    def _load_models(self, snapshots: Sequence[Path]) -> list[nn.Module]:
        """Return the folds' models."""
        models = []
        for fold, path in enumerate(snapshots):
            model: nn.Module = self._build(fold)["model"]
            load_weights(model, path)
            models.append(model)
        return models

    def _fit_heads(self, head: FeatureHead) -> list[Callable[[Array], Array]]:
        """Fit the heads as they were: to the same features, targets and folds."""
        settings, project = self._experiment.globals, self._experiment.project
        table = read_folds(project, settings.meta_file)
        features = np.load(self._root / TRAIN_FEATURES, allow_pickle=False)
        targets, groups = targets_of(project, table), groups_of(project, table)
        folds = table[FOLD_COLUMN].to_numpy(dtype=np.int64)
        return [
            fit_fold(head, features, targets, folds, groups, fold, settings.seed)
            for fold in range(project.n_splits)
        ]

    def _check_features(self, hashes: FileHashes) -> None:
        path = self._root / TRAIN_FEATURES
        kept = read_manifest(self._root / FEATURES_MANIFEST)
        digest = hashes.of(path)
        if kept is None or kept.outputs.get(TRAIN_FEATURES) != digest:
            remedy = "run 'foldsmith train --resume' with the experiment's file, which makes it"
            raise OutputError(_not_there(path, digest, remedy))


def read_member(
    project: Project, folder: str | Path, criterion: Criterion, device: str | None
) -> MemberModels:
    """Read what a finished experiment predicts new photos with.

    Args:
        project: The project.
        folder: Output folder of a fine-tuning or of frozen features.
        criterion: Which snapshots.
        device: Where to compute; None as the experiment says.

    Raises:
        ConfigError: The experiment is wrong, or a file that it names is missing.
        OutputError: The folder holds no finished experiment, a file is missing, or something
            is not as it was when the test photos were predicted.
    """
    experiment, manifest = read_inferred(project, folder, criterion)
    if device is not None:
        experiment = experiment.with_values({"globals/device": device})
    return MemberModels(experiment, project.path(folder), manifest, criterion)


def read_inferred(
    project: Project, folder: str | Path, criterion: Criterion
) -> tuple[Experiment, Manifest]:
    """Return a finished experiment as its inference has run it, and the inference's manifest.

    Args:
        project: The project.
        folder: Output folder of a fine-tuning or of frozen features.
        criterion: Which snapshots.

    Raises:
        ConfigError: The experiment is wrong, or a file that it names is missing.
        OutputError: The folder holds no finished experiment, or something is not as it was when
            the test photos were predicted.
    """
    root = project.path(folder)
    experiment = read_resolved(project, root)
    if experiment.globals.task not in MEMBERS:
        raise OutputError(f"{root}: holds a {experiment.globals.task} run, which predicts nothing")
    path = inference_manifest(root, criterion)
    manifest = read_manifest(path)
    if manifest is None:
        raise OutputError(
            f"{path}: no such file; run 'foldsmith infer -e {folder} -cri {criterion}' first"
        )
    if experiment.globals.task != "frozen-features":
        experiment = without_pretrained(experiment)
    types = types_of(project)
    experiment.check(types)
    hashes = FileHashes(project.hash_store)
    experiment = as_inferred(experiment, manifest, types, hashes)
    changed = _changed(experiment, manifest, types, hashes)
    if changed:
        raise OutputError(
            f"{root}: has predicted the test photos from other inputs than today's "
            f"({'; '.join(changed[:5])}); restore them, or run 'foldsmith run' again"
        )
    return experiment, manifest


def kept_snapshots(
    root: Path,
    manifest: Manifest,
    criterion: Criterion,
    folds: Iterable[int],
    hashes: FileHashes,
) -> list[Path]:
    """Return the weights that folds were inferred with.

    Args:
        root: Output folder of the fine-tuning.
        manifest: That of its inference.
        criterion: Which snapshots.
        folds: The folds.
        hashes: Hashes of files.

    Raises:
        OutputError: A file is gone, or is not what the predictions were made with.
    """
    wanted = dict(manifest.inputs["snapshots"])
    paths = {fold: root / f"{LABELS[criterion]}_model_fold{fold}.pth" for fold in folds}
    remedy = (
        f"run 'foldsmith infer -e {shown(root)} -cri {criterion}', which makes it from "
        "what the training has kept, or says which fold to train again"
    )
    digests = hashes.of_all(paths.values())
    for (fold, path), digest in zip(paths.items(), digests, strict=True):
        if digest != wanted[f"fold{fold}"]:
            raise OutputError(_not_there(path, digest, remedy))
    return list(paths.values())


def as_inferred(
    experiment: Experiment,
    manifest: Manifest,
    types: Mapping[str, Callable[..., Any]],
    hashes: FileHashes,
) -> Experiment:
    """Return an experiment with what its inference was told to do otherwise (``globals/tta``)."""
    today = new_photo_inputs(experiment, types, hashes)["config"]
    then = dict(manifest.inputs["config"])
    known = flatten(experiment.tree)
    return experiment.with_values(
        {key: value for key, value in then.items() if key in known and today.get(key) != value}
    )


def _changed(
    experiment: Experiment,
    manifest: Manifest,
    types: Mapping[str, Callable[..., Any]],
    hashes: FileHashes,
) -> Sequence[str]:
    """Return what is not as it was when the test photos were predicted."""
    today = new_photo_inputs(experiment, types, hashes)
    then: Inputs = {name: manifest.inputs[name] for name in today if name in manifest.inputs}
    # The sample submission is of no matter here.
    then["files"] = {name: then["files"].get(name) for name in today["files"]}
    return differences(then, today)


def _not_there(path: Path, digest: str, remedy: str) -> str:
    changed = "is not what the test photos were predicted with"
    state = "no such file" if digest == "missing" else changed
    return f"{path}: {state}; put it back, or {remedy}"
