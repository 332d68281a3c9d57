"""Logistic functions that make probabilities of scores (Platt 1999)."""

import numpy as np

from foldsmith.models.fitted_heads import Targets

# Most iterations of Newton's method for the two numbers of a logistic function.
_STEPS = 25
# Strength of a penalty on the slope, in rows, for scores that separate the labels.
_PENALTY = 1e-2


def logistic_curve(scores: Targets, labels: Targets, weights: Targets | None = None) -> Targets:
    """Return slope and intercept of the logistic function of scores with the least log loss.

    Targets are those of Platt ("Probabilistic Outputs for Support Vector Machines", 1999), a
    little off 0 and 1, so that the slope stays finite. A falling function becomes a constant one.

    Args:
        scores: Shape (n,).
        labels: 0 or 1, shape (n,).
        weights: Weight of each image, at least 0, shape (n,); None for 1 each.
    """
    from scipy.special import expit, logit

    importance = np.ones(len(labels)) if weights is None else weights
    n_present = float(labels @ importance)
    n_absent = float(importance.sum()) - n_present
    wanted = np.where(labels > 0, (n_present + 1) / (n_present + 2), 1 / (n_absent + 2))
    constant = np.array([0.0, float(logit(np.average(wanted, weights=weights)))])
    spread = float(scores.std())
    if spread == 0 or not n_present or not n_absent:
        return constant
    centre = float(scores.mean())
    inputs = np.stack([(scores - centre) / spread, np.ones(len(scores))], axis=1)
    found = constant.copy()
    for _ in range(_STEPS):
        probabilities = expit(inputs @ found)
        slope = inputs.T @ (importance * (probabilities - wanted)) + [_PENALTY * found[0], 0.0]
        curvature = (
            inputs * (importance * probabilities * (1 - probabilities))[:, None]
        ).T @ inputs
        curvature[0, 0] += _PENALTY
        curvature[np.diag_indices(2)] += 1e-9
        step = np.linalg.solve(curvature, slope)
        # Newton's steps from the constant may be too long.
        found = found - step * min(1.0, 4.0 / float(np.abs(step).max() or 1.0))
        if np.abs(step).max() < 1e-10:
            break
    if found[0] <= 0:
        return constant
    return np.array([found[0] / spread, found[1] - found[0] * centre / spread])


def squashed(scores: Targets, curves: Targets) -> Targets:
    """Return probabilities from scores, both of shape (n, n_labels), and their functions.

    Args:
        scores: The scores.
        curves: Slope and intercept of each label, shape (n_labels, 2).
    """
    from scipy.special import expit

    probabilities: Targets = expit(scores * curves[:, 0] + curves[:, 1])
    return probabilities
