"""The blends that an ensemble file may name."""

import numpy as np
import numpy.typing as npt

from foldsmith.blending.base import Blend, FittedBlend, FittedWeights, Goal, WeightedBlend
from foldsmith.blending.calibration import FittedCurve, FittedThresholds
from foldsmith.blending.greedy import greedy_weights
from foldsmith.blending.stacking import FittedTrees, StackedTrees
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
from foldsmith.models.arrays import Arrays, part

Array = npt.NDArray[np.float64]

# A cross-fitted search is repeated for every fold: each takes one in so many of the trials.
_CROSS_FITTED_SHARE = 10


def fixed_blend(name: str, weights: Array, goal: Goal) -> Blend:
    """Return a blend of weights that are given, shape (n_members,)."""
    return WeightedBlend(name, goal, lambda predictions, targets: weights)


def create_blend(method: BlendMethod, goal: Goal, settings: EnsembleSettings, seed: int) -> Blend:
    """Return the blend of one name.

    ``box``, ``simplex``, ``nnls`` and ``ridge`` have the lowest squared error, of probabilities
    that to 0 and 1 (Brier's score), whatever the metric; ``best``, ``greedy`` and ``optuna``
    follow the metric.

    Args:
        method: Its name.
        goal: What it is to be good at.
        settings: Trials and step of Optuna.
        seed: Seed of Optuna and of the trees.
    """
    if method == "stack":
        return StackedTrees(method, goal, seed)

    def choose(predictions: Array, targets: Array) -> Array:
        flat, wanted = predictions.reshape(len(predictions), -1), goal.encoded(targets).ravel()
        match method:
            case "mean":
                return equal_weights(len(predictions))
            case "best":
                return best_member_weights(predictions, targets, goal.metric)
            case "box":
                return box_weights(flat, wanted, goal.bounds)
            case "simplex":
                return simplex_weights(flat, wanted)
            case "nnls":
                return nnls_weights(flat, wanted)
            case "ridge":
                return ridge_weights(flat, wanted)
            case "greedy":
                return greedy_weights(predictions, targets, goal.bounds, goal.metric)
            case _:
                return search_weights(
                    predictions,
                    targets,
                    goal.bounds,
                    settings.n_trials,
                    settings.weight_step,
                    seed,
                    goal.metric,
                )

    return WeightedBlend(method, goal, choose)


def restore_blend(arrays: Arrays, goal: Goal) -> FittedBlend:
    """Return the fitted blend that gave these arrays, whatever it is.

    Args:
        arrays: What its ``arrays`` returned.
        goal: What it was made for.
    """
    if "weights" in arrays:
        return FittedWeights(arrays["weights"], goal.bounds)
    if "thresholds" in arrays:
        blend = restore_blend(part(arrays, "blend"), goal)
        return FittedThresholds(blend, arrays["thresholds"], goal)
    if "before" in arrays:
        blend = restore_blend(part(arrays, "blend"), goal)
        return FittedCurve(blend, arrays["before"], arrays["after"])
    return FittedTrees.restore(arrays, goal)


def with_fewer_trials(settings: EnsembleSettings) -> EnsembleSettings:
    """Return the settings of a search that is repeated for every fold."""
    return settings.model_copy(
        update={"n_trials": max(1, settings.n_trials // _CROSS_FITTED_SHARE)}
    )
