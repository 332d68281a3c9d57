"""Doing one step, whichever process does it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from foldsmith.config.settings import FINE_TUNINGS
from foldsmith.errors import OutputError
from foldsmith.project import ProjectFolder
from foldsmith.run.plan import Plan, Step
from foldsmith.run.state import StepState, manifest_path, state_of_step
from foldsmith.steps.ensemble import ensemble_experiment
from foldsmith.steps.features import fit_experiment
from foldsmith.steps.infer import infer_experiment, tidy_inference
from foldsmith.steps.output_folder import Start, tidy
from foldsmith.steps.preprocess import preprocess
from foldsmith.steps.pretrain import pretrain_experiment
from foldsmith.steps.train import train_folds
from foldsmith.training.epoch_report import EpochReport
from foldsmith.utils.hashing import FileHashes


@dataclass(frozen=True)
class Options:
    """How steps are done.

    Attributes:
        skip_bad: Leave out photos that cannot be read.
        keep_snapshots: Keep the snapshots of trainings after their inference.
    """

    skip_bad: bool = False
    keep_snapshots: bool = False


def execute(
    step: Step,
    plan: Plan,
    state: StepState,
    options: Options,
    listen: Callable[[EpochReport], None],
) -> None:
    """Do a step that is not done; a training goes on where it was stopped.

    Args:
        step: The step.
        plan: Its plan; preprocessing decodes the photos of all its trainings.
        state: How far the step is.
        options: How it is done.
        listen: Called after each epoch.

    Raises:
        FoldsmithError: The step cannot be done.
    """
    if step.kind == "preprocess" or step.experiment is None:
        if "was changed" in state.why:
            raise OutputError(
                f"{step.folder}: {state.why} since preprocess wrote it; keep it under another "
                "name (globals/meta_file names a fold table), or run 'foldsmith preprocess' "
                "to have it made again"
            )
        trained = [other.experiment for other in plan.steps if other.epochs and other.experiment]
        preprocess(plan.project, options.skip_bad, trained)
    elif step.kind == "pretrain":
        pretrain_experiment(step.experiment, _start(state), listen)
    elif step.kind == "train":
        train_folds(step.experiment, [step.fold or 0], _start(state), listen)
    elif step.experiment.globals.task == "frozen-features":
        fit_experiment(step.experiment, "auto")
    elif step.kind == "infer":
        infer_experiment(step.experiment, step.folder, step.criterion, options.keep_snapshots)
    else:
        ensemble_experiment(step.experiment, force=True)


def execute_alone(
    step: Step, plan: Plan, options: Options, listen: Callable[[EpochReport], None]
) -> StepState:
    """Do a step in a process of its own, unless it is done; returns its state afterwards.

    Args:
        step: The step.
        plan: Its plan.
        options: How it is done.
        listen: Called after each epoch.

    Raises:
        FoldsmithError: The step cannot be done.
    """
    hashes = FileHashes(plan.project.hash_store)
    state = state_of_step(step, plan, hashes, ())
    hashes.save()
    if state.status == "done":
        tidy_step(step, plan.project)
        return state
    refuse_running(step, state)
    execute(step, plan, state, options, listen)
    return state_of_step(step, plan, FileHashes(plan.project.hash_store), ())


def held_by(step: Step, project: ProjectFolder) -> list[Path]:
    """Return the folders that a step locks while it runs (:mod:`foldsmith.utils.locking`)."""
    if step.kind == "preprocess" or step.experiment is None:
        return [manifest_path(step)]
    if step.kind == "infer" and step.experiment.globals.task in FINE_TUNINGS:
        folds = [step.folder / f"fold{fold}" for fold in range(project.n_splits)]
        return [step.folder, *folds]
    return [step.folder]


def refuse_running(step: Step, state: StepState) -> None:
    """Make sure that no other process is at a step.

    Raises:
        OutputError: One is.
    """
    if state.status == "running":
        raise OutputError(
            f"{step.folder}: another process is at '{step.label}' ({state.why}); wait for it "
            "to end, or stop it"
        )


def tidy_step(step: Step, project: ProjectFolder) -> None:
    """Do what a step that is done was killed before doing: remove what nobody needs."""
    if step.epochs:
        tidy(step.folder, keep_resume=step.kind == "pretrain")
    elif step.kind == "infer":
        tidy_inference(step.folder, step.criterion, project.n_splits)


def _start(state: StepState) -> Start:
    """Return how a training begins: a finished one whose files are gone is made anew."""
    return "force" if state.status == "stale" else "auto"
