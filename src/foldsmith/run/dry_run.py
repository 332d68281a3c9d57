"""The table of the steps that a run would run."""

from collections.abc import Sequence
from pathlib import Path

from foldsmith.data.table_checks import check_tables
from foldsmith.project import ProjectFolder
from foldsmith.run.plan import plan_of, select
from foldsmith.run.state import speeds_of, states_of
from foldsmith.run.table import plan_table
from foldsmith.utils.hashing import FileHashes


def dry_run(
    project: ProjectFolder,
    config: Path | str,
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
    until: str | None = None,
) -> str:
    """Return the table of the steps that :func:`foldsmith.run.engine.run` would run.

    The time of steps that were never measured is estimated from a few passes of each model.

    Raises:
        ConfigError: An experiment is wrong.
        DataError: One line per problem of the tables.
    """
    plan = plan_of(project, config, overrides)
    check_tables(project, plan.meta_files, try_split=False)
    states = states_of(plan, FileHashes(project.hash_store))
    if any(step.experiment is None and not states[step.label].is_done for step in plan.steps):
        # The folds are still to be made, by scikit-learn, which takes a second to import.
        check_tables(project, plan.meta_files)
    chosen, speeds = select(plan, only, until), speeds_of(plan)
    unknown = [step for step in chosen.steps if speeds.measured(step, states[step.label]) is None]
    if unknown:
        from foldsmith.run.durations import seconds_here  # builds models, with torch

        speeds.estimated = seconds_here(plan, unknown, states)
    return plan_table(chosen, states, speeds)
