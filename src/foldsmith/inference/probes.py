"""Probes of frozen features: out-of-fold scores of simple models on them, and their rank."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.float64]
Array = npt.NDArray[np.float64]

# Strengths that the ridge probe chooses from, for standardised features.
ALPHAS = np.logspace(-1, 6, 15)


def out_of_fold(
    features: Features,
    targets: Array,
    folds: npt.NDArray[np.int64],
    create: Callable[[int], object],
) -> Array:
    """Predict each fold by a model that was fitted on the others.

    Args:
        features: Shape (n, dim).
        targets: Shape (n,), or (n, n_targets), NaN where one is missing.
        folds: Fold of each row, shape (n,).
        create: From a number of rows to an estimator of scikit-learn that is fitted on so many.

    Returns:
        The shape of the targets.
    """
    if np.isnan(targets).any():
        columns = [_out_of_fold_of(features, one, folds, create) for one in targets.T]
        return np.stack(columns, axis=1)
    predictions = np.empty(targets.shape, dtype=np.float64)
    for fold in np.unique(folds):
        seen = folds != fold
        model = create(int(seen.sum()))
        model.fit(features[seen], targets[seen])  # type: ignore[attr-defined]
        predictions[~seen] = model.predict(features[~seen])  # type: ignore[attr-defined]
    return predictions


def _out_of_fold_of(
    features: Features,
    targets: Array,
    folds: npt.NDArray[np.int64],
    create: Callable[[int], object],
) -> Array:
    """Return the predictions of one target, fitted to the images that have it; 0 without such."""
    predictions, known = np.zeros(len(targets)), ~np.isnan(targets)
    for fold in np.unique(folds):
        seen, held = known & (folds != fold), folds == fold
        if seen.any():
            model = create(int(seen.sum()))
            model.fit(features[seen], targets[seen])  # type: ignore[attr-defined]
            predictions[held] = model.predict(features[held])  # type: ignore[attr-defined]
    return predictions


def knn_oof(features: Features, targets: Array, folds: npt.NDArray[np.int64], k: int = 20) -> Array:
    """Predict each image by the mean target of its ``k`` nearest in the other folds.

    Nearest by the cosine of the features, as in the probes of Wu et al. 2018 and DINO.

    Args:
        features: Shape (n, dim).
        targets: Shape (n,), or (n, n_targets).
        folds: Fold of each row, shape (n,).
        k: Neighbours; fewer where the other folds hold fewer.

    Returns:
        The shape of the targets.
    """
    # Here, not above: scikit-learn takes half a second, which `status` and `check` never need.
    from sklearn.neighbors import KNeighborsRegressor

    return out_of_fold(
        features,
        targets,
        folds,
        lambda n: KNeighborsRegressor(min(k, n), metric="cosine", algorithm="brute"),
    )


def ridge_oof(features: Features, targets: Array, folds: npt.NDArray[np.int64]) -> Array:
    """Predict each image by a ridge regression on the other folds.

    Features are standardised, and the strength is chosen by leave-one-out (in closed form),
    both within those other folds.

    Args:
        features: Shape (n, dim).
        targets: Shape (n,), or (n, n_targets).
        folds: Fold of each row, shape (n,).

    Returns:
        The shape of the targets.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return out_of_fold(
        features,
        targets,
        folds,
        lambda _: make_pipeline(StandardScaler(), RidgeCV(ALPHAS)),
    )


def effective_rank(features: Features) -> float:
    """Return RankMe (Garrido et al., "RankMe", 2023): how many directions features use.

    The exponential of the entropy of the singular values, which are not centred, as in the
    paper: 1 if all features point one way, at most the smaller of n and dim.

    Args:
        features: Shape (n, dim).
    """
    # By the smaller Gram matrix: its size does not grow with the images.
    tall = features if features.shape[0] >= features.shape[1] else features.T
    eigenvalues = np.linalg.eigvalsh(tall.T @ tall)
    singular = np.sqrt(np.clip(eigenvalues, 0, None))
    total = singular.sum()
    if total == 0:
        return 1.0
    share = singular / total
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))
