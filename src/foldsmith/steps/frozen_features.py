"""The features of all images by a backbone that is not trained further."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from foldsmith.config import Context, Experiment
from foldsmith.errors import ConfigError
from foldsmith.inference.oof import in_table_order
from foldsmith.inference.predict import image_batches, predict_logits
from foldsmith.models.learns_from_images import LEARNED, LearnsFromImages, write_learned
from foldsmith.models.runtime import Runtime, create_runtime, seed_everything
from foldsmith.project.tables import read_test, readable_test
from foldsmith.steps.inputs.predictions import features_inputs
from foldsmith.steps.manifest import changed_outputs, differences, read_manifest
from foldsmith.steps.output_folder import shown
from foldsmith.steps.step_run import StepRun
from foldsmith.utils.atomic import write_npy

TRAIN_FEATURES = "train_features.npy"
TEST_FEATURES = "test_features.npy"
FEATURES_MANIFEST = "features.json"

Array = npt.NDArray[np.float32]


def features_of(
    experiment: Experiment, run: StepRun, root: Path, anew: bool
) -> tuple[Array, Array]:
    """Return the features of the train table and of the readable test images.

    Returns:
        Shapes (n_train, n_features) and (n_readable, n_features).
    """
    inputs = features_inputs(experiment, run.types, run.hashes)
    manifest, files = root / FEATURES_MANIFEST, [root / TRAIN_FEATURES, root / TEST_FEATURES]
    kept = read_manifest(manifest)
    if (
        kept is None
        or anew
        or differences(kept.inputs, inputs)
        or changed_outputs(root, kept, run.hashes)
    ):
        model, *computed = _compute_features(experiment, run)
        manifest.unlink(missing_ok=True)
        for path, array in zip(files, computed, strict=True):
            write_npy(path, array)
        (root / LEARNED).unlink(missing_ok=True)
        if isinstance(model, LearnsFromImages):
            write_learned(model, root / LEARNED)
            files.append(root / LEARNED)
        run.finish(manifest, f"features {shown(root)}", inputs, files)
    train, test = (np.load(path, allow_pickle=False) for path in files[:2])
    return train, test


def _compute_features(experiment: Experiment, run: StepRun) -> tuple[nn.Module, Array, Array]:
    """Return the model, after it has learned if it does so, and the features of all images."""
    project, tta = run.project, experiment.globals.tta
    runtime = create_runtime(experiment.globals)
    # Random weights are a backbone too, and should be the same ones every time.
    seed_everything(experiment.globals.seed)
    context = run.context(experiment.globals, runtime)
    backbone = runtime.place(experiment.build(run.types, context)["model"])
    if isinstance(backbone, LearnsFromImages):
        _learn(backbone, experiment, run, context, runtime)
    by_fold = []
    for fold in range(project.n_splits):
        of_fold = experiment.with_values({"globals/val_fold": fold})
        components = of_fold.build(run.types, context)
        loader = components["loader/val"]
        features = predict_logits([backbone], loader, runtime, f"fold {fold}", tta)[0]
        by_fold.append((loader.dataset.rows, features))
    train = in_table_order(by_fold, sum(len(rows) for rows, _ in by_fold))
    if not len(readable_test(project, read_test(project))):
        return backbone, train, np.empty((0, train.shape[1]), np.float32)
    test = predict_logits([backbone], components["loader/test"], runtime, "test", tta)[0]
    return backbone, train, test


def check_learning(experiment: Experiment, model: object) -> None:
    """Check that an experiment whose model learns from images has a loader of them.

    Raises:
        ConfigError: It has none.
    """
    if isinstance(model, LearnsFromImages) and not experiment.tree["loader"].get("learn"):
        raise ConfigError(
            f"{experiment.file}: loader/learn is missing: {type(model).__name__} learns from "
            "images; take it and dataset/learn from foldsmith:recommended_patches.yml"
        )


def images_to_learn_from(experiment: Experiment, n_images: int) -> int:
    """Return how many images a model learns from without labels.

    Args:
        experiment: An experiment with a ``loader/learn``.
        n_images: Images of its project.
    """
    most: int | None = experiment.tree["dataset"]["learn"].get("most")
    return n_images if most is None else min(n_images, most)


def _learn(
    model: LearnsFromImages,
    experiment: Experiment,
    run: StepRun,
    context: Context,
    runtime: Runtime,
) -> None:
    """Let a model learn from the images of ``loader/learn``."""
    check_learning(experiment, model)
    loader = experiment.build(run.types, context)["loader/learn"]
    with torch.no_grad():
        batches = image_batches(loader, runtime, "learn from images")
        seed = experiment.globals.seed
        model.learn(model.sample(batches, len(loader.dataset), seed), seed)
