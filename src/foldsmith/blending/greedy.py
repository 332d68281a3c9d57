"""Greedy selection of members with replacement."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from foldsmith.blending.weights import ALL_TOGETHER, Bound, blend
from foldsmith.targets.metrics import Metric

Array = npt.NDArray[np.float64]


def greedy_weights(
    predictions: Array,
    targets: Array,
    target_range: tuple[Bound, Bound],
    metric: Metric,
    rounds: int = 30,
    sum_to_1: Sequence[slice] = ALL_TOGETHER,
    sample_weight: Array | None = None,
) -> Array:
    """Return the shares of members that were added one at a time, each the best to add.

    Ensemble selection with replacement and sorted initialisation (Caruana et al., "Ensemble
    Selection from Libraries of Models", 2004): the members are added from the best on while
    that helps, then in each round the one that helps the blend most, or harms it least. The
    best blend on the way is returned. It works for any metric, and many members get weight 0.

    Args:
        predictions: Out-of-fold predictions, shape (n_members, n), or class probabilities,
            shape (n_members, n, n_classes).
        targets: Shape (n,).
        target_range: Blends are clipped to it.
        metric: Metric of (predictions, targets).
        rounds: How many members are added after the first ones.
        sum_to_1: As for :func:`~foldsmith.blending.weights.blend`.
        sample_weight: Weight of each row in the metric, shape (n,); None for 1 each.

    Returns:
        Shape (n_members,), multiples of 1 / (number of added members) that sum to 1. In
        sample never worse than the best member.
    """

    def value_of(counts: Array) -> float:
        shares = counts / counts.sum()
        blended = blend(predictions, shares, target_range, sum_to_1=sum_to_1)
        return metric(blended, targets, sample_weight)

    alone = np.eye(len(predictions))
    values = np.array([value_of(member) for member in alone])
    order = np.argsort(-values if metric.greater_is_better else values, kind="stable")
    counts, best = alone[order[0]], float(values[order[0]])
    for member in order[1:]:
        value = value_of(counts + alone[member])
        if metric.gain(value, best) <= 0:
            break
        counts, best = counts + alone[member], value
    chosen = counts
    for _ in range(rounds):
        added = [value_of(counts + member) for member in alone]
        k = metric.best(added)
        counts = counts + alone[k]
        if metric.gain(added[k], best) > 0:
            chosen, best = counts, added[k]
    weights: Array = chosen / chosen.sum()
    return weights
