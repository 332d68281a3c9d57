"""The head that gives probabilities of classes by a kernel."""

import numpy as np
import pytest
from scipy.special import softmax

from foldsmith.errors import ConfigError
from foldsmith.models.feature_heads import MeanHead
from foldsmith.models.fitted_heads import gaussians
from foldsmith.models.kernel_head import (
    KernelHead,
    _sharpest,
    held_out_scores,
    parts_of_groups,
    some_rows,
)
from foldsmith.models.ridge_head import RidgeHead
from foldsmith.models.svr_head import SVRHead

VALUES = (1.0, 2.0, 5.0)


@pytest.fixture
def rings():
    """Three classes by the distance from the middle: features (120, 6), targets, groups."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(120, 3)).astype(np.float32)
    distance = np.linalg.norm(features[:, :2], axis=1)
    classes = np.digitize(distance, np.quantile(distance, [1 / 3, 2 / 3]))
    return features, np.array(VALUES)[classes], np.arange(120) // 2


def test_it_learns_what_no_line_divides(rings):
    features, targets, groups = rings
    head = KernelHead(VALUES).fit(features[:90], targets[:90], groups[:90], 0)
    probabilities = head.predict(features[90:])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    right = np.array(VALUES)[probabilities.argmax(axis=1)] == targets[90:]
    assert right.mean() > 0.6  # by chance a third
    again = KernelHead(VALUES).restore(head.arrays())
    np.testing.assert_array_equal(again.predict(features), head.predict(features))


def test_held_out_scores_are_those_of_fits_without_the_part(rings):
    features, targets, groups = rings
    wanted = (targets[:, None] == np.array(VALUES)).astype(float)
    kernel, alpha, means = gaussians(features, features, 0.1), 0.3, wanted.mean(axis=0)
    values, vectors = np.linalg.eigh(kernel)
    parts = parts_of_groups(groups)
    found = held_out_scores(values + alpha, vectors, wanted, parts)
    for part in parts:
        others = np.setdiff1d(np.arange(len(groups)), part)
        assert not set(groups[part]) & set(groups[others])
        inner = kernel[np.ix_(others, others)] + alpha * np.eye(len(others))
        weights = np.linalg.solve(inner, wanted[others] - means)
        expected = kernel[np.ix_(part, others)] @ weights + means
        np.testing.assert_allclose(found[part], expected, atol=1e-6)


def test_the_sharpness_has_the_least_log_loss(rings):
    wanted = (rings[1][:, None] == np.array(VALUES)).astype(float)
    scores = wanted * 0.3 + np.random.default_rng(1).normal(0, 0.3, wanted.shape)

    def loss(factor):
        return -np.log(softmax(factor * scores, axis=1)[wanted > 0]).mean()

    least, factor = _sharpest(scores, wanted)
    assert least == pytest.approx(loss(factor))
    assert least <= min(loss(each) for each in (factor * 0.9, factor * 1.1, 1.0, 30.0))


def test_of_many_rows_whole_groups_choose(monkeypatch):
    monkeypatch.setattr("foldsmith.models.kernel_head.CHOSEN_BY", 20)
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(30), 4))
    rows = some_rows(groups, 0)
    assert len(rows) == 20
    assert np.unique(groups[rows]).size == 5
    np.testing.assert_array_equal(rows, some_rows(groups, 0))
    assert set(groups[rows]) != set(groups[some_rows(groups, 1)])


def test_classes_and_groups_that_are_alone(rings):
    features, targets, groups = rings
    known = targets != 2
    head = KernelHead(VALUES).fit(features[known], targets[known], groups[known], 0)
    assert (head.predict(features)[:, 1] == 0).all()
    of_one = KernelHead(VALUES).fit(features, np.full(120, 5.0), groups, 0).predict(features)
    np.testing.assert_allclose(of_one, np.tile([0.0, 0.0, 1.0], (120, 1)))
    single = KernelHead(VALUES).fit(features, targets, np.zeros(120, int), 0)
    assert np.isfinite(single.predict(features)).all()
    fewest = KernelHead(VALUES).fit(features[:1], targets[:1], groups[:1], 0).predict(features)
    assert fewest[:, VALUES.index(targets[0])].min() == 1


@pytest.mark.parametrize("arguments", [{"alpha": ()}, {"gamma": (0.0, 1.0)}])
def test_strengths_and_widths_must_be_above_0(arguments):
    with pytest.raises(ConfigError, match=f"{next(iter(arguments))}: .* must be numbers above 0"):
        KernelHead(VALUES, **arguments)


def test_the_parts_of_its_time_are_those_of_the_fit(monkeypatch):
    """The choice is by a limited number of rows; what then is fitted to all grows on."""
    monkeypatch.setattr("foldsmith.models.kernel_head.CHOSEN_BY", 30)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 4)).astype(np.float32)
    targets, groups = rng.choice(VALUES, 60), np.arange(60)
    choice, rest = KernelHead(VALUES).time_parts(4)
    assert (choice.rows, choice.power, rest.rows) == (30, 0, None)
    assert choice.fit(features, targets, groups, 0) is None
    predicted = rest.fit(features, targets, groups, 0).predict(features)
    assert predicted.shape == (60, len(VALUES))
    # The mean of heads has the parts of all; a ridge regression decomposes no larger matrix than
    # the one of its features.
    parts = MeanHead((RidgeHead(), SVRHead())).time_parts(4)
    assert [(part.rows, part.power) for part in parts] == [(4, 1), (None, 0)]
