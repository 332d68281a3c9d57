"""What of a project is done."""

from collections.abc import Sequence
from pathlib import Path

from foldsmith.config import Project
from foldsmith.hashing import FileHashes
from foldsmith.pipeline.plan import plan_of, plan_of_all
from foldsmith.pipeline.state import speeds_of, states_of
from foldsmith.pipeline.table import plan_table


def status(
    project: Project, config: Path | str | None = None, overrides: Sequence[str] = ()
) -> str:
    """Return a table of the steps of one experiment, or of all in ``exp_config``.

    Reads only; it may be asked at any time, also while another process runs.

    Args:
        project: The project.
        config: Experiment file; None for all.
        overrides: As those of :func:`foldsmith.pipeline.run`.

    Raises:
        ConfigError: An experiment is wrong.
    """
    plan = plan_of_all(project) if config is None else plan_of(project, config, overrides)
    return plan_table(plan, states_of(plan, FileHashes(project.hash_store)), speeds_of(plan))
