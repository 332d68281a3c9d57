"""One batch through the model of an experiment: shapes, types, memory and files, before a run."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from foldsmith.config import Components, Context, Experiment
from foldsmith.data.cache.image_store import ImageStore
from foldsmith.errors import FoldsmithError
from foldsmith.models.runtime import Runtime, create_runtime, seed_everything
from foldsmith.project.tables import read_test, read_train
from foldsmith.steps.cost import ModelSize, Trial, weight_bytes
from foldsmith.steps.fold_components import build_fold, read_labels
from foldsmith.steps.fold_heads import head_of
from foldsmith.steps.fold_training import check_outputs
from foldsmith.steps.frozen_features import check_learning
from foldsmith.targets.tasks import create_task
from foldsmith.training.batch_size import fitting_batch, propose_batch, train_one_batch
from foldsmith.training.fine_tune_step import FineTuneStep
from foldsmith.training.pretrain_step import PretrainStep
from foldsmith.training.training_step import TrainingStep
from foldsmith.utils.formatting import counted
from foldsmith.utils.hashing import FileHashes

# Images of a batch on a CPU, where a whole batch of a large model takes minutes. Wrong shapes and
# types show with few images.
_FEW_IMAGES = 4

# Kinds of devices on which whole batches are tried.
WHOLE_BATCHES_ON = ("cuda",)

Types = Mapping[str, Callable[..., Any]]


def try_pretraining(experiment: Experiment, types: Types) -> Trial:
    """Train a pretraining on one batch.

    Args:
        experiment: The pretraining.
        types: The components that it can name.

    Raises:
        FoldsmithError: It fails.
    """
    runtime = _start(experiment)
    parts = experiment.build(types, _context(experiment, runtime))
    step = PretrainStep(runtime.place(parts["model"]))
    if experiment.tree.get("probe"):
        parts["probe"]  # raises an error if its epochs are wrong
    return _train(experiment, step, parts, runtime)


def try_fine_tuning(experiment: Experiment, types: Types) -> Trial:
    """Train the first fold of a fine-tuning on one batch.

    Args:
        experiment: The fine-tuning.
        types: The components that it can name.

    Raises:
        FoldsmithError: It fails.
    """
    runtime, settings = _start(experiment), experiment.globals
    task = create_task(settings, experiment.project)
    experiment = experiment.with_values({"globals/val_fold": 0})
    _, labels = read_labels(experiment, task)
    form, _ = task.scale_form(settings.target_scale, labels)
    context = _context(experiment, runtime, task)
    fold = build_fold(experiment, types, context, task, form)
    parts, task = fold.components, fold.task
    model = runtime.place(parts["model"])
    check_outputs(experiment, model, parts["loader/val"], task, runtime)
    step = FineTuneStep(
        *(model, parts["loss"], task, None, settings.max_epoch, settings.seed),
        weights=fold.weights_on(runtime.device),
    )
    return _train(experiment, step, parts, runtime)


def try_features(experiment: Experiment, types: Types) -> Trial:
    """Compute the features of a few images, and build the head.

    Args:
        experiment: An experiment with frozen features.
        types: The components that it can name.

    Raises:
        FoldsmithError: It fails.
    """
    project, runtime = experiment.project, create_runtime(experiment.globals)
    experiment = experiment.with_values({"globals/val_fold": 0})
    parts = experiment.build(types, _context(experiment, runtime))
    backbone = runtime.place(parts["model"]).eval()
    check_learning(experiment, backbone)
    head, loader = head_of(experiment, types)[0], parts["loader/val"]
    started = time.perf_counter()
    keys = [(0, index) for index in range(min(_FEW_IMAGES, len(loader.dataset)))]
    batch = runtime.transfer(loader.dataset.__getitems__(keys), loader.on_device)
    with torch.inference_mode(), runtime.autocast():
        features = backbone(batch.views[0])
    if features.shape[:-1] != (len(keys),):
        raise FoldsmithError(
            f"{experiment.file}: model: gives features of shape {tuple(features.shape[1:])} per "
            "image, not one vector"
        )
    seconds = time.perf_counter() - started
    text = (
        f"{features.shape[1]} features of {counted(len(keys), 'image')} in {seconds:.1f} s, "
        f"{type(head).__name__}"
    )
    n_images = sum(len(read(project)) for read in (read_train, read_test))
    return Trial(text, other_bytes=n_images * features.shape[1] * 4)


def _start(experiment: Experiment) -> Runtime:
    runtime = create_runtime(experiment.globals)
    seed_everything(experiment.globals.seed)
    return runtime


def _context(experiment: Experiment, runtime: Runtime, task: Any = None) -> Context:
    project = experiment.project
    store = ImageStore(None, FileHashes(project.hash_store), project.intensity_range)
    return Context(images=store, runtime=runtime, task=task)


def _train(
    experiment: Experiment, step: TrainingStep, parts: Components, runtime: Runtime
) -> Trial:
    """Train on one batch: forward, loss, backward, optimizer step."""
    loader, optimizer = parts["loader/train"], parts["optimizer"]
    grad_accum, batch_size = experiment.globals.grad_accum, loader.sampler.batch_size
    whole = runtime.device.type in WHOLE_BATCHES_ON
    n_images = batch_size if whole else min(batch_size, _FEW_IMAGES)
    started = time.perf_counter()
    advice = ""
    if whole:
        fits = fitting_batch(step, loader, optimizer, runtime, grad_accum)
        n_images = min(n_images, fits)
        if fits < batch_size:
            batch, accum = propose_batch(batch_size, grad_accum, fits)
            advice = (
                f"; batches of {batch_size} do not fit: try loader/train/batch_size={batch} "
                f"globals/grad_accum={accum}"
            )
    loss = train_one_batch(step, loader, optimizer, runtime, n_images)
    seconds = time.perf_counter() - started
    model = step.model
    parameters = sum(parameter.numel() for parameter in model.parameters())
    text = (
        f"{parameters / 1e6:.1f} M parameters, {n_images} of {batch_size} images in "
        f"{seconds:.1f} s, loss {loss:.3f}{advice}"
    )
    backbone = getattr(model, "backbone", model)
    return Trial(text, ModelSize("", weight_bytes(model), weight_bytes(backbone), {}))
