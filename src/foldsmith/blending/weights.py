"""Weights of a blend, chosen on out-of-fold predictions."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from foldsmith.targets.metrics import RMSE, Metric
from foldsmith.utils.progress_bars import progress_bar

Array = npt.NDArray[np.float64]

# A number; of several numbers per image one each, or one for each prediction.
Bound = float | Array

# Place of the probabilities of one set of classes.
ALL_TOGETHER = (slice(None),)

# Points of the box that the search of the clipped blend begins at. With none, 2 of 300 random
# problems end above the lowest of 5,000 points, by 1e-5; with eight, none does.
_STARTS = 8


def blend(
    predictions: Array,
    weights: Array,
    target_range: tuple[Bound, Bound],
    origin: Bound = 0.0,
    sum_to_1: Sequence[slice] = ALL_TOGETHER,
) -> Array:
    """Return the weighted sum of predictions, clipped to the target range.

    Args:
        predictions: Point predictions, shape (n_members, n), of several numbers (n_members, n,
            n_targets), or class probabilities, shape (n_members, n, n_classes).
        weights: Shape (n_members,); they need not sum to 1.
        target_range: Lowest and highest possible target; 0 and 1 for probabilities.
        origin: The weights are those of the distances from it; of several numbers one each.
        sum_to_1: Places of the probabilities that are scaled so that they sum to 1 in each row;
            none for those of labels, which do not exclude each other.

    Returns:
        Shape (n,), or (n, n_classes).
    """
    apart = predictions - origin if np.any(origin) else predictions
    sums = (weights @ apart.reshape(len(predictions), -1)).reshape(predictions.shape[1:])
    clipped = np.clip(origin + sums if np.any(origin) else sums, *target_range)
    if clipped.ndim == 1:
        return clipped
    for place in sum_to_1:
        own = clipped[:, place]
        total = own.sum(axis=1, keepdims=True)
        # Weights that are all 0 say nothing: every class alike.
        clipped[:, place] = np.where(
            total > 0, own / np.where(total > 0, total, 1), 1 / own.shape[1]
        )
    return clipped


def equal_weights(n_members: int) -> Array:
    """Return the weights of the plain average."""
    return np.full(n_members, 1 / n_members)


def box_weights(predictions: Array, targets: Array, target_range: tuple[Bound, Bound]) -> Array:
    """Return the weights in 0..1 with the lowest RMSE, in milliseconds.

    Bounded least squares (Stark and Parker, 1995, as ``scipy.optimize.lsq_linear``) has the
    exact solution for the weighted sum. Where sums leave the target range they are clipped,
    which lowers their error a little further, and makes it a function of several minima: from
    there, from the plain average and from some points of the box it is followed down its
    gradient (L-BFGS-B), and the lowest end counts.

    The weights are chosen on the very rows that they are scored on: the RMSE of the result
    is an in-sample one.

    Args:
        predictions: Out-of-fold predictions, shape (n_members, n).
        targets: Shape (n,), within the target range.
        target_range: Blends are clipped to it before they are scored; numbers, or of each
            prediction its own, shape (n,).

    Returns:
        Shape (n_members,); they need not sum to 1.
    """
    # Here, not above, as everywhere in this file: only `ensemble` needs SciPy and Optuna.
    from scipy.optimize import lsq_linear, minimize

    bounds = (0.0, 1.0)
    solution = lsq_linear(predictions.T, targets, bounds=bounds, method="bvls")
    n_members = len(predictions)
    # Around the plain average: sums of larger weights are all clipped, and lead nowhere.
    points = np.random.default_rng(0).uniform(0, min(1.0, 2 / n_members), (_STARTS, n_members))
    starts = [np.clip(solution.x, *bounds), equal_weights(n_members), *points]

    def error(weights: Array) -> tuple[float, Array]:
        sums = weights @ predictions
        off = np.clip(sums, *target_range) - targets
        inside = (sums > target_range[0]) & (sums < target_range[1])
        return float(off @ off) / len(off), 2 * predictions @ (off * inside) / len(off)

    found = [
        minimize(error, start, jac=True, method="L-BFGS-B", bounds=[bounds] * len(start)).x
        for start in starts
    ]
    best: Array = min([*starts, *found], key=lambda weights: error(weights)[0])
    return best


def simplex_weights(predictions: Array, targets: Array) -> Array:
    """Return the weights of at least 0 that sum to 1 with the lowest RMSE, in milliseconds.

    Exact: for weights w that sum to 1 the error of the blend is the blend of the errors Z,
    and the w with the smallest ``|Zw|`` is the solution u of non-negative least squares of
    ``[Z; 1] u = [0; 1]``, divided by its sum (Lawson and Hanson, "Solving Least Squares
    Problems", 1974, the least-distance problem).

    Args:
        predictions: Out-of-fold predictions within the target range, shape (n_members, n);
            their blends stay in it.
        targets: Shape (n,).

    Returns:
        Shape (n_members,).
    """
    from scipy.optimize import nnls

    errors = (predictions - targets).T
    # On the scale of the errors, so that neither part of the system drowns the other.
    scale = max(float(np.linalg.norm(errors, axis=0).max()), np.finfo(np.float64).tiny)
    rows = np.vstack([errors / scale, np.ones(len(predictions))])
    right = np.zeros(len(rows))
    right[-1] = 1
    solution: Array = nnls(rows, right)[0]
    weights: Array = solution / solution.sum()
    return weights


def nnls_weights(predictions: Array, targets: Array) -> Array:
    """Return the weights of at least 0 with the lowest RMSE before clipping.

    Non-negative least squares (Lawson and Hanson, 1974), for stacking as Breiman has it
    ("Stacked Regressions", 1996).

    Args:
        predictions: Out-of-fold predictions, shape (n_members, n).
        targets: Shape (n,).

    Returns:
        Shape (n_members,); they need not sum to 1.
    """
    from scipy.optimize import nnls

    weights: Array = nnls(predictions.T, targets)[0]
    return weights


def ridge_weights(predictions: Array, targets: Array) -> Array:
    """Return weights of any sign that sum to 1, shrunk towards the plain average.

    Ridge regression (Hoerl and Kennard, 1970) of the plain average's residuals on the members'
    differences from it; the penalty has the lowest leave-one-out error.

    Args:
        predictions: Out-of-fold predictions, shape (n_members, n).
        targets: Shape (n,).

    Returns:
        Shape (n_members,).
    """
    from sklearn.linear_model import RidgeCV

    average = predictions.mean(axis=0)
    differences = (predictions - average).T
    # The penalties on the scale of the squared differences, whatever the unit of the target.
    scale = float((differences**2).sum())
    if scale <= 1e-20 * float((average**2).sum()):
        return equal_weights(len(predictions))  # one member, or several that are the same
    penalties = scale * np.logspace(-4, 3, 15)
    ridge = RidgeCV(alphas=penalties, fit_intercept=False).fit(differences, targets - average)
    weights: Array = equal_weights(len(predictions)) + ridge.coef_ - ridge.coef_.mean()
    return weights


def best_member_weights(
    predictions: Array, targets: Array, metric: Metric, sample_weight: Array | None = None
) -> Array:
    """Return weight 1 for the member with the best metric, 0 for the others.

    Args:
        predictions: Shape (n_members, n) or (n_members, n, n_classes).
        targets: Shape (n,).
        metric: Metric of (predictions, targets).
        sample_weight: Weight of each row in the metric, shape (n,); None for 1 each.
    """
    weights = np.zeros(len(predictions))
    scores = [metric(member, targets, sample_weight) for member in predictions]
    weights[metric.best(scores)] = 1.0
    return weights


def search_weights(
    predictions: Array,
    targets: Array,
    target_range: tuple[Bound, Bound],
    n_trials: int,
    step: float,
    seed: int,
    metric: Metric = RMSE,
    origin: Bound = 0.0,
    sum_to_1: Sequence[slice] = ALL_TOGETHER,
    sample_weight: Array | None = None,
) -> Array:
    """Search for the weights with the best metric, by Optuna's TPE.

    For metrics without structure; :func:`box_weights` finds those of the lowest RMSE at once.
    The weights are chosen on the very rows that they are scored on: the metric of the result
    is an in-sample one. The search starts at the plain average (on the grid).

    Args:
        predictions: Out-of-fold predictions, shape (n_members, n), or class probabilities,
            shape (n_members, n, n_classes).
        targets: Shape (n,).
        target_range: Blends are clipped to it before they are scored.
        n_trials: Number of trials.
        step: Each weight is one of 0, step, ..., 1.
        seed: Seed of the search.
        metric: Metric of (predictions, targets).
        origin: As for :func:`blend`.
        sum_to_1: As for :func:`blend`.
        sample_weight: Weight of each row in the metric, shape (n,); None for 1 each.

    Returns:
        Weights in 0..1, shape (n_members,); they are not made to sum to 1.
    """
    import optuna

    names = [f"w{k}" for k in range(len(predictions))]
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial: optuna.Trial) -> float:
        weights = np.array([trial.suggest_float(name, 0.0, 1.0, step=step) for name in names])
        blended = blend(predictions, weights, target_range, origin, sum_to_1)
        return metric(blended, targets, sample_weight)

    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed),
        direction="maximize" if metric.greater_is_better else "minimize",
    )
    start = round(1 / len(predictions) / step) * step
    study.enqueue_trial({name: start for name in names})
    bar = progress_bar(total=n_trials, label="weights", unit="trial")

    def advance(*_: object) -> None:
        bar.update(1)

    with bar:
        study.optimize(objective, n_trials=n_trials, callbacks=[advance])
    return np.array([study.best_params[name] for name in names])
