"""The choices of a project's time plan, and estimates of its steps, from the record."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The record, in the project folder; :mod:`foldsmith.new.timing` writes it.
TIME_PLAN = "time_plan.json"


def planned_seconds(folder: Path) -> dict[str, float]:
    """Return name of a step's series, as in ``train 410`` -> estimated seconds of such a step.

    Empty without a plan. Estimates only: an experiment whose file was changed may take longer.
    """
    return _numbers(_read(folder), "seconds")


def planned_speeds(folder: Path) -> dict[str, float]:
    """Return the same -> images per second of such a training when the time was planned.

    Empty without a plan; without the trainings whose files were changed since.
    """
    plan = _read(folder)
    texts = plan.get("texts")
    found = {}
    for series, speed in _numbers(plan, "images_per_s").items():
        name = f"exp_config/{series.split()[-1]}.yml"
        try:
            if (folder / name).read_text(encoding="utf-8") == texts[name]:  # type: ignore[index]
                found[series] = speed
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


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
    content = _read(folder)
    try:
        return PlannedChoices(
            time=str(content["time"]),
            experiments=frozenset(Path(file).stem for file in content["texts"]),
            reasons={str(choice): str(reason) for choice, reason in content["why"].items()},
        )
    except (KeyError, TypeError, AttributeError):
        return None


def _read(folder: Path) -> dict[str, Any]:
    """Return the record of a plan; empty if there is none."""
    try:
        content = json.loads((folder / TIME_PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _numbers(plan: dict[str, Any], key: str) -> dict[str, float]:
    try:
        return {str(name): float(value) for name, value in plan[key].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
