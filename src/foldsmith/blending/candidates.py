"""The blends that an ensemble compares with each other."""

import logging
from collections.abc import Sequence

from foldsmith.blending.base import Goal
from foldsmith.blending.calibration import CalibratedBlend
from foldsmith.blending.comparison import Candidate
from foldsmith.blending.methods import (
    COMPLEXITY,
    COMPLEXITY_OF_CALIBRATION,
    COMPLEXITY_OF_TASK_AVERAGE,
    STACK,
    average_blend,
    create_blend,
    with_fewer_trials,
)
from foldsmith.blending.stacks import without_stack
from foldsmith.config import BlendMethod, EnsembleSettings
from foldsmith.targets.tasks import short_names

logger = logging.getLogger(__name__)

# The plain mean of all members, which every other blend is compared with.
BASELINE = "avg-all"
OPTIMISED = "wopt-all"


def candidates_of(
    tasks: Sequence[str], settings: EnsembleSettings, goal: Goal, seed: int
) -> list[Candidate]:
    """Return the blends that an ensemble compares: averages, optimised weights and its methods.

    Args:
        tasks: Short name of each member's task.
        settings: The methods, and how the results are calibrated.
        goal: Objective of the blends.
        seed: Seed of Optuna and of the trees.
    """
    reason = without_stack(goal)
    if reason is not None and STACK in settings.methods:
        logger.info(f"note: {reason}")
        others = [method for method in settings.methods if method != STACK]
        settings = settings.model_copy(update={"methods": others})
    found = []
    for task in dict.fromkeys((*short_names(), *tasks)):
        of_task = [k for k, one in enumerate(tasks) if one == task]
        if of_task:
            blend = average_blend(f"avg-{task}", goal, of_task)
            found.append(Candidate(blend.name, blend, blend, COMPLEXITY_OF_TASK_AVERAGE))
    mean = average_blend(BASELINE, goal)
    found.append(Candidate(BASELINE, mean, mean, COMPLEXITY["mean"]))

    def candidate(name: str, method: BlendMethod) -> Candidate:
        blend, honest = create_blend(method, goal, settings, seed), None
        if method != "optuna":
            honest = blend
        elif "optuna" in settings.methods:
            honest = create_blend(method, goal, with_fewer_trials(settings), seed)
        return Candidate(name, blend, honest, COMPLEXITY[method])

    found.append(candidate(OPTIMISED, settings.method))
    # The best single member always: an ensemble has to be worth its while.
    for method in dict.fromkeys(("best", *settings.methods)):
        if method not in ("mean", settings.method):
            found.append(candidate(method, method))
    calibrate = settings.calibrate
    how = goal.metric.calibration if calibrate == "auto" else calibrate
    if how != "none":
        for method in dict.fromkeys(settings.methods):
            plain = create_blend(method, goal, settings, seed)
            # Searches take too long.
            if not plain.bends and method != "optuna":
                calibrated = CalibratedBlend(plain, how, goal)
                complexity = COMPLEXITY[method] + COMPLEXITY_OF_CALIBRATION
                found.append(Candidate(calibrated.name, calibrated, calibrated, complexity))
    return found
