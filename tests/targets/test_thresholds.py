import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from foldsmith.targets.decisions import THRESHOLDS
from foldsmith.targets.metrics import metric_named
from foldsmith.targets.thresholds import apply_thresholds, fit_thresholds

QWK = metric_named("QWK", (0.0, 1.0, 2.0, 3.0))


def timid(seed, n=300):
    """Predictions that keep to the middle, as those of a squared error do."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 4, n).astype(float)
    return np.clip(1.5 + 0.4 * (targets - 1.5) + 0.2 * rng.normal(size=n), 0, 3), targets


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000))
def test_boundaries_ascend_and_are_never_worse_than_rounding(seed):
    predictions, targets = timid(seed)
    cuts = fit_thresholds(predictions, targets, QWK)
    assert (np.diff(cuts) > 0).all() and cuts.shape == (3,)
    rounded = QWK(predictions, targets)
    assert QWK(apply_thresholds(predictions, cuts, QWK), targets) >= rounded


def test_they_help_rows_that_they_were_not_found_on():
    predictions, targets = timid(0, 600)
    folds = np.arange(600) % 3
    classes = THRESHOLDS.cross_fitted(predictions, targets, folds, QWK)
    assert QWK(classes, targets) > QWK(predictions, targets) + 0.03
    # Each fold's boundaries are those of the others.
    held = folds == 1
    cuts = fit_thresholds(predictions[~held], targets[~held], QWK)
    np.testing.assert_array_equal(classes[held], apply_thresholds(predictions[held], cuts, QWK))
