"""The status of a project."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from foldsmith.project import ProjectFolder
from foldsmith.run.plan import plan_of, plan_of_all
from foldsmith.run.state import speeds_of, states_of
from foldsmith.run.table import plan_table
from foldsmith.steps.base import Plan
from foldsmith.utils.hashing import FileHashes


def status(
    project: ProjectFolder, config: Path | str | None = None, overrides: Sequence[str] = ()
) -> str:
    """Return a table of the steps of one experiment, or of all in ``exp_config``.

    Reads only; it may be asked at any time, also while another process runs.

    Args:
        project: The project.
        config: Experiment file; None for all.
        overrides: As those of :func:`foldsmith.run.engine`.

    Raises:
        ConfigError: An experiment is wrong.
    """
    plan = _plan(project, config, overrides)
    return plan_table(plan, states_of(plan, FileHashes(project.hash_store)), speeds_of(plan))


def status_frame(
    project: ProjectFolder, config: Path | str | None = None, overrides: Sequence[str] = ()
) -> pd.DataFrame:
    """Return what :func:`status` says as a frame, a row per step.

    Columns: step, kind, experiment, fold, status, why, epochs_left, seconds_left (missing
    where nothing like it was measured).
    """
    plan = _plan(project, config, overrides)
    states, speeds = states_of(plan, FileHashes(project.hash_store)), speeds_of(plan)
    rows = [
        {
            "step": step.label,
            "kind": step.kind.name,
            "experiment": step.name,
            "fold": step.fold,
            "status": states[step.label].status.value,
            "why": states[step.label].why,
            "epochs_left": states[step.label].epochs_left,
            "seconds_left": speeds.left(step, states[step.label]),
        }
        for step in plan.steps
    ]
    return pd.DataFrame(rows).astype({"fold": "Int64", "seconds_left": "Float64"})


def _plan(project: ProjectFolder, config: Path | str | None, overrides: Sequence[str]) -> Plan:
    return plan_of_all(project) if config is None else plan_of(project, config, overrides)
