import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from foldsmith.errors import DataError
from foldsmith.targets.classification import MultiClass, class_labels
from foldsmith.targets.corn import Corn
from foldsmith.targets.regression import Regression
from foldsmith.targets.scores_of_values import mae, rmse

FOUR = MultiClass((0.0, 1.0, 2.0, 3.0))


def test_classes_are_those_of_the_values():
    task = MultiClass((1.0, 3.0, 10.0))
    assert task.codes(np.array([10.0, 1.0, 3.0])).tolist() == [2, 0, 1]
    assert task.n_outputs == 3


def test_expectation_of_known_probabilities():
    probabilities = np.array([[0.1, 0.2, 0.3, 0.4], [0.25] * 4])
    logits = np.log(probabilities).astype(np.float32) + 7
    np.testing.assert_allclose(FOUR.predict(logits), [2.0, 1.5], rtol=1e-6)


@given(hnp.arrays(np.float32, (5, 4), elements=st.floats(-1e4, 1e4, width=32)))
def test_expectations_stay_within_the_class_values(logits):
    values = FOUR.predict(logits)
    assert np.isfinite(values).all()
    assert (values >= 0).all() and (values <= 3).all()


def test_averaging_folds_happens_in_probability_space():
    # Two folds, one sure of class 0 and one of class 3: probabilities average to 1.5; averaged
    # logits of unequal size would follow the louder fold.
    logits = np.array([[[20.0, 0, 0, 0]], [[0.0, 0, 0, 60]]], dtype=np.float32)
    assert FOUR.predict(logits).mean(axis=0) == pytest.approx([1.5])


def test_a_target_that_is_no_class_is_named():
    FOUR.check(np.array([0, 3], np.float32))
    with pytest.raises(DataError, match=r"the target 1\.5 is none of the class values 0, 1, 2, 3"):
        FOUR.check(np.array([0, 1.5], np.float32))


def test_regression_clips_and_keeps_a_column():
    task = Regression((0.0, 3.0))
    assert task.predict(np.array([[-1.0], [1.5], [9.0]], np.float32)).tolist() == [0, 1.5, 3]
    assert task.encode(torch.tensor([1.0, 2.0])).shape == (2, 1)


def test_metrics_by_hand():
    predictions, targets = np.array([1.0, 2.0, 4.0]), np.array([1.0, 4.0, 0.0])
    assert rmse(predictions, targets) == pytest.approx((20 / 3) ** 0.5)
    assert mae(predictions, targets) == pytest.approx(2.0)


@pytest.mark.parametrize("task", [MultiClass, Corn])
def test_class_ids_that_float32_cannot_tell_apart_stay_apart(task):
    values = (1000010653.0, 1000010654.0, 1000010655.0)
    of_ids = task(values)
    assert of_ids.codes(np.array(values[::-1])).tolist() == [2, 1, 0]
    assert of_ids.encode(torch.from_numpy(of_ids.codes(np.array(values)))).tolist() == [0, 1, 2]
    of_ids.check(np.array(values))
    with pytest.raises(DataError, match=r"the target 1000010656 is none .* 1000010653, 1000010654"):
        of_ids.check(np.array([1000010656.0]))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, unique=True))
def test_classes_with_different_values_have_different_names(values):
    assert len(set(class_labels(values, ()))) == len(values)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_what_counts_as_a_class_value_follows_the_unit_of_the_target(unit):
    task = MultiClass(tuple(unit * value for value in (0.0, 1.0, 2.0)))
    task.check(unit * np.array([0.0005, 1.9995]))
    with pytest.raises(DataError, match="none of the class values"):
        task.check(unit * np.array([1.01]))
