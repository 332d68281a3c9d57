"""The stack of labels: a logistic regression for each, shrunk towards the plain mean."""

import numpy as np
import pytest
from blend_data import rows
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from foldsmith.blending.base import Goal
from foldsmith.blending.crossfit import cross_fitted
from foldsmith.blending.methods import create_blend, restore_blend
from foldsmith.config import EnsembleSettings
from foldsmith.project.label_forms import LabelsInColumns
from foldsmith.targets.metrics import METRICS_OF_LABELS

SETTINGS = EnsembleSettings(experiments=["x"])


def goal(n_labels=3, metric="LogLoss"):
    names = tuple(f"label{k}" for k in range(n_labels))
    return Goal(METRICS_OF_LABELS[metric], LabelsInColumns(names))


def members(seed, n=600, sharp=((2.5, 0.3), (0.3, 2.5), (1.0, 1.0))):
    """Two members and the labels; a member's logits contain the truth as sharply as said."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, len(sharp))) < 0.3).astype(float)
    signal = (2 * targets - 1)[None] * np.asarray(sharp).T[:, None]
    return expit(signal + rng.normal(size=signal.shape)), targets


def stack(predictions, targets):
    return create_blend("stack", goal(targets.shape[1]), SETTINGS, 0).fit(
        rows(predictions), targets
    )


def test_it_learns_which_member_to_believe_for_each_label():
    predictions, targets = members(0)
    folds, metric = np.arange(len(targets)) % 5, METRICS_OF_LABELS["LogLoss"]
    scores = {
        name: metric(
            cross_fitted(
                create_blend(name, goal(), SETTINGS, 0), rows(predictions), targets, folds
            ),
            targets,
        )
        for name in ("stack", "mean", "simplex", "box")
    }
    others = min(score for name, score in scores.items() if name != "stack")
    assert scores["stack"] < 0.85 * others
    weights = stack(predictions, targets).weights
    assert weights[0, 0] > 3 * weights[0, 1] and weights[1, 1] > 3 * weights[1, 0]


def test_with_many_rows_it_is_the_logistic_regression():
    mild = ((1.0, 0.3), (0.3, 1.0), (0.5, 0.5))
    predictions, targets = members(1, n=20_000, sharp=mild)
    fitted = stack(predictions, targets)
    for k in range(targets.shape[1]):
        inputs = logit(np.clip(predictions[:, :, k], 1e-3, 1 - 1e-3)).T
        model = LogisticRegression(C=1e6).fit(inputs, targets[:, k])
        assert fitted.weights[k] == pytest.approx(model.coef_[0], abs=0.03)
        assert fitted.bias[k] == pytest.approx(model.intercept_[0], abs=0.03)


def test_with_nothing_to_learn_from_it_is_the_mean_of_the_logits():
    _, targets = members(3)
    noise = np.random.default_rng(3).normal(size=(4, *targets.shape))
    fitted = stack(expit(1e-3 * noise), targets)
    assert fitted.weights == pytest.approx(np.full((3, 4), 1 / 4), abs=0.01)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(3, 30))
@settings(max_examples=15, deadline=None)
def test_orders_change_nothing_and_arrays_restore_it(seed, n):
    predictions, targets = members(seed, n=n)
    fitted = stack(predictions, targets)
    found = fitted.predict(rows(predictions))
    assert ((found > 0) & (found < 1)).all()
    labels, others = np.random.default_rng(seed).permutation(3), [1, 0]
    moved = predictions[others][:, :, labels]
    again = stack(moved, targets[:, labels]).predict(rows(moved))
    assert again == pytest.approx(found[:, labels], abs=1e-6)
    restored = restore_blend(fitted.arrays(), goal())
    assert (restored.predict(rows(predictions)) == found).all()


def test_members_without_a_weight_can_be_left_out():
    predictions, targets = members(4)
    fitted = stack(predictions, targets)
    fitted.weights[0, 1] = 0  # no say about one label
    there = np.array([True, False, True])
    among = fitted.among(there)
    assert (among.uses(3) == there).all()
    found = fitted.predict(rows(predictions))
    assert among.predict(rows(predictions[[0, 0, 1]])) == pytest.approx(found)
    assert among.only(there).predict(rows(predictions)) == pytest.approx(found)


@pytest.mark.parametrize("there", [0.0, 1.0])
def test_a_label_that_no_or_every_image_has_is_learned(there):
    predictions, targets = members(2)
    targets[:, 2] = there
    fitted = stack(predictions, targets)
    found = fitted.predict(rows(predictions))[:, 2]
    # Its intercept is no larger than 600 rows justify.
    assert 3 < (2 * there - 1) * fitted.bias[2] < 10
    # From a mean of logits near 0 to the truth.
    assert np.abs(found - there).mean() < 0.05
    sure = np.full_like(predictions, there)
    assert np.isfinite(stack(sure, targets).predict(rows(sure))).all()
