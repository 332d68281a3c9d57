"""Scores of blends on rows that they were not fitted on."""

import numpy as np
import numpy.typing as npt

from foldsmith.blending.base import Blend, Rows

Array = npt.NDArray[np.float64]


def cross_fitted(blend: Blend, rows: Rows, targets: Array, folds: npt.NDArray[np.int64]) -> Array:
    """Predict each fold by a blend that was fitted on the other folds.

    The members' predictions are out of fold already; this keeps the weights out of fold too.
    (One dependency remains: the members of the other folds were trained on the held-out one. It
    favours no way to blend over another.)

    Args:
        blend: The way to blend; it is fitted again for every fold.
        rows: All labelled rows.
        targets: Shape (n,).
        folds: Fold of each row, shape (n,).

    Returns:
        Shape (n,), or (n, n_classes) for probabilities.
    """
    predictions = np.empty(rows.predictions.shape[1:])
    for fold in np.unique(folds):
        held = folds == fold
        fitted = blend.fit(rows.take(~held), targets[~held])
        predictions[held] = fitted.predict(rows.take(held))
    return predictions
