"""The estimated seconds of a project's steps, from the record of its time plan."""

import json
from pathlib import Path

# The record, in the project folder; :mod:`foldsmith.new.timing` writes it.
TIME_PLAN = "time_plan.json"


def planned_seconds(folder: Path) -> dict[str, float]:
    """Return name of a step's series, as in ``train 410`` -> estimated seconds of such a step.

    Empty without a plan. Estimates only: an experiment whose file was changed may take longer.
    """
    try:
        content = json.loads((folder / TIME_PLAN).read_text(encoding="utf-8"))
        return {str(name): float(seconds) for name, seconds in content["seconds"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
