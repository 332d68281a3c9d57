"""The blends that an ensemble file may name."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from foldsmith.blending.averaging import FittedMeanOfBlends
from foldsmith.blending.base import (
    Blend,
    FittedBlend,
    FittedConstant,
    FittedOnSome,
    FittedWeights,
    Goal,
    Rows,
    ScreenedBlend,
    WeightedBlend,
)
from foldsmith.blending.calibration import FittedCurve, FittedCurves, FittedDecisions
from foldsmith.blending.column_stacking import FittedStackedColumns, goals_of_columns, parts_of
from foldsmith.blending.greedy import greedy_weights
from foldsmith.blending.label_stacking import FittedStackedLabels
from foldsmith.blending.stacking import FittedStack
from foldsmith.blending.stacks import stack_of
from foldsmith.blending.weights import (
    best_member_weights,
    box_weights,
    equal_weights,
    nnls_weights,
    ridge_weights,
    search_weights,
    simplex_weights,
)
from foldsmith.config import BlendMethod, EnsembleSettings
from foldsmith.models.fitted_arrays import Arrays, part
from foldsmith.targets.decisions import DECIDERS
from foldsmith.targets.metric import Metric

Array = npt.NDArray[np.float64]

# Blends with the lowest squared error; of the others, those that need a search follow the metric.
LEAST_SQUARES: tuple[BlendMethod, ...] = ("box", "simplex", "nnls", "ridge")
FOLLOWING: tuple[BlendMethod, ...] = ("best", "greedy", "optuna")
# A model over the predictions of the members, and the facts of each image.
STACK: BlendMethod = "stack"

# How much a blend has to be fitted; of blends that are alike the simpler ones are preferred. A
# plain mean takes nothing from the targets (but which members are worse than the constant), a
# single member one choice. Weights that sum to 1 are fewer and safer than free ones; a calibration
# adds a curve, a stack grows trees.
COMPLEXITY: dict[BlendMethod, int] = {
    "mean": 0,
    "best": 2,
    "simplex": 3,
    "greedy": 3,
    "ridge": 3,
    "nnls": 4,
    "box": 4,
    "optuna": 4,
    "stack": 20,
}
COMPLEXITY_OF_CONSTANT = -1
COMPLEXITY_OF_TASK_AVERAGE = 1
# Added to the complexity of the calibrated blend.
COMPLEXITY_OF_CALIBRATION = 10

# A cross-fitted search is repeated for every fold: each takes one in so many of the trials.
_CROSS_FITTED_SHARE = 10


def average_blend(name: str, goal: Goal, members: Iterable[int] | None = None) -> Blend:
    """Return the plain average of the members at some positions; None for all.

    Members that are worse than the constant are left out.
    """

    def choose(rows: Rows, targets: Array) -> Array:
        return equal_weights(len(rows.predictions))

    chosen = None if members is None else tuple(members)
    return ScreenedBlend(WeightedBlend(name, goal, choose, fixed=True), goal, chosen)


def create_blend(method: BlendMethod, goal: Goal, settings: EnsembleSettings, seed: int) -> Blend:
    """Return the blend of one name; members that are worse than the constant get no say.

    ``box``, ``simplex``, ``nnls`` and ``ridge`` have the lowest squared error, of probabilities
    that to 0 and 1 (Brier's score), whatever the metric; ``best``, ``greedy`` and ``optuna``
    follow the metric.

    Args:
        method: Its name.
        goal: Objective of the blend.
        settings: Trials and step of Optuna.
        seed: Seed of Optuna and of the trees.
    """
    if method == STACK:
        return ScreenedBlend(stack_of(method, goal, seed), goal)

    def choose(rows: Rows, targets: Array) -> Array:
        predictions, of_rows = rows.predictions, rows.weights
        origin, _ = goal.scale_of(targets, of_rows)
        flat, wanted, bounds = goal.entries(predictions, targets, of_rows)
        match method:
            case "mean":
                return equal_weights(len(predictions))
            case "best":
                return best_member_weights(predictions, targets, goal.metric, of_rows)
            case "box":
                return box_weights(flat, wanted, bounds)
            case "simplex":
                return simplex_weights(flat, wanted)
            case "nnls":
                return nnls_weights(flat, wanted)
            case "ridge":
                return ridge_weights(flat, wanted)
            case "greedy":
                return greedy_weights(
                    *(predictions, targets, goal.bounds, goal.metric),
                    sum_to_1=goal.form.sum_to_1,
                    sample_weight=of_rows,
                )
            case _:
                return search_weights(
                    predictions,
                    targets,
                    goal.bounds,
                    settings.n_trials,
                    settings.weight_step,
                    seed,
                    goal.metric,
                    origin,
                    goal.form.sum_to_1,
                    of_rows,
                )

    return ScreenedBlend(WeightedBlend(method, goal, choose), goal)


def how_optimised(methods: Iterable[BlendMethod], metric: Metric) -> str:
    """Return how the weights of blends are chosen for a metric, for people.

    Args:
        methods: Their names.
        metric: The metric.
    """
    used = list(dict.fromkeys(methods))
    squares = ", ".join(name for name in LEAST_SQUARES if name in used)
    search = ", ".join(name for name in FOLLOWING if name in used)
    error = "squared error" + (" of the probabilities" if metric.takes_probabilities else "")
    how = "which is best for" if metric.least_squares else "a stand-in for"
    said = {
        squares: f"{squares}: the lowest {error}, {how} {metric.title}",
        search: f"{search}: a search by {metric.title} itself",
    }
    return "; ".join(text for names, text in said.items() if names)


def restore_blend(arrays: Arrays, goal: Goal) -> FittedBlend:
    """Return the fitted blend that gave these arrays, whatever it is.

    Args:
        arrays: Result of its ``arrays``.
        goal: Objective of the blend.
    """
    if "n_blends" in arrays:
        parts = (part(arrays, str(k)) for k in range(int(arrays["n_blends"])))
        return FittedMeanOfBlends(tuple(restore_blend(one, goal) for one in parts))
    if "constant" in arrays:
        return FittedConstant(arrays["constant"])
    if "members" in arrays:
        blend = restore_blend(part(arrays, "some"), goal)
        return FittedOnSome(blend, arrays["members"].astype(np.bool_))
    if "weights" in arrays:
        origin = arrays["origin"] if arrays["origin"].ndim else float(arrays["origin"])
        return FittedWeights(arrays["weights"], goal.bounds, origin, goal.form.sum_to_1)
    if "label_weights" in arrays:
        return FittedStackedLabels.restore(arrays)
    for decider in DECIDERS:
        if decider.key in arrays:
            blend = restore_blend(part(arrays, "blend"), goal)
            return FittedDecisions(blend, decider, arrays[decider.key], goal.metric)
    if "n_columns" in arrays:
        parts_and_goals = zip(parts_of(arrays), goals_of_columns(goal), strict=True)
        return FittedStackedColumns(tuple(restore_blend(*each) for each in parts_and_goals))
    if "n_curves" in arrays:
        return FittedCurves.restore(restore_blend(part(arrays, "blend"), goal), arrays)
    if "before" in arrays:
        blend = restore_blend(part(arrays, "blend"), goal)
        return FittedCurve(blend, arrays["before"], arrays["after"])
    return FittedStack.restore(arrays, goal)


def with_fewer_trials(settings: EnsembleSettings) -> EnsembleSettings:
    """Return the settings of a search that is repeated for every fold."""
    return settings.model_copy(
        update={"n_trials": max(1, settings.n_trials // _CROSS_FITTED_SHARE)}
    )
