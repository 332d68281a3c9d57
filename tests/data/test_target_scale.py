"""The scale on which a target is learned."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from foldsmith.errors import OutputError
from foldsmith.targets.scale import TargetScale, form_of, lines_of_fold

FORMS = ("linear", "log", "rank")
AGES = np.random.default_rng(0).integers(0, 70, 300).astype(float)
SKEWED = np.exp(1.5 * np.random.default_rng(1).normal(size=300))

targets = hnp.arrays(np.float64, st.integers(1, 40), elements=st.integers(-1000, 1000).map(float))


@pytest.mark.parametrize("form", FORMS)
@given(y=targets, power=st.integers(-20, 20), shift=st.integers(-(2**20), 2**20))
def test_shifted_and_scaled_targets_are_learned_as_the_same_numbers(form, y, power, shift):
    # Powers of two and whole numbers: nothing is rounded on the way in.
    other = (y + shift) * 2.0**power
    one, two = TargetScale.fit(y, form), TargetScale.fit(other, form)
    np.testing.assert_allclose(one.forward(y), two.forward(other), rtol=1e-6, atol=1e-6)
    learned = np.linspace(-3, 3, 7)
    expected = (one.inverse(learned) + shift) * 2.0**power
    np.testing.assert_allclose(two.inverse(learned), expected, rtol=1e-6, atol=1e-6 * 2.0**power)


@pytest.mark.parametrize("form", FORMS)
@given(y=targets)
def test_a_scale_is_finite_rising_and_kept_in_an_array(form, y):
    scale = TargetScale.fit(y, form)
    learned = scale.forward(np.sort(y))
    assert np.isfinite(learned).all() and scale.deviation > 0
    assert (np.diff(learned) >= 0).all()
    again = TargetScale.restore(scale.array())
    np.testing.assert_array_equal(again.forward(y), scale.forward(y))
    np.testing.assert_array_equal(again.inverse(learned), scale.inverse(learned))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("y", [AGES, SKEWED, -SKEWED, 1950 + AGES, 1.6e9 + AGES])
def test_targets_come_back_in_their_units(form, y):
    scale = TargetScale.fit(y, form)
    learned = scale.forward(y)
    if form != "rank":
        assert abs(learned.mean()) < 1e-6 and learned.std() == pytest.approx(1, abs=0.01)
    back = scale.inverse(learned)
    inside = (y > np.quantile(y, 0.02)) & (y < np.quantile(y, 0.98))
    np.testing.assert_allclose(back[inside], y[inside], atol=1e-6 * np.ptp(y))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("off", [1e4, 1e9, -1e9])
@pytest.mark.parametrize("n", [12, 300])
def test_one_outlier_wrecks_nothing(form, off, n):
    y = AGES[:n].copy()
    before = TargetScale.fit(y, form)
    y[3] = off
    after = TargetScale.fit(y, form)
    sound = np.array([10.0, 30.0, 60.0])
    assert np.abs(after.forward(sound) - before.forward(sound)).max() < 0.9
    assert np.ptp(after.forward(sound)) > 0.25 * np.ptp(before.forward(sound))
    assert np.abs(after.forward(y)).max() < 30


def test_outliers_are_counted_and_said():
    y = np.r_[AGES, 1e6]
    scale = TargetScale.fit(y, "linear")
    (line,) = lines_of_fold(2, scale, y)
    assert line.startswith("fold 2: 1 of 301 training targets are outliers")
    assert lines_of_fold(2, TargetScale.fit(AGES, "linear"), AGES) == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [0.0, 0.1, 3.0, -1.6e9])
def test_equal_targets_are_the_only_prediction(form, value):
    y = np.full(7, value)
    scale = TargetScale.fit(y, form)
    assert scale.constant and (scale.forward(y) == 0).all()
    np.testing.assert_array_equal(scale.inverse(np.array([-5.0, 0.0, 1e30])), value)
    assert "all 7 training targets are" in lines_of_fold(0, scale, y)[0]


def test_rare_values_are_no_outliers_where_all_others_are_equal():
    y = np.r_[np.zeros(299), 5.0]
    scale = TargetScale.fit(y, "linear")
    assert not scale.constant
    np.testing.assert_allclose(scale.inverse(scale.forward(y)), y, atol=1e-6)


def test_the_form_is_chosen_by_how_skewed_the_target_is_whatever_its_unit():
    for y in (SKEWED, -SKEWED, 1e6 * SKEWED - 5e9):
        form, reason = form_of("auto", y)
        assert form == "log" and "clearly skewed" in reason
        # The tail is the side that the logarithm shortens.
        learned = TargetScale.fit(y, form).forward(y)
        assert np.abs(learned).max() < 5
    for y in (AGES, np.r_[AGES, 1e9], np.r_[np.zeros(90), np.arange(4.0)]):
        assert form_of("auto", y) == ("linear", "")
    assert form_of("none", SKEWED)[0] is None
    assert form_of("rank", AGES) == ("rank", "")


def test_a_damaged_scale_is_said():
    array = TargetScale.fit(AGES, "linear").array()
    array[6] = -1
    with pytest.raises(OutputError, match="target scale of the model is damaged"):
        TargetScale.restore(array)
