"""Speeds that ``new`` plans with in tests: to measure them trains for seconds each time."""

from collections.abc import Sequence

from foldsmith.new.timing import planned
from foldsmith.new.timing.facts import Facts, MachineSpeeds, Speed
from foldsmith.new.timing.rule import levels_of
from foldsmith.project import ProjectFolder

# The variable with which a command line of ``warm`` measures all the same.
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
