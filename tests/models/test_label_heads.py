"""Heads on frozen features that give the probabilities of several labels."""

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier

from foldsmith.errors import ConfigError
from foldsmith.models.feature_heads import MeanHead
from foldsmith.models.kernel_labels import KernelLabelsHead
from foldsmith.models.label_heads import LabelsHead, TreesLabelsHead
from foldsmith.models.logistic_curves import logistic_curve
from foldsmith.models.logistic_head import LogisticHead
from foldsmith.models.ridge_head import RidgeHead
from foldsmith.models.svr_head import SVRHead
from foldsmith.models.trees_head import TreesHead
from foldsmith.targets.label_metrics import METRICS_OF_LABELS

LOGISTIC = LabelsHead(LogisticHead((0.0, 1.0), C=(0.01, 0.1)))
HEADS = {
    "kernel": KernelLabelsHead(alpha=(0.1, 1.0), gamma=(0.5, 1.0)),
    "logistic": LOGISTIC,
    "trees": TreesLabelsHead(40),
    "svr": LabelsHead(SVRHead(C=(1.0,))),
    "ridge": LabelsHead(RidgeHead((10.0,))),
    "mean": MeanHead((KernelLabelsHead((0.1,), (1.0,)), TreesLabelsHead(40))),
}


def data(n=160, n_features=20, n_labels=3, seed=0):
    """Features, and labels of which the last one is a curved function of them."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, n_features))
    scores = features[:, :n_labels] * 2 - 0.7
    scores[:, -1] = features[:, 0] * features[:, 1] * 3 - 0.5
    labels = (rng.random((n, n_labels)) < 1 / (1 + np.exp(-scores))).astype(float)
    return features.astype(np.float32), labels, np.arange(n) // 2


@pytest.mark.parametrize("name", HEADS)
def test_each_learns_and_is_restored(name):
    features, labels, groups = data()
    head = HEADS[name]
    fitted = head.fit(features[:120], labels[:120], groups[:120], 0)
    found = fitted.predict(features[120:])
    assert found.shape == (40, 3)
    assert ((found >= 0) & (found <= 1)).all()
    assert METRICS_OF_LABELS["AUC"](found[:, :2], labels[120:, :2]) > 0.75
    frequencies = np.broadcast_to(labels[:120].mean(axis=0), (40, 3))
    loss = METRICS_OF_LABELS["LogLoss"]
    assert loss(found[:, :2], labels[120:, :2]) < loss(frequencies[:, :2], labels[120:, :2])
    assert (head.restore(fitted.arrays()).predict(features[120:]) == found).all()


@pytest.mark.parametrize("name", HEADS)
def test_the_order_of_labels_changes_nothing(name):
    features, labels, groups = data()
    order = [2, 0, 1]
    found = HEADS[name].fit(features, labels, groups, 0).predict(features)
    moved = HEADS[name].fit(features, labels[:, order], groups, 0).predict(features)
    if name in ("trees", "mean"):
        # Sums in another order may choose another one of two equal splits.
        assert np.abs(moved - found[:, order]).mean() < 0.01
        return
    assert moved == pytest.approx(found[:, order], abs=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_a_label_without_an_image_has_a_small_probability(name):
    features, labels, groups = data()
    labels[:, 1] = 0
    found = HEADS[name].fit(features, labels, groups, 0).predict(features)
    assert np.isfinite(found).all()
    assert (found[:, 1] < 0.05).all()


def test_trees_are_those_of_scikit_learn():
    features, labels, groups = data()
    model = ExtraTreesClassifier(
        40, min_samples_leaf=3, max_features=0.3, random_state=0, n_jobs=1
    ).fit(features, labels)
    expected = np.stack([each[:, 1] for each in model.predict_proba(features)], axis=1)
    fitted = HEADS["trees"].fit(features, labels, groups, 0)
    # The same but for splits that are equally good, which rounding decides between.
    assert np.abs(fitted.predict(features) - expected).mean() < 0.01
    # One label alone is a column too.
    one = HEADS["trees"].fit(features, labels[:, :1], groups, 0).predict(features)
    number = TreesHead(40).fit(features, labels[:, 0], groups, 0).predict(features)
    assert one == pytest.approx(number[:, None])


def test_a_curve_is_fitted_to_numbers_that_were_held_out():
    features, _, groups = data(n=60, n_features=100)
    labels = (np.random.default_rng(5).random((60, 2)) < 0.3).astype(float)
    head = LabelsHead(RidgeHead((1e-3,)))
    # The ridge knows its own rows by heart, and nothing of others.
    found = head.fit(features, labels, groups, 0).predict(features)
    assert np.abs(found - labels.mean(axis=0)).mean() < 0.25


def test_one_label_is_two_classes():
    features, labels, groups = data(n_labels=1)
    of_label = LOGISTIC.fit(features, labels, groups, 0).predict(features)
    of_classes = LOGISTIC.head.fit(features, labels[:, 0], groups, 0).predict(features)
    assert (of_label[:, 0] == of_classes[:, 1]).all()


def test_the_logistic_curve_is_that_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    scores = rng.normal(0.3, 0.2, 4000)
    labels = (rng.random(4000) < 1 / (1 + np.exp(-(scores * 6 - 2)))).astype(float)
    slope, intercept = logistic_curve(scores, labels)
    wanted = LogisticRegression(C=1e6).fit(scores[:, None], labels)
    assert slope == pytest.approx(float(wanted.coef_[0, 0]), rel=0.02)
    assert intercept == pytest.approx(float(wanted.intercept_[0]), rel=0.02)
    # Scores that separate the labels leave it finite, falling ones make it flat.
    assert np.isfinite(logistic_curve(np.arange(10.0), (np.arange(10) > 4) * 1.0)).all()
    assert logistic_curve(np.arange(10.0), (np.arange(10) < 5) * 1.0)[0] == 0
    # Platt's target of 8 absent labels is 1 / (8 + 2), not 0.
    assert logistic_curve(np.arange(8.0), np.zeros(8)) == pytest.approx([0, -np.log(9)])


def test_heads_of_something_else_are_refused():
    with pytest.raises(ConfigError, match="LabelsHead: head: LogisticHead must give a number or"):
        LabelsHead(LogisticHead((0.0, 1.0, 2.0)))
    with pytest.raises(ConfigError, match="LabelsHead: head: KernelLabelsHead must give"):
        LabelsHead(KernelLabelsHead())
    with pytest.raises(ConfigError, match="heads: must all give numbers, probabilities of"):
        MeanHead((KernelLabelsHead(), RidgeHead()))
