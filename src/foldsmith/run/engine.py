"""Run the steps that are missing or stale."""

import importlib.util
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Literal

from foldsmith.data.table_checks import check_tables
from foldsmith.errors import ConfigError, TrainingError
from foldsmith.project import ProjectFolder
from foldsmith.run.execute import refuse_running, run_step
from foldsmith.run.live import RunView, run_view
from foldsmith.run.parallel_engine import run_side_by_side
from foldsmith.run.plan import plan_of, select
from foldsmith.run.run_state import RunState
from foldsmith.run.slots import slots_for
from foldsmith.run.table import duration
from foldsmith.steps.base import Options, Step
from foldsmith.steps.trial_build import trial_problems
from foldsmith.training.epoch_report import EpochReport
from foldsmith.utils.optional_packages import install_command
from foldsmith.utils.progress_bars import Bar, progress_bar

logger = logging.getLogger(__name__)

# The engine of a run: this machine (steps one after another, or side by side in slots), or Ray.
Engine = Literal["local", "ray"]


def run(
    project: ProjectFolder,
    config: Path | str,
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
    until: str | None = None,
    skip_bad: bool = False,
    keep_snapshots: bool = False,
    engine: Engine = "local",
    address: str | None = None,
    on_blend: Callable[[], None] | None = None,
) -> None:
    """Run every step that an experiment needs and that is not done, in order.

    It may be killed at any moment and started again: it continues after the last finished epoch,
    and the results are those of a run which was never interrupted.

    Args:
        project: The project.
        config: Experiment file of any kind, relative to the project folder.
        overrides: ``PATH=VALUE`` for this file, ``NAMES:PATH=VALUE`` for others, as in
            ``1*:globals/max_epoch=2``.
        only: Names of the experiments to run, as in ``100``; all if empty.
        until: Last kind of step; all if None.
        skip_bad: Leave out images that cannot be read.
        keep_snapshots: Keep the snapshots of trainings after their inference.
        engine: ``local``, this machine: one step after the other; if it has several GPUs, one on
            each; without GPUs, as many at once as its cores suffice for, if experiments set
            ``globals/threads``. Or ``ray``: several steps at once, on a cluster too.
        address: Address of a Ray cluster, or ``auto`` for the one of this machine; None starts
            Ray here and stops it at the end. On a cluster the run belongs to the cluster: if
            this call is interrupted it goes on, and the same call attaches to it.
        on_blend: Called when the members that are finished so far were blended
            (``ensemble/anytime``), here or side by side.

    Raises:
        ConfigError: An experiment is wrong, a step that is left out is not done, or a step asks
            for more than any node of the cluster has.
        DataError: A table or image is wrong.
        OutputError: Another process runs a step, or a file that foldsmith made was changed.
        TrainingError: Trainings have failed; everything that does not need them has been run.
    """
    if address is not None and engine != "ray":
        raise ConfigError("an address is one of Ray: it needs the engine ray (--engine ray)")
    plan = plan_of(project, config, overrides)
    check_tables(project, plan.meta_files)
    options = Options(skip_bad, keep_snapshots)
    run_state = RunState(plan, select(plan, only, until), options, on_blend)
    _check_components(run_state)
    on_ray = _ray_engine() if engine == "ray" else None
    if on_ray is not None and run_state.to_do():
        asked = (tuple(overrides), tuple(only), until, skip_bad, keep_snapshots)
        on_ray.run_on_ray(run_state, project.path(config), asked, address)
    else:
        run_state.open()
        slots = slots_for(run_state.to_do())
        with run_view(run_state.chosen, run_state.states, run_state.speeds) as view:
            if slots is not None:
                run_side_by_side(run_state, view, slots)
            else:
                _run_here(run_state, view)
    run_state.close()


def stop(project: ProjectFolder, config: Path | str, address: str) -> None:
    """Stop a run that goes on at a Ray cluster; every finished epoch is kept.

    Args:
        project: The project.
        config: Experiment file that is run.
        address: Address of the cluster.

    Raises:
        ConfigError: There is no cluster, or no such run.
    """
    _ray_engine().stop_on_ray(project, project.path(config), address)


def _check_components(run_state: RunState) -> None:
    """Build the components that need no data, of every experiment, before the first one starts.

    Raises:
        ConfigError: One line per problem.
    """
    experiments = {
        step.experiment.file: step.experiment
        for step in run_state.to_do()
        if step.experiment is not None
    }
    problems = [
        problem
        for experiment in experiments.values()
        for problem in trial_problems(experiment, run_state.plan.types)
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def _ray_engine() -> ModuleType:
    """Return the module that needs Ray, which need not be installed."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(f"--engine ray needs Ray; run: {install_command('ray')}")
    return importlib.import_module("foldsmith.extras.ray.engine")


def _run_here(run_state: RunState, view: RunView) -> None:
    """Do the steps in this process, one after the other."""
    bar = progress_bar(label="whole run", total=0, unit="epoch", timed=False)
    with bar:
        for step in run_state.chosen.steps:
            _do(step, run_state, bar, view)


def _do(step: Step, run_state: RunState, bar: Bar, view: RunView) -> None:
    before = run_state.to_run(step)
    if before is None:
        return
    refuse_running(step, before)
    run_state.blend_so_far()
    head = run_state.head(step)
    left = run_state.seconds_left()
    rest = f" (whole run: about {duration(left)} left)" if left else ""
    logger.info("")
    logger.info(f"{head}: {before.why or before.status}{rest}")
    bar.total = bar.n + run_state.epochs_left()
    about_left = f"about {duration(left)} left; " if left else ""
    bar.note = f"{about_left}now {head}"

    def listen(report: EpochReport) -> None:
        run_state.epoch(step, report)
        left = f"about {duration(run_state.seconds_left())} left"
        bar.note = f"{left}; now {head}, epoch {report.epoch}/{report.max_epoch}"
        bar.update(1)
        view.epoch(step, report)

    view.begin(step)
    try:
        run_step(step, run_state.plan, before, run_state.options, listen)
    except TrainingError as error:
        # The other trainings may succeed; this error is printed again at the end.
        logger.error(str(error))
        run_state.failed[step.label] = str(error)
        view.end(step, failed=True)
        return
    run_state.look_at(step)
    view.end(step)
