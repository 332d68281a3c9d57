import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldsmith.data.folds import (
    ClassSizes,
    assign_folds,
    few_groups_warning,
    own_folds,
    strata,
    torn_groups,
)
from foldsmith.errors import DataError
from foldsmith.project.settings import FoldSettings

METHODS = ["StratifiedGroupKFold", "GroupKFold", "StratifiedKFold", "KFold"]


def spread(targets, folds):
    """Return by how many images of a class two folds differ at most."""
    counts = pd.crosstab(folds, targets)
    return (counts.max() - counts.min()).max()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=60),
    st.integers(2, 6),
    st.integers(0, 2**20),
)
def test_every_class_is_spread_evenly_however_many_and_small_they_are(sizes, n_splits, seed):
    targets = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    targets = pd.Series(targets.astype(float) * 7 - 3)
    chosen = FoldSettings(method="StratifiedKFold", n_splits=n_splits, seed=seed)
    if len(targets) < n_splits:
        return
    folds = assign_folds(chosen, targets, None, classes=True)
    assert set(folds) == set(range(n_splits)) and spread(targets, folds) <= 1


def test_many_values_with_enough_rows_are_strata_without_being_called_classes():
    targets = pd.Series(np.random.default_rng(0).permutation(np.repeat(np.arange(30.0), 10)))
    folds = assign_folds(FoldSettings(method="StratifiedKFold"), targets, None)
    assert (pd.crosstab(folds, targets) == 2).all(axis=None)


def test_classes_of_groups_with_fewer_members_than_folds_are_spread():
    # 40 classes of three images, each image a group of its own: three folds have one of them.
    targets = pd.Series(np.arange(120) % 40)
    groups = pd.Series(np.arange(120)).astype(str)
    folds = assign_folds(FoldSettings(), targets, groups, classes=True)
    assert pd.crosstab(folds, targets).max(axis=None) == 1
    assert np.bincount(folds).tolist() == [24] * 5


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 5), st.integers(0, 1), st.integers(0, 2**20), st.sampled_from(["", ".0"]))
def test_folds_of_one_s_own_are_taken_as_they_are(n_splits, first, seed, ending):
    rng = np.random.default_rng(seed)
    folds = rng.permutation(np.concatenate([np.arange(n_splits), rng.integers(0, n_splits, 20)]))
    own = own_folds(pd.Series([f"{fold + first}{ending}" for fold in folds]))
    assert (own.n_splits, own.first) == (n_splits, first)
    np.testing.assert_array_equal(own.folds, folds)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["0", "", "1", None], "2 rows have no fold; folds are whole numbers"),
        (["train", "valid", "train"], "train, valid are no fold"),
        (["0", "1", "1.5", ""], "1 row has no fold and 1.5 is no fold"),
        (["2", "3"], "the first fold is 2"),
        (["-1", "0", "1"], "the first fold is -1"),
        (["0", "1", "3"], "no row is in fold 2, but rows are in fold 3"),
        (["0", "99999999"], "no row is in fold 1, but rows are in fold 99999999"),
        (["0", "inf"], "inf is no fold"),
        (["1", "1"], "all rows are in one fold"),
    ],
)
def test_a_column_that_is_no_folds_is_refused(values, message):
    with pytest.raises(DataError, match=message):
        own_folds(pd.Series(values))


def test_groups_in_several_folds_are_named():
    assert torn_groups([0, 1, 1, 0], pd.Series(["b", "a", "a", "b"])) == []
    assert torn_groups([0, 1, 1, 0], pd.Series(["b", "b", "a", "a"])) == ["a", "b"]


def test_a_score_of_few_groups_is_called_rough():
    assert few_groups_warning(10) is None
    assert few_groups_warning(9).startswith("only 9 groups: scores out of fold are rough")
    assert few_groups_warning(1).startswith("only 1 group: ")


def test_classes_are_counted_and_small_ones_named():
    sizes = ClassSizes.of(["b", "a", "b", "b"], ["b", "a", "never"])
    assert sizes.summary() == "3 classes: b 3, a 1, never 0"
    assert sizes.warning(1) is not None and ClassSizes.of(["a", "a"]).warning(2) is None
    assert sizes.warning(3).startswith("2 classes have fewer images than the 3 folds")
    assert "never 0, a 1; a class with a single image" in sizes.warning(3)
    many = ClassSizes.of([f"class\n{k}" for k in range(30) for _ in range(k + 1)])
    assert many.summary() == (
        "30 classes of 1 to 30 images (fewest: class 0 1, class 1 2, class 2 3; most: class 29 "
        "30, class 28 29, class 27 28)"
    )
    assert many.warning(40).endswith(
        "class 8 9, class 9 10, and 20 more; a class with a single image is judged by models "
        "that have never seen it"
    )


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
    counts = np.bincount(strata(values, 5))
    assert len(counts) == 10
    assert counts.min() > 80


@pytest.mark.parametrize(
    ("method", "targets", "groups", "message"),
    [
        ("GroupKFold", [0, 1, 0, 1], ["a"] * 4, "1 group cannot fill 2 folds"),
        ("GroupKFold", [0, 1, 0, 1], ["a", "b", None, "c"], "needs a group in every row"),
        ("GroupKFold", [0, 1, 0, 1], ["a", "b", " ", "c"], "needs a group in every row"),
        ("KFold", [0], None, "1 labelled image cannot fill 2 folds"),
    ],
)
def test_what_cannot_be_split_is_said(method, targets, groups, message):
    series = None if groups is None else pd.Series(groups)
    with pytest.raises(DataError, match=message):
        assign_folds(FoldSettings(method=method, n_splits=2), pd.Series(targets), series)


def test_the_rarest_class_is_named_with_its_share_and_a_key_that_may_help():
    hint = ClassSizes({"cat:": 39, "dog:": 52, "lynx:": 9}).imbalance(100)
    assert hint is not None and "the rarest class, lynx, has 9 of 100 images (9.0%)" in hint
    assert "class_weights: balanced" in hint
    assert ClassSizes({"cat:": 39, "dog:": 48, "lynx:": 13}).imbalance(100) is None
    assert ClassSizes({"red": 90, "blue": 10}, "labels").imbalance(100) is None
    rare = ClassSizes({"red": 90, "blue": 9}, "labels").imbalance(100)
    assert rare is not None and "the rarest label, blue, has 9 of 100 images (9.0%)" in rare
