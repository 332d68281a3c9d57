import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldsmith.inference.probes import effective_rank, knn_oof, ridge_oof


def draw(seed, n=40, dim=6):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, dim)) + 1
    folds = rng.permutation(np.arange(n) % 4)
    return rng, features, features[:, 0] + 0.1 * rng.normal(size=n), folds


@pytest.mark.parametrize("probe", [knn_oof, ridge_oof])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_a_fold_says_nothing_about_itself(probe, seed):
    # Whatever stands in a fold, its images are predicted from the other folds alone.
    rng, features, targets, folds = draw(seed)
    before = probe(features, targets, folds)
    for fold in range(4):
        inside = folds == fold
        other_targets = np.where(inside, rng.normal(size=len(targets)) * 100, targets)
        np.testing.assert_array_equal(probe(features, other_targets, folds)[inside], before[inside])
        # One image's prediction does not depend on its neighbours in the fold either.
        first = np.flatnonzero(inside)[0]
        others = inside & (np.arange(len(folds)) != first)
        moved = np.where(others[:, None], rng.normal(size=features.shape) * 100, features)
        assert probe(moved, targets, folds)[first] == pytest.approx(before[first], rel=1e-9)


def test_a_leak_would_be_seen():
    # Pairs of equal images in one fold, targets of their own: only a leak could predict them.
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(50, 8)), 2, axis=0)
    targets = np.repeat(rng.normal(size=50), 2)
    folds = np.repeat(np.arange(50) % 5, 2)
    for predictions in (knn_oof(features, targets, folds, 1), ridge_oof(features, targets, folds)):
        assert np.corrcoef(predictions, targets)[0, 1] < 0.4


def test_the_ridge_probe_finds_what_is_linear():
    _, features, targets, folds = draw(1, n=200)
    error = ridge_oof(features * [1, 100, 1, 1, 0.01, 1], targets, folds) - targets
    assert np.sqrt((error**2).mean()) < 0.13


def test_neighbours_are_near_by_angle():
    features = np.array([[1.0, 0], [10, 1], [0, 1], [1, 10], [-1, 0], [-10, 1]])
    targets = np.array([0.0, 0, 1, 1, 2, 2])
    folds = np.array([0, 1, 0, 1, 0, 1])
    np.testing.assert_array_equal(knn_oof(features, targets, folds, 1), targets)
    # More neighbours than there are images: all of the other folds.
    assert knn_oof(features, targets, folds, 99) == pytest.approx([1.0] * 6)


def test_the_rank_counts_directions():
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0]
    for k in (1, 3, 16):
        features = np.tile(basis[:k], (4, 1))
        assert effective_rank(features) == pytest.approx(k, rel=1e-4)
    assert effective_rank(np.zeros((5, 3))) == 1
    wide = np.random.default_rng(1).normal(size=(5, 30))
    assert effective_rank(wide) == pytest.approx(effective_rank(wide.T))
    singular = np.linalg.svd(wide, compute_uv=False)
    share = singular / singular.sum()
    assert effective_rank(wide) == pytest.approx(np.exp(-(share * np.log(share)).sum()))


@pytest.mark.parametrize("probe", [knn_oof, ridge_oof])
def test_a_missing_target_is_left_out(probe):
    """Each target is fitted to the images that have it, and predicted for all."""
    rng = np.random.default_rng(0)
    features, folds = rng.normal(size=(40, 3)), np.arange(40) % 2
    targets = features @ rng.normal(size=(3, 2))
    targets[rng.random(40) < 0.3, 1] = np.nan
    found, there = probe(features, targets, folds), ~np.isnan(targets[:, 1])
    np.testing.assert_allclose(found[:, 0], probe(features, targets[:, 0], folds))
    alone = probe(features[there], targets[there, 1], folds[there])
    np.testing.assert_allclose(found[there, 1], alone)
    assert np.isfinite(found).all()
