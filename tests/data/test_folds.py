import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldsmith.config.project import FoldSettings
from foldsmith.data.folds import assign_folds, strata
from foldsmith.errors import DataError

METHODS = ["StratifiedGroupKFold", "GroupKFold", "StratifiedKFold", "KFold"]


@st.composite
def labelled(draw):
    """A table in which every class and the groups are large enough for the folds."""
    n_splits = draw(st.integers(2, 5))
    n_classes = draw(st.integers(2, 4))
    per_class = draw(st.integers(n_splits, 12))
    seed = draw(st.integers(0, 2**20))
    targets = np.repeat(np.arange(n_classes), per_class)
    rng = np.random.default_rng(seed)
    targets = rng.permutation(targets)
    # Series of mostly one work, some of two.
    groups = np.arange(len(targets))
    pairs = rng.permutation(len(targets))[: 2 * (len(targets) // 6)].reshape(-1, 2)
    groups[pairs[:, 1]] = groups[pairs[:, 0]]
    return n_splits, seed, pd.Series(targets), pd.Series(groups).astype(str)


@settings(max_examples=60, deadline=None)
@given(labelled(), st.sampled_from(METHODS))
def test_laws_of_every_method(table, method):
    n_splits, seed, targets, groups = table
    chosen = FoldSettings(method=method, n_splits=n_splits, seed=seed)
    try:
        folds = assign_folds(chosen, targets, groups)
    except DataError as error:
        assert "left fold" in str(error) and method == "StratifiedGroupKFold"
        return
    # Every row is in one fold, and no fold is empty.
    assert set(folds) == set(range(n_splits))
    if "Group" in method:
        assert (pd.Series(folds).groupby(groups).nunique() == 1).all()
    if method == "StratifiedKFold":
        counts = pd.crosstab(folds, targets)
        assert (counts.max() - counts.min()).max() <= 1
    np.testing.assert_array_equal(folds, assign_folds(chosen, targets, groups))


def test_class_shares_are_balanced_in_grouped_folds():
    rng = np.random.default_rng(0)
    targets = pd.Series(rng.choice(4, size=4000, p=[0.12, 0.23, 0.38, 0.27]))
    groups = pd.Series(rng.integers(0, 3700, size=4000))
    folds = assign_folds(FoldSettings(n_splits=5, seed=1086), targets, groups)
    shares = pd.crosstab(folds, targets, normalize="index")
    assert (shares.max() - shares.min()).max() < 0.02


def test_another_seed_gives_other_folds():
    targets = pd.Series(np.arange(60) % 3)
    first = assign_folds(FoldSettings(method="KFold", seed=0), targets, None)
    other = assign_folds(FoldSettings(method="KFold", seed=1), targets, None)
    assert (first != other).any()


def test_a_continuous_target_is_stratified_by_its_deciles():
    values = pd.Series(np.random.default_rng(0).normal(size=1000))
    counts = np.bincount(strata(values))
    assert len(counts) == 10
    assert counts.min() > 80


@pytest.mark.parametrize(
    ("method", "targets", "groups", "message"),
    [
        ("StratifiedKFold", [0, 0, 0, 0, 1], None, "a class has 1 members, fewer than 2"),
        ("GroupKFold", [0, 1, 0, 1], ["a"] * 4, "1 groups cannot fill 2 folds"),
        ("GroupKFold", [0, 1, 0, 1], ["a", "b", None, "c"], "needs a group in every row"),
        ("KFold", [0], None, "1 labelled photos cannot fill 2 folds"),
    ],
)
def test_what_cannot_be_split_is_said(method, targets, groups, message):
    series = None if groups is None else pd.Series(groups)
    with pytest.raises(DataError, match=message):
        assign_folds(FoldSettings(method=method, n_splits=2), pd.Series(targets), series)
