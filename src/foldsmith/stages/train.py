"""Stage 3: K-fold fine-tuning."""

import gc
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from foldsmith.config import Experiment, Parts, Project
from foldsmith.data.datasets import PhotoDataset
from foldsmith.data.images import ImageStore
from foldsmith.data.tables import FOLD_COLUMN, hash_columns, read_folds, targets_of
from foldsmith.errors import ConfigError, one_line
from foldsmith.models.runtime import Runtime, create_runtime, seed_everything
from foldsmith.stages.output_folder import claim, save_record, save_sources, shown
from foldsmith.stages.types import types_of
from foldsmith.tasks.task import Task, create_task
from foldsmith.training.loop import run_training
from foldsmith.training.steps import FineTuneStep


def train(
    project: Project,
    config: Path | str,
    overrides: Sequence[str] = (),
    folds: Sequence[int] | None = None,
    force: bool = False,
) -> Path:
    """Fine-tune one model per fold, each validated on the fold it does not see.

    Writes into ``{output_root}/fold{k}`` the log, plots, and snapshots of the model at the
    lowest validation metric, at the lowest validation loss and after the last epoch.

    Args:
        project: The project.
        config: Experiment file, relative to the project folder.
        overrides: ``PATH=VALUE`` each.
        folds: Folds to train; all, or those of ``globals/val_fold``, if None.
        force: Allow an existing output folder; the chosen folds are trained anew.

    Returns:
        The output folder of the experiment.

    Raises:
        ConfigError: The experiment is wrong or no fine-tuning, or a fold does not exist.
        OutputError: The output folder exists.
        DataError: A table or photo is wrong.
    """
    experiment = Experiment.load(project, Path(config), overrides)
    settings = experiment.globals
    if settings.task not in ("multi-class", "regression"):
        stage = "pretrain" if settings.task == "self-supervised" else settings.task
        raise ConfigError(
            f"{experiment.file}: globals/task is {settings.task}; run it with 'foldsmith {stage}'"
        )
    if settings.output_root is None:
        raise ConfigError(f"{experiment.file}: globals/output_root is missing")
    types = types_of(project)
    experiment.check(types)
    chosen = _chosen_folds(project, settings.val_fold if folds is None else list(folds))
    table = read_folds(project, settings.meta_file)
    task = create_task(settings.task, project)
    task.check(targets_of(project, table))
    runtime = create_runtime(settings)
    images = ImageStore(settings.image_cache_gb)

    context = {"project": project, "images": images, "runtime": runtime, "task": task}
    root = project.path(settings.output_root)
    columns = [project.settings.id_column, FOLD_COLUMN]
    for fold in chosen:
        started = time.perf_counter()
        folder = root / f"fold{fold}"
        seed_everything(settings.seed)
        of_fold = experiment.with_values(
            {"globals/val_fold": fold, "globals/output_path": f"{settings.output_root}/fold{fold}"}
        )
        parts = of_fold.with_values({"globals/output_path": str(folder)}).build(types, context)
        model = runtime.place(parts["model"])
        if fold == chosen[0]:
            # What is wrong with the parts shows before anything is created or replaced.
            _check_outputs(experiment, model, parts["loader/val"].dataset, task, runtime)
            claim(root, force)
            _remove_stale(root, chosen)
            save_sources(root, experiment)
        print(f"fold {fold}: {settings.task}, {runtime.device}, {shown(folder)}", flush=True)
        folder.mkdir()
        save_sources(folder, of_fold)
        _train_fold(of_fold, parts, model, task, runtime)
        # The manager and its extensions refer to each other: free the models and workers now.
        del parts, model
        gc.collect()
        save_record(
            folder,
            task=settings.task,
            seed=settings.seed,
            device=str(runtime.device),
            folds_sha256=hash_columns(table, columns),
            wall_s=time.perf_counter() - started,
        )
    return root


def _train_fold(
    experiment: Experiment, parts: Parts, model: nn.Module, task: Task, runtime: Runtime
) -> None:
    settings = experiment.globals
    mixup = parts["dataset/mixup"] if "mixup" in experiment.tree["dataset"] else None
    manager = parts["manager"]
    for extension in [parts["eval"], *parts["extensions"]]:
        manager.extend(extension)
    step = FineTuneStep(model, parts["loss"], task, mixup, settings.max_epoch, settings.seed)
    run_training(
        manager,
        step,
        parts["loader/train"],
        parts["optimizer"],
        parts["scheduler"],
        runtime,
        settings.grad_accum,
        settings.seed,
    )


@torch.inference_mode()
def _check_outputs(
    experiment: Experiment, model: nn.Module, dataset: PhotoDataset, task: Task, runtime: Runtime
) -> None:
    """Pass one photo through the model and make sure that it gives what the task needs."""
    images = runtime.transfer(dataset[0, 0]).views[0]
    try:
        with runtime.autocast():
            shape = tuple(model.eval()(images).shape)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(
            f"{experiment.file}: model: cannot take photos of shape {tuple(images.shape[1:])}: "
            f"{one_line(error)[:200]}"
        ) from error
    if shape != (1, task.n_outputs):
        raise ConfigError(
            f"{experiment.file}: model: gives outputs of shape {shape[1:]}, but the task "
            f"{task.name} needs ({task.n_outputs},); set model/dims_head=[null, {task.n_outputs}]"
        )


def _chosen_folds(project: Project, wanted: int | list[int] | None) -> list[int]:
    if wanted is None:
        return list(range(project.n_splits))
    folds = sorted(set([wanted] if isinstance(wanted, int) else wanted))
    wrong = [fold for fold in folds if not 0 <= fold < project.n_splits]
    if wrong or not folds:
        raise ConfigError(f"fold {wrong or 'list'}: the folds are 0 to {project.n_splits - 1}")
    return folds


def _remove_stale(root: Path, folds: list[int]) -> None:
    """Remove the folds that are trained anew and everything inferred from the old ones."""
    for fold in folds:
        if (root / f"fold{fold}").exists():
            shutil.rmtree(root / f"fold{fold}")
        for copy in root.glob(f"*_model_fold{fold}.pth"):
            copy.unlink()
    for result in root.glob("*_by_*"):
        result.unlink()
