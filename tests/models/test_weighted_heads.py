"""Weights of rows in heads on frozen features."""

import numpy as np
import pytest

from foldsmith.errors import ConfigError
from foldsmith.models.feature_heads import MeanHead, fit_head
from foldsmith.models.kernel_head import KernelHead
from foldsmith.models.label_heads import KernelLabelsHead, LabelsHead
from foldsmith.models.logistic_head import LogisticHead
from foldsmith.models.mlp_head import MLPHead
from foldsmith.models.ridge_head import RidgeHead
from foldsmith.models.svr_head import SVRHead
from foldsmith.models.trees_head import TreesHead

VALUES = (0.0, 1.0, 2.0)
RNG = np.random.default_rng(0)
N = 60
FEATURES = RNG.normal(size=(N, 5)).astype(np.float32)
NUMBERS = FEATURES[:, 0] + RNG.normal(0, 0.5, N)
CLASSES = np.digitize(NUMBERS, [-0.5, 0.5]).astype(float)
LABELS = (FEATURES[:, :2] + RNG.normal(0, 0.5, (N, 2)) > 0).astype(float)
# Groups of six rows with the same weights each: repeated rows leave groups of equal size.
GROUPS = np.arange(N) // 6
WHOLE = np.tile([1.0, 2.0, 3.0, 1.0, 2.0, 0.0], N // 6)

# Heads without anything to choose by held-out rows, of which copies would be further ones.
DETERMINISTIC = {
    "ridge": (RidgeHead(alphas=(3.0,)), NUMBERS),
    "ridge, common scaling": (RidgeHead(alphas=(3.0,), scaling="common"), NUMBERS),
    "svr": (SVRHead(C=(1.0,)), NUMBERS),
    "logistic": (LogisticHead(VALUES, C=(0.1,)), CLASSES),
    "kernel": (KernelHead(VALUES, alpha=(0.1, 1.0), gamma=(1.0,)), CLASSES),
    "kernel of labels": (KernelLabelsHead(alpha=(0.1, 1.0), gamma=(1.0,)), LABELS),
    "labels": (LabelsHead(LogisticHead((0.0, 1.0), C=(0.1,))), LABELS),
    "mean": (MeanHead((RidgeHead(alphas=(3.0,)), SVRHead(C=(1.0,)))), NUMBERS),
}
OTHERS = {
    "trees": (TreesHead(n_trees=20), NUMBERS),
    "trees of classes": (TreesHead(n_trees=20, class_values=VALUES), CLASSES),
    "network": (MLPHead(hidden=8, epochs=3), NUMBERS),
}


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_whole_weights_are_repeated_rows(name):
    head, targets = DETERMINISTIC[name]
    again = np.repeat(np.arange(N), WHOLE.astype(int))
    weighted = fit_head(head, FEATURES, targets, GROUPS, 0, WHOLE)
    repeated = fit_head(head, FEATURES[again], targets[again], GROUPS[again], 0, None)
    plain = fit_head(head, FEATURES, targets, GROUPS, 0, None)
    others = np.random.default_rng(1).normal(size=(30, 5)).astype(np.float32)
    found = weighted.predict(others)
    tolerance = 2e-3 if name in ("svr", "logistic", "mean", "labels") else 1e-4
    np.testing.assert_allclose(found, repeated.predict(others), atol=tolerance)
    assert np.abs(found - plain.predict(others)).max() > 10 * tolerance


@pytest.mark.parametrize("name", [*DETERMINISTIC, *OTHERS])
def test_weights_of_1_change_no_digit_worth_the_name(name):
    head, targets = (DETERMINISTIC | OTHERS)[name]
    plain = fit_head(head, FEATURES, targets, GROUPS, 0, None).predict(FEATURES)
    ones = fit_head(head, FEATURES, targets, GROUPS, 0, np.ones(N)).predict(FEATURES)
    np.testing.assert_allclose(ones, plain, atol=1e-4)


@pytest.mark.parametrize("name", OTHERS)
def test_the_heavy_rows_decide(name):
    head, targets = OTHERS[name]
    weights = np.where(NUMBERS > 0.5, 10.0, 0.1)
    plain = fit_head(head, FEATURES, targets, GROUPS, 0, None).predict(FEATURES)
    heavy = fit_head(head, FEATURES, targets, GROUPS, 0, weights).predict(FEATURES)
    upper = (lambda found: found[:, 2]) if plain.ndim == 2 else (lambda found: found)
    assert upper(heavy).mean() > upper(plain).mean() + 0.05


@pytest.mark.parametrize("head", [KernelLabelsHead(), DETERMINISTIC["labels"][0]])
def test_a_heavy_label_is_predicted_more_often_than_the_other(head):
    plain = fit_head(head, FEATURES, LABELS, GROUPS, 0, None).predict(FEATURES)
    weights = np.stack([np.where(LABELS[:, 0] > 0, 5.0, 1.0), np.ones(N)], axis=1)
    heavy = fit_head(head, FEATURES, LABELS, GROUPS, 0, weights).predict(FEATURES)
    raised = heavy.mean(axis=0) - plain.mean(axis=0)
    assert raised[0] > 0.05 and abs(raised[1]) < 0.05


def test_a_head_that_takes_no_weights_is_named():
    class Own:
        def fit(self, features, targets, groups, seed):
            return "fitted"

    assert fit_head(Own(), FEATURES, NUMBERS, GROUPS, 0, None) == "fitted"
    with pytest.raises(ConfigError, match="head: Own takes no weights.*class_weights to none"):
        fit_head(Own(), FEATURES, NUMBERS, GROUPS, 0, WHOLE)
