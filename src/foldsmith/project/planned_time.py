"""The choices of a project's time plan and the estimated seconds of its steps, from the record."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class PlannedChoices:
    """The choices of a time plan.

    Attributes:
        time: The time, as in ``15m``.
        experiments: Names of the planned experiments, as in ``410``.
        reasons: Each choice, as in ``pretraining none`` -> its reason.
    """

    time: str
    experiments: frozenset[str]
    reasons: Mapping[str, str]


def planned_choices(folder: Path) -> PlannedChoices | None:
    """Return the choices of the time plan of a project; None without a plan."""
    try:
        content = json.loads((folder / TIME_PLAN).read_text(encoding="utf-8"))
        return PlannedChoices(
            time=str(content["time"]),
            experiments=frozenset(Path(file).stem for file in content["texts"]),
            reasons={str(choice): str(reason) for choice, reason in content["why"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
