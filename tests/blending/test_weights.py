import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from foldsmith.blending.weights import (
    blend,
    box_weights,
    equal_weights,
    search_weights,
    simplex_weights,
)
from foldsmith.targets.metrics import Metric
from foldsmith.targets.scores_of_values import rmse

RANGE = (0.0, 3.0)


def members(seed, n_members=3, n=200):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 4, n).astype(float)
    noise = rng.uniform(0.3, 1.5, size=(n_members, 1))
    return np.clip(targets + noise * rng.normal(size=(n_members, n)), *RANGE), targets


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_laws_of_the_weights(seed, n_members):
    predictions, targets = members(seed, n_members)
    weights = search_weights(predictions, targets, RANGE, n_trials=15, step=0.001, seed=seed)
    assert weights.shape == (n_members,)
    assert ((weights >= 0) & (weights <= 1)).all()
    np.testing.assert_allclose(weights / 0.001, np.round(weights / 0.001), atol=1e-6)
    start = np.full(n_members, round(1 / n_members, 3))
    # Never worse than where it starts, the plain average on the grid.
    found = rmse(blend(predictions, weights, RANGE), targets)
    assert found <= rmse(blend(predictions, start, RANGE), targets) + 1e-12


def test_the_search_prefers_the_better_member():
    targets = np.arange(100) % 4.0
    rng = np.random.default_rng(0)
    good = np.clip(targets + 0.1 * rng.normal(size=100), 0, 3)
    bad = rng.uniform(0, 3, size=100)
    weights = search_weights(np.stack([good, bad]), targets, RANGE, 150, 0.001, seed=0)
    assert weights[0] > 0.8 > 0.2 > weights[1]


def test_the_same_seed_finds_the_same_weights():
    predictions, targets = members(1)
    first = search_weights(predictions, targets, RANGE, 30, 0.001, seed=4)
    again = search_weights(predictions, targets, RANGE, 30, 0.001, seed=4)
    other = search_weights(predictions, targets, RANGE, 30, 0.001, seed=5)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_blends_are_clipped():
    predictions = np.array([[3.0, 0.0], [3.0, 1.0]])
    assert blend(predictions, np.array([1.0, 1.0]), RANGE).tolist() == [3.0, 1.0]
    assert blend(predictions, equal_weights(2), RANGE).tolist() == pytest.approx([3.0, 0.5])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
@example(197, 2)  # the clipped error has another minimum beside the one of the plain sum
def test_the_exact_weights_are_never_worse_than_those_of_a_search(seed, n_members):
    predictions, targets = members(seed, n_members)
    exact = box_weights(predictions, targets, RANGE)
    assert ((exact >= 0) & (exact <= 1)).all()
    found = search_weights(predictions, targets, RANGE, n_trials=60, step=0.001, seed=seed)
    best = rmse(blend(predictions, exact, RANGE), targets)
    assert best <= rmse(blend(predictions, found, RANGE), targets) + 1e-9
    # Nor than any other point of the box.
    others = np.random.default_rng(seed).uniform(0, 1, (200, n_members))
    assert best <= min(rmse(blend(predictions, w, RANGE), targets) for w in others) + 1e-9


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_the_simplex_weights_are_the_best_of_the_simplex(seed, n_members):
    predictions, targets = members(seed, n_members, n=100)
    weights = simplex_weights(predictions, targets)
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1)
    best = rmse(weights @ predictions, targets)
    rng = np.random.default_rng(seed)
    others = [*rng.dirichlet(np.ones(n_members), 200), *np.eye(n_members)]
    # Convex: the best of a small surrounding is the best of all.
    others += [0.99 * weights + 0.01 * other for other in others]
    assert best <= min(rmse(w @ predictions, targets) for w in others) + 1e-9


def test_a_perfect_member_takes_all():
    targets = np.arange(100) % 4.0
    bad = np.random.default_rng(0).uniform(0, 3, size=100)
    for weights in (
        simplex_weights(np.stack([bad, targets]), targets),
        box_weights(np.stack([bad, targets]), targets, RANGE),
    ):
        np.testing.assert_allclose(weights, [0, 1], atol=1e-6)


def test_a_search_follows_the_metric_that_is_named():
    predictions, targets = members(2)
    for greater_is_better in (False, True):
        total = Metric("sum", lambda p, t: float(p.sum()), greater_is_better=greater_is_better)
        weights = search_weights(predictions, targets, RANGE, 40, 0.001, seed=0, metric=total)
        # The lowest or the highest sum, whatever the error.
        assert weights.max() > 0.7 if greater_is_better else weights.max() < 0.3
