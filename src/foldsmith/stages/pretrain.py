"""Stage 2: self-supervised pretraining on every photo."""

import re
import time
from collections.abc import Sequence
from pathlib import Path

from foldsmith.config import Experiment, Project
from foldsmith.config.difference import differing_keys
from foldsmith.config.yaml_io import read_yaml
from foldsmith.data.images import ImageStore
from foldsmith.errors import ConfigError, OutputError
from foldsmith.models.runtime import create_runtime, seed_everything
from foldsmith.models.weights import read_snapshot
from foldsmith.stages.output_folder import RESOLVED_CONFIG, claim, save_record, save_sources, shown
from foldsmith.stages.types import types_of
from foldsmith.training.loop import run_training
from foldsmith.training.steps import PretrainStep

FULL_SNAPSHOT = re.compile(r"snapshot_epoch_(\d+)\.pth")


def pretrain(
    project: Project,
    config: Path | str,
    overrides: Sequence[str] = (),
    force: bool = False,
    resume: bool = False,
) -> Path:
    """Pretrain a backbone on the train and test photos, without their labels.

    Writes into the output folder the log, plots, ``backbone_epoch_{n}.pth`` (weights that
    ``timm.create_model(name, num_classes=0)`` loads with ``strict=True``) and the newest
    ``snapshot_epoch_{n}.pth`` (everything needed to continue).

    Args:
        project: The project.
        config: Experiment file, relative to the project folder.
        overrides: ``PATH=VALUE`` each.
        force: Allow an existing output folder; it is emptied of snapshots first.
        resume: Continue from the newest full snapshot in the output folder. The result is
            that of a run which was never interrupted.

    Returns:
        The output folder.

    Raises:
        ConfigError: The experiment is wrong or no pretraining.
        OutputError: The output folder exists, or there is nothing to resume from.
        DataError: A table or photo is wrong.
    """
    started = time.perf_counter()
    experiment = Experiment.load(project, Path(config), overrides)
    settings = experiment.globals
    if settings.task != "self-supervised":
        raise ConfigError(
            f"{experiment.file}: globals/task is {settings.task}, not self-supervised; "
            f"run it with 'foldsmith {'ensemble' if settings.task == 'ensemble' else 'train'}'"
        )
    if settings.output_path is None:
        raise ConfigError(f"{experiment.file}: globals/output_path is missing")
    types = types_of(project)
    experiment.check(types)
    folder = project.path(settings.output_path)

    runtime = create_runtime(settings)
    seed_everything(settings.seed)
    built = experiment.with_values({"globals/output_path": str(folder)})
    context = {
        "project": project,
        "images": ImageStore(settings.image_cache_gb),
        "runtime": runtime,
        "task": None,
    }
    parts = built.build(types, context)
    # Every part is built before the folder is claimed: what is wrong leaves no trace.
    model = runtime.place(parts["model"])
    loader, optimizer, scheduler = parts["loader/train"], parts["optimizer"], parts["scheduler"]
    if resume:
        snapshot = _newest_snapshot(folder)
        _check_same(experiment, folder)
    else:
        claim(folder, force)
        for old in [*folder.glob("snapshot_epoch_*.pth"), *folder.glob("backbone_epoch_*.pth")]:
            old.unlink()
    manager = parts["manager"]
    for extension in parts["extensions"]:
        manager.extend(extension)
    save_sources(folder, experiment)
    if resume:
        manager.load_state_dict(read_snapshot(snapshot))
        print(f"resuming from {shown(snapshot)}")
    print(f"pretraining on {len(loader.dataset)} photos, {runtime.device}, {shown(folder)}")
    run_training(
        manager,
        PretrainStep(model),
        loader,
        optimizer,
        scheduler,
        runtime,
        settings.grad_accum,
        settings.seed,
    )
    save_record(
        folder,
        task=settings.task,
        seed=settings.seed,
        device=str(runtime.device),
        n_photos=len(loader.dataset),
        wall_s=time.perf_counter() - started,
    )
    print(f"wrote {shown(folder / f'backbone_epoch_{settings.max_epoch}.pth')}")
    return folder


def _newest_snapshot(folder: Path) -> Path:
    found = [
        (int(match[1]), path)
        for path in folder.glob("*.pth")
        if (match := FULL_SNAPSHOT.fullmatch(path.name))
    ]
    if not found:
        raise OutputError(f"{folder}: no snapshot_epoch_*.pth to resume from; leave out --resume")
    return max(found)[1]


def _check_same(experiment: Experiment, folder: Path) -> None:
    """Make sure that a run continues with the configuration it was started with."""
    differing = differing_keys(experiment.tree, read_yaml(folder / RESOLVED_CONFIG))
    # Without a schedule, more epochs are simply more of the same.
    if experiment.tree["scheduler"] is None:
        differing = [key for key in differing if key != "globals/max_epoch"]
    if differing:
        raise OutputError(
            f"{folder}: was started with other values of {', '.join(differing[:5])}; restore them "
            "to resume, or start anew with -f"
        )
