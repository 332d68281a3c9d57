"""Doing one step, whichever process does it."""

from collections.abc import Callable
from contextlib import nullcontext

from foldsmith.errors import OutputError
from foldsmith.models.threads import threads_of
from foldsmith.run.state import state_of_step
from foldsmith.steps.base import Options, Plan, Step
from foldsmith.steps.status import Status, StepState
from foldsmith.training.epoch_report import EpochReport
from foldsmith.utils.hashing import FileHashes


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
    if state.is_done:
        step.kind.tidy(step, plan.project)
        return state
    refuse_running(step, state)
    run_step(step, plan, state, options, listen)
    return state_of_step(step, plan, FileHashes(plan.project.hash_store), ())


def run_step(
    step: Step,
    plan: Plan,
    state: StepState,
    options: Options,
    listen: Callable[[EpochReport], None],
) -> None:
    """Run a step that is not done with the threads of its experiment, if it computes.

    Args:
        step: The step.
        plan: Its plan.
        state: Its state.
        options: How it is done.
        listen: Called after each epoch.

    Raises:
        FoldsmithError: The step failed.
    """
    experiment = step.experiment if step.kind.computes else None
    # A project's own kind does not set the threads itself, as the package's commands do.
    with threads_of(experiment.globals) if experiment else nullcontext():
        step.kind.run(step, plan, state, options, listen)


def refuse_running(step: Step, state: StepState) -> None:
    """Make sure that no other process runs a step.

    Raises:
        OutputError: One is.
    """
    if state.status == Status.RUNNING:
        raise OutputError(
            f"{step.folder}: another process is at '{step.label}' ({state.why}); wait for it "
            "to end, or stop it"
        )
