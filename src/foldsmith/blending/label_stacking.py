"""Logistic regressions over the members' probabilities, one for each of several labels."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from foldsmith.blending.base import Mask, Rows
from foldsmith.models.fitted_arrays import Arrays

Array = npt.NDArray[np.float64]

# Probabilities nearer to 0 or 1 count as this near: trees give 0 and 1 themselves.
_NEAREST = 1e-3
# Penalty on squared distances of the weights from those of the plain mean, in rows: members are
# alike, and a rare label has few rows to tell them apart by.
_PENALTY = 10.0
# The same on the distance of the intercept from 0, so that a label without a hit has one.
_PENALTY_OF_BIAS = 0.1


@dataclass(frozen=True)
class StackedLabels:
    """A logistic regression per label, on the members' logits of this label.

    Its weights are shrunk towards those of the plain mean of the logits: without rows to learn
    from it is that mean. So a member may count more for one label than for another, and
    probabilities become sharper, milder or shifted.

    Attributes:
        name: Its name.
    """

    name: str

    # Its probabilities need thresholds as those of other blends do.
    bends = False

    def fit(self, rows: Rows, targets: Array) -> "FittedStackedLabels":
        """Fit the regressions; the metric plays no part, and nothing is drawn."""
        logits = _logits(rows)
        fitted = [
            _regression(logits[:, :, k].T, targets[:, k], rows.weights)
            for k in range(targets.shape[1])
        ]
        found = np.stack(fitted)
        return FittedStackedLabels(found[:, :-1], found[:, -1])


@dataclass(frozen=True)
class FittedStackedLabels:
    """Logistic regressions on the members' logits.

    Attributes:
        weights: Shape (n_labels, n_members).
        bias: Shape (n_labels,).
    """

    weights: Array
    bias: Array

    @property
    def with_facts(self) -> bool:
        """No facts are needed."""
        return False

    def uses(self, n_members: int) -> Mask:
        """Return the members with a weight for any label."""
        used: Mask = (self.weights != 0).any(axis=0)
        return used

    def among(self, members: Mask) -> "FittedStackedLabels":
        """Return it with the weight 0 for all other members."""
        weights = np.zeros((len(self.weights), len(members)))
        weights[:, members] = self.weights
        return replace(self, weights=weights)

    def only(self, used: Mask) -> "FittedStackedLabels":
        """Return it without members of the weight 0."""
        return replace(self, weights=self.weights[:, used])

    def predict(self, rows: Rows) -> Array:
        """Return the probabilities, shape (n, n_labels)."""
        # Here, not above: few commands need scipy, which takes long to import.
        from scipy.special import expit

        logits = np.einsum("mnk,km->nk", _logits(rows), self.weights) + self.bias
        probabilities: Array = expit(logits)
        return probabilities

    def arrays(self) -> Arrays:
        """Return the weights and the intercepts."""
        return {"label_weights": self.weights, "label_bias": self.bias}

    @classmethod
    def restore(cls, arrays: Arrays) -> "FittedStackedLabels":
        """Return the regressions that gave these arrays."""
        return cls(arrays["label_weights"], arrays["label_bias"])


def _logits(rows: Rows) -> Array:
    from scipy.special import logit

    found: Array = logit(np.clip(rows.predictions, _NEAREST, 1 - _NEAREST))
    return found


def _regression(logits: Array, labels: Array, sample_weight: Array | None) -> Array:
    """Return the weights of the members and the intercept, shape (n_members + 1,).

    Args:
        logits: Shape (n, n_members).
        labels: 0 or 1, shape (n,).
        sample_weight: Weight of each row, shape (n,); None for 1 each.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    n_members = logits.shape[1]
    inputs = np.column_stack([logits, np.ones(len(logits))])
    mean = np.append(np.full(n_members, 1 / n_members), 0.0)
    each = np.ones(len(logits)) if sample_weight is None else sample_weight
    penalty = np.append(np.full(n_members, _PENALTY), _PENALTY_OF_BIAS)

    def loss(found: Array) -> tuple[float, Array]:
        values, off = inputs @ found, found - mean
        rows = each @ np.logaddexp(0, values) - values @ (each * labels)
        slope = inputs.T @ (each * (expit(values) - labels)) + penalty * off
        return float(rows + (penalty * off**2).sum() / 2), slope

    def curvature(found: Array) -> Array:
        share = expit(inputs @ found)
        matrix: Array = (inputs * (each * share * (1 - share))[:, None]).T @ inputs
        return matrix + np.diag(penalty)

    solved: Any = minimize(loss, mean, jac=True, hess=curvature, method="trust-exact")
    weights: Array = solved.x
    return weights
