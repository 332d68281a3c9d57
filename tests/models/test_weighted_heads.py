"""Weights of rows in heads on frozen features."""

import numpy as np
import pytest

from foldsmith.errors import ConfigError
from foldsmith.models.feature_heads import MeanHead, fit_head
from foldsmith.models.kernel_head import KernelHead
from foldsmith.models.kernel_labels import KernelLabelsHead
from foldsmith.models.label_heads import LabelsHead, TreesLabelsHead
from foldsmith.models.logistic_head import LogisticHead
from foldsmith.models.mlp_head import MLPHead
from foldsmith.models.number_heads import NumbersHead
from foldsmith.models.ridge_head import RidgeHead
from foldsmith.models.ridge_layer import ridge_layer
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
    "network of one batch": (MLPHead(hidden=8, dropout=0, epochs=9, batch_size=999), NUMBERS),
    "numbers": (NumbersHead(RidgeHead(alphas=(3.0,))), np.stack([NUMBERS, -NUMBERS], axis=1)),
    "labels by ridge": (LabelsHead(RidgeHead(alphas=(3.0,))), LABELS),
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


N_CHOSEN = 240
RNG_CHOSEN = np.random.default_rng(6)
FEATURES_CHOSEN = RNG_CHOSEN.normal(size=(N_CHOSEN, 20)).astype(np.float32)
# A third of the rows, with 99 % of the weight, are a function of a feature; the others are noise.
EXACT = np.arange(N_CHOSEN) % 3 == 0
HEAVY = np.where(EXACT, 2.96, 0.02)
NUMBERS_CHOSEN = np.where(EXACT, 2 * FEATURES_CHOSEN[:, 0], RNG_CHOSEN.normal(0, 3, N_CHOSEN))
CLASSES_CHOSEN = (NUMBERS_CHOSEN > 0).astype(float)
GROUPS_CHOSEN = np.arange(N_CHOSEN) // 4


def assert_same(head, other, targets, weights):
    """Compare the predictions of a head with those of one that has nothing to choose."""
    found, wanted = (
        fit_head(each, FEATURES_CHOSEN, targets, GROUPS_CHOSEN, 0, weights).predict(FEATURES_CHOSEN)
        for each in (head, other)
    )
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("head_of", "targets", "strong", "weak"),
    [
        (lambda *c: SVRHead(c), NUMBERS_CHOSEN, 0.01, 100.0),
        (lambda *c: LogisticHead(VALUES[:2], c), CLASSES_CHOSEN, 1e-4, 100.0),
        (lambda *alpha: KernelHead(VALUES[:2], alpha, (0.5,)), CLASSES_CHOSEN, 100.0, 0.01),
        (lambda *alpha: KernelLabelsHead(alpha, (0.5,)), CLASSES_CHOSEN[:, None], 100.0, 0.01),
    ],
    ids=["svr", "logistic", "kernel", "kernel of labels"],
)
def test_the_regularisation_is_chosen_by_the_heavy_rows(head_of, targets, strong, weak):
    assert_same(head_of(strong, weak), head_of(weak), targets, HEAVY)
    assert_same(head_of(strong, weak), head_of(strong), targets, None)
    with pytest.raises(AssertionError):
        assert_same(head_of(strong), head_of(weak), targets, None)


def test_heads_to_choose_by_are_fitted_with_weights():
    # The light rows have the opposite classes, and are the majority.
    classes = ((FEATURES_CHOSEN[:, 0] > 0) == EXACT).astype(float)
    chosen = LogisticHead(VALUES[:2], (1e-4, 1.0)), LogisticHead(VALUES[:2], (1.0,))
    assert_same(*chosen, classes, HEAVY)


def test_the_regularisation_is_chosen_by_the_heavy_label():
    # The first label is nearly linear in the features, the second one is noise.
    noise = np.random.default_rng(0).random(N_CHOSEN) > 0.5
    labels = np.stack([FEATURES_CHOSEN[:, 0] > 0, noise], axis=1)
    head = KernelLabelsHead((100.0, 0.01), (0.5,))
    for label, alpha in ((0, 100.0), (1, 0.01)):
        weights = np.full(labels.shape, 0.02)
        weights[:, label] = 1.98
        assert_same(head, KernelLabelsHead((alpha,), (0.5,)), labels.astype(float), weights)


def test_the_curve_of_a_single_group_is_the_weighted_frequency():
    head, weights = LabelsHead(RidgeHead()), np.where(LABELS[:, 0] > 0, 3.0, 1.0)
    found = fit_head(head, FEATURES, LABELS, np.zeros(N, int), 0, weights).predict(FEATURES)
    frequency = np.average(LABELS[:, 0], weights=weights)
    np.testing.assert_allclose(found[:, 0], frequency, atol=0.02)
    assert frequency > LABELS[:, 0].mean() + 0.1


def test_a_tube_around_all_numbers_predicts_their_weighted_mean():
    weights = np.where(NUMBERS > 0, 3.0, 1.0)
    fitted = fit_head(SVRHead(epsilon=(9.0,)), FEATURES, NUMBERS, GROUPS, 0, weights)
    np.testing.assert_allclose(fitted.predict(FEATURES), np.average(NUMBERS, weights=weights))


def test_a_first_layer_by_ridge_regression_has_weights():
    slopes, bias = ridge_layer(FEATURES, NUMBERS, np.where(NUMBERS > 0.5, 1.0, 1e-6))
    heavy = NUMBERS > 0.5
    found = FEATURES[heavy] @ slopes + bias
    assert np.mean(found) == pytest.approx(NUMBERS[heavy].mean(), abs=0.01)


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


@pytest.mark.parametrize(
    "head", [KernelLabelsHead(), DETERMINISTIC["labels"][0], TreesLabelsHead(100)]
)
def test_a_heavy_label_is_predicted_more_often_than_the_other(head):
    plain = fit_head(head, FEATURES, LABELS, GROUPS, 0, None).predict(FEATURES)
    weights = np.stack([np.where(LABELS[:, 0] > 0, 5.0, 1.0), np.ones(N)], axis=1)
    heavy = fit_head(head, FEATURES, LABELS, GROUPS, 0, weights).predict(FEATURES)
    raised = heavy.mean(axis=0) - plain.mean(axis=0)
    assert raised[0] > 0.05 and abs(raised[1]) < 0.05


def test_only_rows_without_any_weight_are_left_out():
    class Own:
        def fit(self, features, targets, groups, seed, weights=None):
            return len(features), len(weights)

    weights = np.ones((N, 2))
    weights[:3], weights[3:9, 0] = 0, 0
    assert fit_head(Own(), FEATURES, LABELS, GROUPS, 0, weights) == (N - 3, N - 3)


def test_a_head_that_takes_no_weights_is_named():
    class Own:
        def fit(self, features, targets, groups, seed):
            return "fitted"

    assert fit_head(Own(), FEATURES, NUMBERS, GROUPS, 0, None) == "fitted"
    with pytest.raises(ConfigError, match="head: Own takes no weights.*class_weights to none"):
        fit_head(Own(), FEATURES, NUMBERS, GROUPS, 0, WHOLE)
