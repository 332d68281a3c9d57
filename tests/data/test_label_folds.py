"""Folds that balance several labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldsmith.data.folds import assign_folds
from foldsmith.data.label_folds import iterative_folds
from foldsmith.project.settings import FoldSettings

SHARES = np.array([0.5, 0.3, 0.15, 0.1, 0.05, 0.02])


def labels_of(seed, n=300):
    rng = np.random.default_rng(seed)
    return (rng.random((n, len(SHARES))) < SHARES).astype(np.int64)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), n_splits=st.integers(2, 7), grouped=st.booleans())
def test_laws_of_iterative_stratification(seed, n_splits, grouped):
    labels, rng = labels_of(seed), np.random.default_rng(seed)
    groups = rng.integers(0, 80, len(labels)) if grouped else None
    folds = iterative_folds(labels, n_splits, seed, groups)
    assert sorted(set(folds)) == list(range(n_splits))
    if groups is not None:
        assert all(len(set(folds[groups == group])) == 1 for group in set(groups))
    else:
        # The rarest label first, so that it is spread as evenly as can be.
        rarest = np.bincount(folds[labels[:, labels.sum(axis=0).argmin()] == 1], minlength=n_splits)
        assert np.ptp(rarest) <= 1
    # The same draws give the same folds, and the order of the labels changes nothing.
    order = rng.permutation(labels.shape[1])
    assert (iterative_folds(labels[:, order], n_splits, seed, groups) == folds).all()


def test_labels_are_spread_more_evenly_than_by_chance():
    method = {"plain": "KFold", "balanced": "StratifiedKFold"}
    off = {name: [] for name in method}
    for seed in range(5):
        labels = labels_of(seed).astype(float)
        for name, each in method.items():
            folds = assign_folds(FoldSettings(method=each, seed=seed), labels, None)
            counts = np.array([labels[folds == fold].sum(axis=0) for fold in range(5)])
            off[name].append(np.abs(counts - counts.mean(axis=0)).max(axis=0))
            assert np.ptp(np.bincount(folds)) <= 4
    assert np.mean(off["balanced"]) < 0.25 * np.mean(off["plain"])
    assert np.max(off["balanced"]) <= 3


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), n=st.integers(20, 60))
def test_one_label_is_spread_like_two_classes(seed, n):
    label = (np.random.default_rng(seed).random(n) < 0.4).astype(float)
    of_label = assign_folds(FoldSettings(method="StratifiedKFold"), label[:, None], None)
    for value in (0, 1):
        assert np.ptp(np.bincount(of_label[label == value], minlength=5)) <= 2
    assert np.ptp(np.bincount(of_label[label == 1], minlength=5)) <= 1
    assert np.ptp(np.bincount(of_label, minlength=5)) <= 1


@pytest.mark.parametrize("method", ["GroupKFold", "KFold"])
def test_other_methods_divide_rows_of_labels_too(method):
    import pandas as pd

    labels = labels_of(0, n=40).astype(float)
    groups = pd.Series(np.arange(40) // 2)
    folds = assign_folds(FoldSettings(method=method), labels, groups)
    assert np.bincount(folds).tolist() == [8] * 5
