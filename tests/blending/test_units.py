"""The law of units: shifted and scaled targets give predictions that are shifted and scaled alike.

Targets become a * y + b (a above 0), their range and class values with them. Tolerance: 1e-5 of the
target's spread for what a network learns (float32), 1e-6 for the rest.
"""

from typing import get_args

import numpy as np
import pytest
from blend_data import alike

from foldsmith.blending.base import Goal, Rows
from foldsmith.blending.calibration import CalibratedBlend
from foldsmith.blending.methods import create_blend, restore_blend
from foldsmith.config import BlendMethod, EnsembleSettings
from foldsmith.models.feature_heads import MeanHead
from foldsmith.models.mlp_head import MLPHead
from foldsmith.models.ridge_head import RidgeHead
from foldsmith.models.svr_head import SVRHead
from foldsmith.models.trees_head import TreesHead
from foldsmith.project.column_forms import OneNumber
from foldsmith.steps.fold_heads import HeadOfFold
from foldsmith.targets.classification import MultiClass
from foldsmith.targets.corn import Corn
from foldsmith.targets.hl_gauss import HLGauss
from foldsmith.targets.metrics import metric_named
from foldsmith.targets.regression import Regression

UNITS = [(1.0, 1950.0), (20.0, 1.6e9), (1e-6, 0.0), (7.3, -400.0), (1e6, 3e5)]
RNG = np.random.default_rng(0)
AGES = RNG.integers(0, 70, 120).astype(float)
GRADES = RNG.integers(0, 4, 120).astype(float)
VALUES = (0.0, 1.0, 2.0, 3.0)
RANGE = (0.0, 69.0)


def moved(values, a, b):
    return tuple((a * np.asarray(values) + b).tolist())


def tasks(a, b):
    """Every task, with the labels that it learns."""
    of_range, centuries = moved(RANGE, a, b), moved((17.5, 35.5, 52.5), a, b)
    classes, steps = moved(VALUES, a, b), moved((0.0, 1.0, 2.0, 3.0), a, b)
    distribution = HLGauss(of_range, 16, 0.75, of_range)
    coarse = HLGauss(of_range, 16, 0.75, moved((0.0, 3.0), a, b), centuries, steps)
    for form in ("linear", "log", "rank"):
        yield f"regression {form}", Regression(of_range), form, AGES
        yield f"distribution {form}", distribution, form, AGES
        yield f"coarse {form}", coarse, form, AGES
    yield "distribution none", distribution, None, AGES
    yield "classes", MultiClass(classes), "linear", GRADES
    yield "corn", Corn(classes), "linear", GRADES


@pytest.mark.parametrize(("a", "b"), UNITS)
def test_every_task_learns_the_same_and_predicts_in_units(a, b):
    for (name, one, form, labels), (_, two, _, _) in zip(tasks(1, 0), tasks(a, b), strict=True):
        seen = labels[:80]
        before, after = one.fitted(seen, form), two.fitted(a * seen + b, form)
        np.testing.assert_allclose(
            after.codes(a * labels + b), before.codes(labels), atol=2e-5, err_msg=name
        )
        logits = RNG.normal(size=(5, one.n_outputs)).astype(np.float32)
        expected = a * before.predict(logits) + b
        spread = a * 70
        np.testing.assert_allclose(
            after.predict(logits), expected, rtol=0, atol=1e-5 * spread, err_msg=name
        )
        constants = [
            task.predict(task.constant_logits(y)[None])[0]
            for task, y in ((before, labels), (after, a * labels + b))
        ]
        assert constants[1] == pytest.approx(a * constants[0] + b, abs=1e-4 * spread), name


def test_without_a_scale_the_numbers_themselves_are_learned():
    task = Regression(RANGE).fitted(AGES, None)
    assert task.scale is None and task.codes(AGES).tolist() == AGES.tolist()


HEADS = [
    RidgeHead(),
    SVRHead(),
    MLPHead(hidden=16, epochs=3),
    TreesHead(n_trees=10),
    MeanHead((RidgeHead(), SVRHead(), TreesHead(n_trees=10))),
]
FEATURES = (AGES[:, None] * [0.1, 0, -0.02] + RNG.normal(size=(120, 3))).astype(np.float32)


def of_fold(head, labels, a=1.0, b=0.0):
    """Fit as a fold of frozen features does; predictions of the images that were held out."""
    task = Regression(moved(RANGE, a, b)).fitted(labels[:80], "linear")
    fitted = head.fit(FEATURES[:80], task.scale.forward(labels[:80]), np.arange(80) // 2, seed=1)
    kept = HeadOfFold(fitted, task.scale)
    again = HeadOfFold.restore(head, kept.arrays())
    predicted = task.predict(kept.logits(FEATURES[80:]))
    restored = Regression(task.target_range).with_scale(again.scale)
    np.testing.assert_array_equal(restored.predict(again.logits(FEATURES[80:])), predicted)
    return predicted


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
@pytest.mark.parametrize(("a", "b"), UNITS[:3])
def test_every_head_follows_the_unit(head, a, b):
    expected = a * of_fold(head, AGES) + b
    predicted = of_fold(head, a * AGES + b, a, b)
    assert expected.std() > 0
    np.testing.assert_allclose(predicted, expected, rtol=0, atol=1e-5 * a * 70)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
@pytest.mark.parametrize("value", [0.0, 12.5, 69.0])
def test_every_head_predicts_equal_targets_as_they_are(head, value):
    np.testing.assert_array_equal(of_fold(head, np.full(120, value)), value)


@pytest.mark.parametrize("value", [1.0, 17.3])
@pytest.mark.parametrize("form", ["linear", "log", "rank"])
def test_every_task_of_numbers_predicts_equal_targets_as_they_are(form, value):
    for task in (Regression(RANGE), HLGauss(RANGE, 16, 0.75, RANGE)):
        fitted = task.fitted(np.full(9, value), form)
        assert np.isfinite(fitted.codes(AGES)).all()
        logits = RNG.normal(size=(3, 4, task.n_outputs)).astype(np.float32)
        np.testing.assert_array_equal(fitted.predict(logits), np.full((3, 4), value))


def test_a_support_vector_regression_chooses_though_an_inner_split_has_equal_targets():
    # Without the images of the last group all targets are equal.
    targets = np.r_[np.zeros(90), np.linspace(1, 2, 30)]
    groups = np.repeat(np.arange(4), 30)
    fitted = SVRHead().fit(FEATURES, targets, groups, seed=0)
    assert np.isfinite(fitted.predict(FEATURES)).all()
    wide = SVRHead(C=(1.0,), epsilon=(50.0,)).fit(FEATURES, targets, groups, seed=0)
    np.testing.assert_allclose(wide.predict(FEATURES), targets.mean())


BLENDS = [*get_args(BlendMethod), "ridge+isotonic", "box+isotonic"]
SETTINGS = EnsembleSettings(experiments=["a"], n_trials=15, weight_step=0.25)


def blended(name, predictions, targets, a=1.0, b=0.0, raw=False):
    values = moved(VALUES, a, b)
    goal = Goal(
        metric_named("RMSE", values), OneNumber("target", moved((0.0, 3.0), a, b), values), raw=raw
    )
    method, _, calibrated = name.partition("+")
    blend = create_blend(method, goal, SETTINGS, 0)
    if calibrated:
        blend = CalibratedBlend(blend, "isotonic", goal)
    facts = np.random.default_rng(5).normal(size=(predictions.shape[1], 2))
    rows = Rows(a * predictions + b, facts)
    seen = np.arange(predictions.shape[1]) % 3 > 0
    fitted = blend.fit(rows.take(seen), (a * targets + b)[seen])
    predicted = fitted.predict(rows.take(~seen))
    restored = restore_blend(fitted.arrays(), goal).predict(rows.take(~seen))
    np.testing.assert_array_equal(restored, predicted)
    return predicted


@pytest.mark.parametrize("name", BLENDS)
def test_every_blend_follows_the_unit(name):
    predictions, targets = alike(3, n_members=3, n=240)
    expected = blended(name, predictions, targets)
    for a, b in UNITS:
        found = blended(name, predictions, targets, a, b)
        np.testing.assert_allclose(
            found, a * expected + b, rtol=0, atol=1e-6 * 3 * a + 1e-12 * abs(b)
        )


@pytest.mark.parametrize("name", [name for name in BLENDS if name not in ("mean",)])
def test_every_fitted_blend_predicts_equal_targets_as_they_are(name):
    predictions, _ = alike(3, n_members=3, n=120)
    np.testing.assert_allclose(blended(name, predictions, np.full(120, 2.0)), 2.0, atol=1e-12)


def test_published_blends_weigh_the_predictions_themselves():
    predictions, targets = alike(3, n_members=3, n=240)
    as_they_are = blended("box", predictions, targets, raw=True)
    shifted = blended("box", predictions, targets, b=1000.0, raw=True) - 1000
    assert np.abs(as_they_are - shifted).max() > 1e-3
