import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldsmith.blending.weights import blend, equal_weights, optimise_weights
from foldsmith.tasks.metrics import rmse

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
    weights = optimise_weights(predictions, targets, RANGE, n_trials=15, step=0.001, seed=seed)
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
    weights = optimise_weights(np.stack([good, bad]), targets, RANGE, 150, 0.001, seed=0)
    assert weights[0] > 0.8 > 0.2 > weights[1]


def test_the_same_seed_finds_the_same_weights():
    predictions, targets = members(1)
    first = optimise_weights(predictions, targets, RANGE, 30, 0.001, seed=4)
    again = optimise_weights(predictions, targets, RANGE, 30, 0.001, seed=4)
    other = optimise_weights(predictions, targets, RANGE, 30, 0.001, seed=5)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_blends_are_clipped():
    predictions = np.array([[3.0, 0.0], [3.0, 1.0]])
    assert blend(predictions, np.array([1.0, 1.0]), RANGE).tolist() == [3.0, 1.0]
    assert blend(predictions, equal_weights(2), RANGE).tolist() == pytest.approx([3.0, 0.5])
