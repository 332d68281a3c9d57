"""Weights of rows and of classes in the training of a fold."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldsmith.errors import DataError
from foldsmith.project.class_forms import ClassTargets
from foldsmith.project.column_forms import Classes, OneNumber
from foldsmith.project.label_forms import LabelsInColumns
from foldsmith.targets.row_weights import training_weights

CLASSES = Classes("animal", (0, 2), (0.0, 1.0, 2.0), ("cat", "dog", "lynx"))
LABELS = LabelsInColumns(("red", "blue"))
NUMBER = OneNumber("price", (0, 9), tuple(map(float, range(10))))


def project(form, column=None):
    settings = SimpleNamespace(sample_weight_column=column, train_csv="train.csv")
    return SimpleNamespace(form=form, settings=settings, data_dir=Path("input"))


animals = st.lists(st.sampled_from(["cat", "dog", "lynx"]), min_size=6, max_size=20)


@given(animals, st.data())
def test_the_mean_of_a_training_is_1_and_balanced_classes_weigh_alike(names, data):
    n = len(names)
    rows = data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
    seen = np.arange(n) % 3 > 0
    if not any(w for w, there in zip(rows, seen, strict=True) if there):
        rows[1] = 1
    table = pd.DataFrame({"animal": names, "w": [str(w) for w in rows]})
    weights = training_weights(project(CLASSES, "w"), "balanced", table, seen)
    if weights is None:
        return
    assert weights[seen].mean() == pytest.approx(1)
    sums = {name: weights[seen & (table["animal"] == name)].sum() for name in set(names)}
    there = [total for total in sums.values() if total > 0]
    np.testing.assert_allclose(there, there[0])
    # Whole weights are repeated rows.
    again = np.repeat(np.arange(n), rows)
    repeated = training_weights(
        project(CLASSES), "balanced", table.iloc[again].reset_index(drop=True), seen[again]
    )
    repeated = np.ones(len(again)) if repeated is None else repeated
    of_row = {}
    for row, weight in zip(again, repeated, strict=True):
        of_row[row] = of_row.get(row, 0) + weight
    learned = [row for row in of_row if seen[row]]
    ratio = np.array([weights[row] / of_row[row] for row in learned])
    np.testing.assert_allclose(ratio, ratio[0])


@given(st.floats(0.25, 8), animals)
def test_equal_weights_are_none(weight, names):
    table = pd.DataFrame({"animal": names, "w": weight})
    seen = np.ones(len(names), bool)
    assert training_weights(project(CLASSES, "w"), None, table, seen) is None
    assert training_weights(project(CLASSES, "w"), "none", table, seen) is None
    assert training_weights(project(CLASSES), {"cat": 2, "dog": 2, "lynx": 2}, table, seen) is None


def test_given_weights_are_of_their_classes():
    table = pd.DataFrame({"animal": ["cat", "cat", "dog", "lynx"]})
    weights = training_weights(project(CLASSES), {"lynx": 4}, table, np.ones(4, bool))
    np.testing.assert_allclose(weights, np.array([1, 1, 1, 4]) / 1.75)


def test_labels_have_weights_of_their_own():
    table = pd.DataFrame({"red": [1, 0, 0, 0], "blue": [1, 1, 0, 0]})
    seen = np.ones(4, bool)
    balanced = training_weights(project(LABELS), "balanced", table, seen)
    np.testing.assert_allclose(balanced[:, 0], [2, 2 / 3, 2 / 3, 2 / 3])
    np.testing.assert_allclose(balanced[:, 1], 1)
    given = training_weights(project(LABELS), {"red": 5}, table, seen)
    np.testing.assert_allclose(given[:, 0], np.array([5, 1, 1, 1]) / 2)
    np.testing.assert_allclose(given[:, 1], 1)


def test_balanced_labels_count_the_weights_of_the_rows_that_are_trained_on():
    table = pd.DataFrame({"red": [1, 0, 0, 1], "blue": [1, 1, 1, 0], "w": ["1", "2", "1", "5"]})
    seen = np.array([True, True, True, False])
    weights = training_weights(project(LABELS, "w"), "balanced", table, seen)
    np.testing.assert_allclose(weights[:, 0], [1.5, 1, 0.5, 7.5])
    # All images of the training have this label: there is nothing to balance.
    np.testing.assert_allclose(weights[:, 1], [0.75, 1.5, 0.75, 3.75])


@pytest.mark.parametrize("red", [[1, 1, 1], [1, 1, 0]])
def test_a_label_without_weight_is_named(red):
    table = pd.DataFrame({"red": red, "blue": [1, 0, 0]})
    seen = np.array([True, True, False])
    message = "class_weights: every row .* has the weight 0 for the label red; give one"
    with pytest.raises(DataError, match=message):
        training_weights(project(LABELS), {"red": 0}, table, seen)


def test_a_training_of_classes_without_weight_is_refused():
    table = pd.DataFrame({"animal": ["cat", "cat", "dog"]})
    seen = np.array([True, True, False])
    with pytest.raises(DataError, match="class_weights: every row that a fold is trained on has"):
        training_weights(project(CLASSES), {"cat": 0}, table, seen)


def test_a_class_of_the_held_out_fold_alone_has_the_weight_of_the_rarest():
    table = pd.DataFrame({"animal": ["cat", "cat", "cat", "dog", "lynx"]})
    seen = np.arange(5) < 4
    weights = training_weights(project(CLASSES), "balanced", table, seen)
    np.testing.assert_allclose(weights, np.array([1, 1, 1, 3, 3]) * 2 / 3)


def test_rows_that_are_held_out_do_not_make_weights_unequal():
    table = pd.DataFrame({"price": [1, 2, 3], "w": ["2", "2", "7"]})
    seen = np.array([True, True, False])
    assert training_weights(project(NUMBER, "w"), None, table, seen) is None


def test_numbers_that_are_no_classes_are_named():
    table = pd.DataFrame({"price": [1.5, 2.25]})
    with pytest.raises(
        DataError, match="column price: the targets .1.5 to 2.25. are not all among"
    ):
        training_weights(project(NUMBER), "balanced", table, np.ones(2, bool))


def test_a_training_of_rows_without_weight_is_refused():
    table = pd.DataFrame({"price": [1, 2, 3], "w": ["0", "0", "1"]})
    with pytest.raises(DataError, match="column w: every row that a fold is trained on"):
        training_weights(project(NUMBER, "w"), None, table, np.array([True, True, False]))


def test_several_class_targets_are_balanced_each_by_itself():
    """As classes, over the images that have the target; the mean of these is 1."""
    form = ClassTargets((("animal", ("cat", "dog", "lynx")), ("sex", ("f", "m"))))
    names = ["cat"] * 6 + ["dog"] * 3 + ["lynx"] * 1 + [""] * 2
    table = pd.DataFrame({"animal": names, "sex": ["f", "f", "f", "m"] * 3})
    seen = np.arange(12) != 11
    weights = training_weights(project(form), "balanced", table, seen)
    assert weights.shape == (12, 2)
    there = table["animal"] != ""
    alone = table[there].reset_index(drop=True)
    animal = training_weights(project(CLASSES), "balanced", alone, np.ones(10, bool))
    np.testing.assert_allclose(weights[there, 0], animal)
    assert weights[seen, 1].mean() == pytest.approx(1)
    given = training_weights(project(form), {"animal=lynx": 3.0}, table, seen)
    assert given[9, 0] == pytest.approx(3 * given[0, 0])
