"""Everything that can be known to go wrong before the work starts."""

import logging
import platform
import shutil
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import cv2
import torch

from foldsmith import __version__
from foldsmith.config import Experiment
from foldsmith.config.references import is_reference
from foldsmith.data.statistics import intensity_problem, measured_images
from foldsmith.data.table_checks import split_groups, table_problems
from foldsmith.errors import FoldsmithError, one_line
from foldsmith.models.devices import has_bf16, kind_of_device
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import image_paths, read_test, read_train
from foldsmith.run.plan import plan_of, plan_of_all
from foldsmith.run.sample_project import sampled
from foldsmith.steps.base import Plan, Step
from foldsmith.steps.cost import ModelSize
from foldsmith.steps.inputs.shared import without_pretrained
from foldsmith.utils.formatting import counted, size_text
from foldsmith.utils.hashing import FileHashes
from foldsmith.utils.machine import cores_here, memory_here

logger = logging.getLogger(__name__)


def doctor(project: ProjectFolder, config: Path | str | None = None) -> list[str]:
    """Check the environment, the data and every experiment; print the findings.

    One batch of every experiment goes through its model, loss and backward pass; of frozen features
    through the backbone. A project that was not preprocessed yet is tried with a few of its
    images, which are preprocessed in a temporary folder. Nothing is written into the project but
    facts about files.

    Args:
        project: The project.
        config: Experiment file to check with its dependencies; None for all in ``exp_config``.

    Returns:
        The problems, one line each; empty if there are none.
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
        found, scaled = _check_images(project)
        problems += found
    except FoldsmithError:
        logger.info("  images: not looked at, the tables are wrong")
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


def _check_images(project: ProjectFolder) -> tuple[list[str], bool]:
    """Return the problems of the images, and whether deep images have a scale."""
    tables = [read_train(project, with_bad=True), read_test(project)]
    paths = image_paths(project, tables[0]) + image_paths(project, tables[1])
    hashes = FileHashes(project.hash_store)
    facts = measured_images(paths, hashes, intensity=project.intensity_range)
    hashes.save()
    bad = [
        problem
        for problem, unscaled in zip(facts.problems, facts.unscaled.tolist(), strict=True)
        if problem is not None and not unscaled
    ]
    sides = facts.table[["height", "width"]]
    logger.info(
        f"  {counted(len(tables[0]), 'labelled image')}, {len(tables[1])} to predict, "
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
    steps = {step.name: step for step in plan.steps if step.experiment is not None}
    if plan.project.fold_table.is_file() or not steps:
        return _try_each(plan, steps.values())
    try:
        with sampled(plan.project) as sample:
            logger.info(
                f"  (not preprocessed yet: tried with "
                f"{counted(len(read_train(sample)), 'labelled image')})"
            )
            few = [
                replace(step, experiment=step.experiment.within(sample))
                for step in steps.values()
                if step.experiment is not None
            ]
            return _try_each(plan, few)
    except FoldsmithError as error:
        logger.info("  not tried: a few of the images cannot be preprocessed")
        return str(error).splitlines()


def _try_each(plan: Plan, steps: Iterable[Step]) -> list[str]:
    """Send a batch through the models of steps, and compare the sizes of files with the disk."""
    problems: list[str] = []
    needed = 0
    for step in sorted(steps, key=lambda step: step.name):
        assert step.experiment is not None
        try:
            trial = step.kind.try_batch(_with_weights(step.experiment, plan), plan.types)
        except FoldsmithError as error:
            problems += str(error).splitlines()
            logger.info(f"  {step.name}: fails")
            continue
        except Exception as error:  # any error of a model or loss of the project's own
            problems.append(
                f"{step.experiment.file}: one batch fails: {type(error).__name__}: "
                f"{one_line(error)}"
            )
            logger.info(f"  {step.name}: fails")
            continue
        if trial is not None:
            needed += trial.other_bytes + _weights_of(plan, step.name, trial.size)
            logger.info(f"  {step.name}: {trial.text}")
    used = sum(file.stat().st_size for step in plan.steps for file in step.kind.weights(step))
    needed = max(0, needed - used)
    free = shutil.disk_usage(plan.project.folder).free
    logger.info(f"  the trainings may still write {size_text(needed)}; {size_text(free)} are free")
    if needed > free:
        problems.append(
            f"{plan.project.folder}: the trainings may write {size_text(needed)}, but "
            f"{size_text(free)} are free; make room, or raise globals/snapshot_interval"
        )
    return problems


def _weights_of(plan: Plan, name: str, size: ModelSize | None) -> int:
    """Return the most bytes of weights that the steps of an experiment need, one after another."""
    if size is None:
        return 0
    sizes = [
        step.kind.disk(step, size, plan.project.n_splits)
        for step in plan.steps
        if step.name == name
    ]
    return sum(kept for _, kept in sizes) + max(peak - kept for peak, kept in sizes)


def _with_weights(experiment: Experiment, plan: Plan) -> Experiment:
    """Return an experiment that begins with the weights that it names.

    Files that a pretraining of the plan makes are not included; they may be missing or old.
    """
    model = experiment.tree.get("model")
    named = model.get("pretrained") if isinstance(model, dict) else None
    if not isinstance(named, str):
        return experiment
    # Of the project, wherever the experiment is tried.
    path = plan.project.path(named)
    made = {plan.project.path(step.folder) for step in plan.steps if step.kind.gives_files}
    if is_reference(named) or path.parent in made or not path.is_file():
        return without_pretrained(experiment)
    return experiment.with_values({"model/pretrained": str(path)})


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
