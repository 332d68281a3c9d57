"""Weights of a blend, searched for on out-of-fold predictions."""

import sys

import numpy as np
import numpy.typing as npt
import optuna
from tqdm.auto import tqdm

from foldsmith.tasks.metrics import rmse


def blend(
    predictions: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    target_range: tuple[float, float],
) -> npt.NDArray[np.float64]:
    """Return the weighted sum of predictions, clipped to the target range.

    Args:
        predictions: Shape (n_members, n).
        weights: Shape (n_members,); they need not sum to 1.
        target_range: Lowest and highest possible target.
    """
    return np.clip(weights @ predictions, *target_range)


def equal_weights(n_members: int) -> npt.NDArray[np.float64]:
    """Return the weights of the plain average."""
    return np.full(n_members, 1 / n_members)


def optimise_weights(
    predictions: npt.NDArray[np.float64],
    targets: npt.NDArray[np.float64],
    target_range: tuple[float, float],
    n_trials: int,
    step: float,
    seed: int,
) -> npt.NDArray[np.float64]:
    """Search for the weights with the lowest RMSE, by Optuna's TPE.

    The weights are chosen on the very rows that they are scored on: the RMSE of the result
    is an in-sample one. The search starts at the plain average (on the grid).

    Args:
        predictions: Out-of-fold predictions, shape (n_members, n).
        targets: Shape (n,).
        target_range: Blends are clipped to it before they are scored.
        n_trials: Number of trials.
        step: Each weight is one of 0, step, ..., 1.
        seed: Seed of the search.

    Returns:
        Weights in 0..1, shape (n_members,); they are not made to sum to 1.
    """
    names = [f"w{k}" for k in range(len(predictions))]
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial: optuna.Trial) -> float:
        weights = np.array([trial.suggest_float(name, 0.0, 1.0, step=step) for name in names])
        return rmse(blend(predictions, weights, target_range), targets)

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    start = round(1 / len(predictions) / step) * step
    study.enqueue_trial({name: start for name in names})
    bar = tqdm(
        total=n_trials, desc="weights", unit="trial", leave=False, disable=not sys.stderr.isatty()
    )

    def advance(*_: object) -> None:
        bar.update(1)

    with bar:
        study.optimize(objective, n_trials=n_trials, callbacks=[advance])
    return np.array([study.best_params[name] for name in names])
