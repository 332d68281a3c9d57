"""The computations of the metrics of numbers.

All take (predictions, targets), float64, shape (n,) each. Metrics that are no means over rows also
take ``sample_weight``, the weight of each row, float64, above 0, shape (n,); None for 1 each.
scikit-learn and scipy are imported when they are needed: they take half a second, and ``status``
and ``check`` need neither.
"""

import numpy as np
import numpy.typing as npt

from foldsmith.targets.ranks import weighted_ranks

Array = npt.NDArray[np.float64]


def rmse(predictions: Array, targets: Array) -> float:
    """Return the root mean squared error."""
    from sklearn.metrics import root_mean_squared_error

    return float(root_mean_squared_error(targets, predictions))


def normalised_rmse(
    predictions: Array, targets: Array, *, sample_weight: Array | None = None
) -> float:
    """Return the root mean squared error as a fraction of the targets' standard deviation.

    Returns:
        1 for the mean target; if all targets are equal 0 for right predictions and 1 for others.
    """
    # As scikit-learn computes it, to the digit; its checks would take most of a bootstrap's time.
    squares = (targets - predictions) ** 2
    error = float(np.sqrt(np.average(squares[:, None], axis=0, weights=sample_weight)[0]))
    if sample_weight is None:
        deviation = float(np.std(targets))
    else:
        off = targets - np.average(targets, weights=sample_weight)
        deviation = float(np.sqrt(np.average(off**2, weights=sample_weight)))
    if deviation == 0 or np.ptp(targets) == 0:
        return float(error != 0)
    return error / deviation


def squared(predictions: Array, targets: Array) -> Array:
    """Return the squared error of each row."""
    return (predictions - targets) ** 2


def mae(predictions: Array, targets: Array) -> float:
    """Return the mean absolute error."""
    from sklearn.metrics import mean_absolute_error

    return float(mean_absolute_error(targets, predictions))


def absolute(predictions: Array, targets: Array) -> Array:
    """Return the absolute error of each row."""
    off: Array = np.abs(predictions - targets)
    return off


def median_absolute(
    predictions: Array, targets: Array, *, sample_weight: Array | None = None
) -> float:
    """Return the median absolute error."""
    from sklearn.metrics import median_absolute_error

    if sample_weight is not None:
        return _weighted_median(np.abs(predictions - targets), sample_weight)
    return float(median_absolute_error(targets, predictions))


def _weighted_median(values: Array, weights: Array) -> float:
    """Return the mean of the values on both sides of half the weight: that of repeated rows."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    half = below[-1] / 2
    # Sums of fractions may miss the half by rounding.
    near = half * 1e-12
    lower = np.searchsorted(below, half - near, side="left")
    upper = np.searchsorted(below, half + near, side="right")
    return float((values[order[lower]] + values[order[upper]]) / 2)


def r2(predictions: Array, targets: Array, *, sample_weight: Array | None = None) -> float:
    """Return the coefficient of determination.

    Returns:
        At most 1; 0 for the mean target, and for a single row.
    """
    if len(targets) < 2:
        return 0.0
    from sklearn.metrics import r2_score

    return float(r2_score(targets, predictions, sample_weight=sample_weight))


def rmsle(predictions: Array, targets: Array) -> float:
    """Return the root mean squared error of log(1 + value); negative predictions count as 0."""
    from sklearn.metrics import root_mean_squared_log_error

    return float(root_mean_squared_log_error(targets, np.maximum(predictions, 0)))


def squared_log(predictions: Array, targets: Array) -> Array:
    """Return the squared difference of log(1 + value) of each row."""
    off: Array = (np.log1p(np.maximum(predictions, 0)) - np.log1p(targets)) ** 2
    return off


def mape(predictions: Array, targets: Array) -> float:
    """Return the mean absolute error as a fraction of the target: 0.1 is 10 %."""
    from sklearn.metrics import mean_absolute_percentage_error

    return float(mean_absolute_percentage_error(targets, predictions))


def absolute_fraction(predictions: Array, targets: Array) -> Array:
    """Return the absolute error of each row as a fraction of its target."""
    smallest = np.finfo(np.float64).eps  # as scikit-learn
    off: Array = np.abs(predictions - targets) / np.maximum(np.abs(targets), smallest)
    return off


def smape(predictions: Array, targets: Array) -> float:
    """Return the mean absolute error as a fraction of the mean of both absolute values.

    Returns:
        In 0..2, where others give 0 to 200 %. Rows with a target and a prediction of 0 count 0.
    """
    return float(symmetric_fraction(predictions, targets).mean())


def symmetric_fraction(predictions: Array, targets: Array) -> Array:
    """Return the absolute error of each row as a fraction of the mean of both absolute values."""
    both = (np.abs(predictions) + np.abs(targets)) / 2
    off: Array = np.abs(predictions - targets) / np.where(both > 0, both, 1)
    return off


def pinball(predictions: Array, targets: Array, *, quantile: float) -> float:
    """Return the pinball loss of predictions of a quantile.

    Args:
        predictions: Shape (n,).
        targets: Shape (n,).
        quantile: The quantile, between 0 and 1; 0.5 is half of the absolute error.
    """
    from sklearn.metrics import mean_pinball_loss

    return float(mean_pinball_loss(targets, predictions, alpha=quantile))


def pinball_rows(predictions: Array, targets: Array, *, quantile: float) -> Array:
    """Return the pinball loss of each row."""
    above = targets - predictions
    loss: Array = np.maximum(quantile * above, (quantile - 1) * above)
    return loss


def quantile_problem(n_classes: int | None, *, quantile: float) -> str | None:
    """Return why a quantile is none; None if it is one."""
    return None if 0 < quantile < 1 else "quantile must be between 0 and 1"


def pearson(predictions: Array, targets: Array, *, sample_weight: Array | None = None) -> float:
    """Return Pearson's correlation.

    Returns:
        In -1..1; 0 if all predictions or all targets are equal.
    """
    if len(targets) < 2 or np.ptp(predictions) == 0 or np.ptp(targets) == 0:
        return 0.0
    if sample_weight is None:
        found = np.corrcoef(predictions, targets)[0, 1]
    else:
        spread = np.cov(predictions, targets, aweights=sample_weight, ddof=0)
        found = spread[0, 1] / np.sqrt(spread[0, 0]) / np.sqrt(spread[1, 1])
    # Numbers so small that their squares are 0 differ, and have no spread.
    return float(found) if np.isfinite(found) else 0.0


def spearman(predictions: Array, targets: Array, *, sample_weight: Array | None = None) -> float:
    """Return Spearman's correlation, Pearson's of the ranks.

    Returns:
        In -1..1; 0 if all predictions or all targets are equal.
    """
    if sample_weight is not None:
        ranks = (weighted_ranks(values, sample_weight) for values in (predictions, targets))
        return pearson(*ranks, sample_weight=sample_weight)
    from scipy.stats import rankdata

    return pearson(rankdata(predictions), rankdata(targets))
