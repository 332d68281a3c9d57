"""Speeds that ``new`` plans with in tests: to measure them trains for seconds each time.

Tests of the measurement itself measure for a moment.
"""

from collections.abc import Sequence

import pytest

from foldsmith.new.timing import measure, planned, untrained
from foldsmith.new.timing.facts import Facts, MachineSpeeds, Speed
from foldsmith.new.timing.rule import levels_of
from foldsmith.project import ProjectFolder

# The variable with which a command line of ``warm`` measures all the same, for a moment.
MEASURE = "FOLDSMITH_TESTS_MEASURE"


def given_speeds(
    project: ProjectFolder, facts: Facts, fine_tuning: str, untrained: Sequence[str], time_s: float
) -> MachineSpeeds:
    """Return speeds of a machine with the levels of the real one."""
    levels = {level.name: Speed(400.0, 200.0) for level in levels_of(facts, time_s)}
    n_members = len(facts.untrained)
    fits = (0.02 * (facts.n_train + facts.n_test) / n_members + 1.0,) * n_members
    return MachineSpeeds(levels, 0.01, fits, 8.0, 0.2, 5.0, 1.0, 20.0)


def give_speeds() -> None:
    """Let ``new`` plan with these speeds in this process from now on."""
    planned.measured_speeds = given_speeds


# Seconds for which something is timed.
TIMED = (
    (measure, "_TIMED_S"),
    (measure, "_WATCHED_S"),
    (untrained, "_HEAD_S"),
    (untrained, "_LEARN_S"),
)


def measure_for_a_moment(patch: pytest.MonkeyPatch) -> None:
    """Let measurements of this process take a few batches each: none needs to be exact."""
    for module, name in TIMED:
        patch.setattr(module, name, 0.02)
