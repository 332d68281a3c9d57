"""Everything that can be known to go wrong before the work starts."""

import logging
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import torch

from foldsmith import __version__
from foldsmith.config import Context, Experiment
from foldsmith.config.references import is_reference
from foldsmith.data.cache.image_store import PhotoStore
from foldsmith.data.statistics import intensity_problem, photo_facts
from foldsmith.data.table_checks import split_groups, table_problems
from foldsmith.errors import FoldsmithError, one_line
from foldsmith.models.devices import has_bf16, kind_of_device
from foldsmith.models.runtime import create_runtime, seed_everything
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import photo_paths, read_test, read_train
from foldsmith.run.batch_size import fitting_batch, propose_batch, train_one_batch
from foldsmith.run.cost import weight_bytes
from foldsmith.run.disk import kept_backbones, resume_bytes
from foldsmith.run.plan import plan_of, plan_of_all
from foldsmith.run.sample_project import sampled
from foldsmith.steps.base import Plan
from foldsmith.steps.features import head_of
from foldsmith.steps.fingerprint import without_pretrained
from foldsmith.steps.fold_components import build_fold, read_labels
from foldsmith.steps.fold_training import check_outputs
from foldsmith.targets.scale import form_of
from foldsmith.targets.tasks import create_task
from foldsmith.training.steps import FineTuneStep, PretrainStep, TrainingStep
from foldsmith.utils.formatting import counted, size_text
from foldsmith.utils.hashing import FileHashes
from foldsmith.utils.machine import cores_here, memory_here

logger = logging.getLogger(__name__)

# A CPU would take minutes for a whole batch of a large model; shapes and types show with few.
_FEW_PHOTOS = 4

# Devices on which whole batches are tried.
WHOLE_BATCHES_ON = ("cuda",)


@dataclass(frozen=True)
class _Trial:
    """What one batch through an experiment has shown.

    Attributes:
        text: One line for people.
        disk_bytes: What the experiment writes, at most, at one time.
    """

    text: str
    disk_bytes: int


def doctor(project: ProjectFolder, config: Path | str | None = None) -> list[str]:
    """Check the environment, the data and every experiment; print what is found.

    One batch of every experiment goes through its model, loss and backward pass; of frozen features
    through the backbone. A project that was not preprocessed yet is tried with a few of its
    images, which are preprocessed in a temporary folder. Nothing is written into the project but
    facts about files.

    Args:
        project: The project.
        config: Experiment file to check with what it needs; None for all in ``exp_config``.

    Returns:
        What is wrong, one line each; empty if all is well.
    """
    logger.info("environment")
    for name, value in _environment().items():
        logger.info(f"  {name:<12} {value}")
    problems: list[str] = []
    plan = None
    try:
        plan = plan_of_all(project) if config is None else plan_of(project, config)
    except FoldsmithError as error:
        problems += str(error).splitlines()
    problems += table_problems(project, plan.meta_files if plan else ())
    logger.info("data")
    scaled = True
    try:
        found, scaled = _check_photos(project)
        problems += found
    except FoldsmithError:
        logger.info("  photos: not looked at, the tables are wrong")
    if plan is None:
        return problems
    logger.info("experiments")
    if scaled:
        problems += _try_all(plan)
    else:
        logger.info("  not tried: the images need an intensity_range")
    problems += _check_leaks(plan)
    return list(dict.fromkeys(problems))


def _environment() -> dict[str, str]:
    facts = {
        "foldsmith": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": version("timm"),
        "opencv": cv2.__version__,
        "cores": str(cores_here()),
    }
    memory = memory_here()
    if memory is not None:
        facts["memory"] = size_text(memory)
    if kind_of_device("auto") == "mps":
        facts["GPU"] = "Apple's (foldsmith was not tried on one)"
    elif not torch.cuda.is_available():
        facts["GPU"] = f"none that torch can use (built for CUDA {torch.version.cuda})"
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        facts[f"GPU {index}"] = (
            f"{torch.cuda.get_device_name(index)}, {size_text(free)} of {size_text(total)} free, "
            f"bf16 {'yes' if has_bf16(index) else 'no'}, "
            f"CUDA {torch.version.cuda}"
        )
    return facts


def _check_photos(project: ProjectFolder) -> tuple[list[str], bool]:
    """Return what is wrong with the images, and whether those that need a scale have one."""
    tables = [read_train(project, with_bad=True), read_test(project)]
    paths = photo_paths(project, tables[0]) + photo_paths(project, tables[1])
    hashes = FileHashes(project.hash_store)
    facts = photo_facts(paths, hashes, intensity=project.intensity_range)
    hashes.save()
    bad = [
        problem
        for problem, unscaled in zip(facts.problems, facts.unscaled.tolist(), strict=True)
        if problem is not None and not unscaled
    ]
    sides = facts.table[["height", "width"]]
    logger.info(
        f"  {counted(len(tables[0]), 'labelled photo')}, {len(tables[1])} to predict, "
        f"{len(bad)} unreadable"
    )
    if len(bad) < len(paths):
        logger.info(f"  sides from {sides.min().min():.0f} to {sides.max().max():.0f} px")
    without_scale = intensity_problem(project, paths, facts)
    if without_scale is not None:
        bad.append(without_scale)
    return bad, without_scale is None


def _try_all(plan: Plan) -> list[str]:
    """Send a batch through every experiment that has a model."""
    experiments = {
        step.name: step.experiment
        for step in plan.steps
        if step.experiment is not None and step.kind.name != "ensemble"
    }
    if plan.project.fold_table.is_file() or not experiments:
        return _try_each(plan, experiments)
    try:
        with sampled(plan.project) as sample:
            logger.info(
                f"  (not preprocessed yet: tried with "
                f"{counted(len(read_train(sample)), 'labelled image')})"
            )
            few = {name: each.within(sample) for name, each in experiments.items()}
            return _try_each(plan, few)
    except FoldsmithError as error:
        logger.info("  not tried: a few of the images cannot be preprocessed")
        return str(error).splitlines()


def _try_each(plan: Plan, experiments: Mapping[str, Experiment]) -> list[str]:
    """Send a batch through experiments, and compare what they write with the disk."""
    problems: list[str] = []
    disk = 0
    for name, experiment in sorted(experiments.items()):
        try:
            frozen = experiment.globals.task == "frozen-features"
            tried = _with_weights(experiment, plan)
            trial = (_try_frozen if frozen else _try)(tried, plan.types)
        except FoldsmithError as error:
            problems += str(error).splitlines()
            logger.info(f"  {name}: fails")
            continue
        except Exception as error:  # whatever a model or loss of the project's own raises
            problems.append(
                f"{experiment.file}: one batch fails: {type(error).__name__}: {one_line(error)}"
            )
            logger.info(f"  {name}: fails")
            continue
        disk += trial.disk_bytes
        logger.info(f"  {name}: {trial.text}")
    folders = {step.folder for step in plan.steps if step.epochs}
    there = sum(file.stat().st_size for folder in folders for file in folder.glob("*.pth"))
    disk = max(0, disk - there)
    free = shutil.disk_usage(plan.project.folder).free
    logger.info(f"  the trainings may still write {size_text(disk)}; {size_text(free)} are free")
    if disk > free:
        problems.append(
            f"{plan.project.folder}: the trainings may write {size_text(disk)}, but "
            f"{size_text(free)} are free; make room, or raise globals/snapshot_interval"
        )
    return problems


def _with_weights(experiment: Experiment, plan: Plan) -> Experiment:
    """Return an experiment that begins with the weights that it names.

    Without those that a pretraining of the plan makes, which may not be there yet, or not as they
    will be.
    """
    model = experiment.tree["model"]
    named = model.get("pretrained") if isinstance(model, dict) else None
    if not isinstance(named, str):
        return experiment
    # Of the project, wherever the experiment is tried.
    path = plan.project.path(named)
    made = {plan.project.path(step.folder) for step in plan.steps if step.kind.name == "pretrain"}
    if is_reference(named) or path.parent in made or not path.is_file():
        return without_pretrained(experiment)
    return experiment.with_values({"model/pretrained": str(path)})


def _try(experiment: Experiment, types: Mapping[str, Callable[..., Any]]) -> _Trial:
    """Send one batch through an experiment: forward, loss, backward, optimizer step."""
    project, settings = experiment.project, experiment.globals
    runtime = create_runtime(settings)
    seed_everything(settings.seed)
    supervised = settings.task != "self-supervised"
    task = create_task(settings, project) if supervised else None
    store = PhotoStore(None, FileHashes(project.hash_store), project.intensity_range)
    context = Context(images=store, runtime=runtime, task=task)
    if task is None:
        parts = experiment.build(types, context)
    else:
        experiment = experiment.with_values({"globals/val_fold": 0})
        _, labels = read_labels(experiment, task)
        form = form_of(settings.target_scale, labels)[0] if task.learns_numbers else None
        fold = build_fold(experiment, types, context, task, form)
        parts, task = fold.components, fold.task
    model = runtime.place(parts["model"])
    loader, optimizer = parts["loader/train"], parts["optimizer"]
    step: TrainingStep
    if task is None:
        step = PretrainStep(model)
        if experiment.tree.get("probe"):
            parts["probe"]  # says what is wrong with its epochs
    else:
        check_outputs(experiment, model, parts["loader/val"], task, runtime)
        step = FineTuneStep(model, parts["loss"], task, None, settings.max_epoch, settings.seed)
    batch_size = loader.sampler.batch_size
    whole = runtime.device.type in WHOLE_BATCHES_ON
    # At least two: BatchNorm cannot train on one.
    photos = batch_size if whole else min(batch_size, _FEW_PHOTOS)
    started = time.perf_counter()
    advice = ""
    if whole:
        fits = fitting_batch(step, loader, optimizer, runtime, settings.grad_accum)
        photos = min(photos, fits)
        if fits < batch_size:
            batch, accum = propose_batch(batch_size, settings.grad_accum, fits)
            advice = (
                f"; batches of {batch_size} do not fit: try loader/train/batch_size={batch} "
                f"globals/grad_accum={accum}"
            )
    loss = train_one_batch(step, loader, optimizer, runtime, photos)
    seconds = time.perf_counter() - started
    weights = weight_bytes(model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    text = (
        f"{parameters / 1e6:.1f} M parameters, {photos} of {batch_size} photos in "
        f"{seconds:.1f} s, loss {loss:.3f}{advice}"
    )
    return _Trial(text, _disk_bytes(experiment, weights))


def _try_frozen(experiment: Experiment, types: Mapping[str, Callable[..., Any]]) -> _Trial:
    """Compute the features of a few photos, and build the head."""
    project = experiment.project
    runtime = create_runtime(experiment.globals)
    store = PhotoStore(None, FileHashes(project.hash_store), project.intensity_range)
    context = Context(images=store, runtime=runtime)
    experiment = experiment.with_values({"globals/val_fold": 0})
    parts = experiment.build(types, context)
    backbone = runtime.place(parts["model"]).eval()
    head, loader = head_of(experiment, types)[0], parts["loader/val"]
    started = time.perf_counter()
    keys = [(0, index) for index in range(min(_FEW_PHOTOS, len(loader.dataset)))]
    batch = runtime.transfer(loader.dataset.__getitems__(keys), loader.on_device)
    with torch.inference_mode(), runtime.autocast():
        features = backbone(batch.views[0])
    if features.shape[:-1] != (len(keys),):
        raise FoldsmithError(
            f"{experiment.file}: model: gives features of shape {tuple(features.shape[1:])} per "
            "photo, not one vector"
        )
    seconds = time.perf_counter() - started
    text = f"{features.shape[1]} features of {counted(len(keys), 'photo')} in {seconds:.1f} s"
    photos = sum(len(read(project)) for read in (read_train, read_test))
    return _Trial(f"{text}, {type(head).__name__}", photos * features.shape[1] * 4)


def _disk_bytes(experiment: Experiment, weights: int) -> int:
    """Return what an experiment writes at most, from the size of its weights."""
    settings = experiment.globals
    resume = resume_bytes(experiment, weights)
    if settings.task == "self-supervised":
        return kept_backbones(experiment) * weights + 2 * resume
    # Per fold three snapshots and their copies, while it is trained one more of each and the resume
    # one; if every epoch's are kept, these and a copy of the common one.
    every = settings.max_epoch + 1 if settings.snapshot_epochs == "all" else 0
    folds = experiment.project.n_splits
    return (6 + every) * folds * weights + 2 * weights + 2 * resume


def _check_leaks(plan: Plan) -> list[str]:
    """Return the fold tables that spread a group over several folds."""
    problems = []
    for table in plan.meta_files:
        try:
            groups = split_groups(plan.project, table)
        except FoldsmithError:
            continue  # not preprocessed yet
        if groups:
            problems.append(
                f"{table or plan.project.fold_table}: "
                f"{counted(len(groups), 'group is', 'groups are')} in more than one "
                f"fold, the first is {groups[0]}: scores will be too good"
            )
    return problems
