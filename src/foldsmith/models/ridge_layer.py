"""A linear layer by ridge regression: the first last layer of a network."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Strengths of the regression to choose from.
ALPHAS: tuple[float, ...] = (1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5)


def ridge_layer(
    features: npt.NDArray[np.float32], targets: Array, sample_weights: Array | None = None
) -> tuple[Array, float]:
    """Return a linear layer by ridge regression, its strength by the leave-one-out error.

    Features are centred and scaled by one common factor, not each by its own standard deviation,
    because a layer cannot bound its inputs.

    Args:
        features: Shape (n, n_features).
        targets: Shape (n,).
        sample_weights: Weight of each row, shape (n,); None for 1 each.

    Returns:
        Weights, shape (n_features,), and bias.
    """
    from sklearn.linear_model import RidgeCV

    inputs = features.astype(np.float64)
    mean = inputs.mean(axis=0)
    scale = float(inputs.std(axis=0).mean()) or 1.0
    model = RidgeCV(alphas=np.asarray(ALPHAS))
    model.fit((inputs - mean) / scale, targets, sample_weights)
    weights: Array = model.coef_ / scale
    return weights, float(model.intercept_ - weights @ mean)
