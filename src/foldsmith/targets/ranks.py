"""Areas under curves of ranked rows, one for each class or label, and ranks of weighted rows."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def ranked_areas(
    scores: Array, positive: npt.NDArray[np.bool_], sample_weight: Array | None
) -> tuple[Array, Array]:
    """Return the area under the ROC curve of each column that can be ranked.

    Args:
        scores: Shape (n, n_columns).
        positive: Which rows are positive, shape (n, n_columns).
        sample_weight: Weight of each row, shape (n,); None for 1 each.

    Returns:
        The areas, and the numbers of positive rows or the sums of their weights: shape
        (n_ranked,) each. Columns that no row or every row has are left out.
    """
    # By ranks (Mann and Whitney, 1947): ten times as fast as drawing the curve.
    if sample_weight is None:
        from scipy.stats import rankdata

        ranks = rankdata(scores, axis=0)
        n_positive = positive.sum(axis=0)
        pairs = n_positive * (len(positive) - n_positive)
        won = (ranks * positive).sum(axis=0) - n_positive * (n_positive + 1) / 2
    else:
        columns = zip(scores.T, positive.T, strict=True)
        n_positive = sample_weight @ positive
        pairs = n_positive * (sample_weight @ ~positive)
        won = np.array(
            [
                (weighted_ranks(column, sample_weight * ~one) * sample_weight)[one].sum()
                for column, one in columns
            ]
        )
    seen = pairs > 0
    return won[seen] / pairs[seen], n_positive[seen].astype(np.float64)


def weighted_ranks(values: Array, weights: Array) -> Array:
    """Return the sum of the weights below each value, and half of those at it, shape (n,).

    For whole numbers these are the mean ranks of repeated rows, less a half.
    """
    _, place = np.unique(values, return_inverse=True)
    at = np.bincount(place, weights)
    ranks: Array = (np.cumsum(at) - at / 2)[place]
    return ranks


def area_of_precision(
    scores: Array, positive: npt.NDArray[np.bool_], sample_weight: Array | None = None
) -> float:
    """Return the area under the precision-recall curve of one class or label.

    Args:
        scores: Shape (n,).
        positive: Which rows have it, at least one, shape (n,).
        sample_weight: Weight of each row, shape (n,); None for 1 each.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    # Rows with one score are ranked together.
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    if sample_weight is None:
        right, ranked = np.cumsum(positive[order])[ends], ends + 1
    else:
        right = np.cumsum((positive * sample_weight)[order])[ends]
        ranked = np.cumsum(sample_weight[order])[ends]
    gained = np.diff(right, prepend=0)
    return float((gained * right / ranked).sum() / right[-1])
