from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from blend_data import RANGE, VALUES, alike, as_probabilities, goal, rows, unlike
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier

from foldsmith.blending import stacking
from foldsmith.blending.base import FittedOnSome, FittedWeights, Goal, Rows
from foldsmith.blending.calibration import CalibratedBlend
from foldsmith.blending.candidates import candidates_of
from foldsmith.blending.greedy import greedy_weights
from foldsmith.blending.methods import create_blend, restore_blend, with_fewer_trials
from foldsmith.blending.stacks import without_stack
from foldsmith.blending.weights import (
    best_member_weights,
    blend,
    nnls_weights,
    ridge_weights,
    simplex_weights,
)
from foldsmith.config import BlendMethod, EnsembleSettings
from foldsmith.errors import ConfigError, TrainingError
from foldsmith.project.column_forms import Classes, OneNumber
from foldsmith.targets.metrics import METRICS, metric_named
from foldsmith.targets.scores_of_values import rmse

SETTINGS = EnsembleSettings(experiments=["a"], n_trials=5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_laws_of_nnls_and_ridge(seed, n_members):
    predictions, targets = alike(seed, n_members, n=120)
    weights = nnls_weights(predictions, targets)
    assert (weights >= 0).all()
    # The simplex is part of what it chooses from.
    simplex = simplex_weights(predictions, targets)
    found = rmse(weights @ predictions, targets)
    assert found <= rmse(simplex @ predictions, targets) + 1e-9
    ridge = ridge_weights(predictions, targets)
    assert ridge.sum() == pytest.approx(1)
    # Between the plain average and the least squares: never worse than the average.
    mean = predictions.mean(axis=0)
    assert rmse(ridge @ predictions, targets) <= rmse(mean, targets) + 1e-9


def test_ridge_keeps_to_the_plain_average_where_members_are_alike():
    predictions, targets = alike(0, noise=0.3)
    off = predictions - predictions.mean(axis=0)
    free = np.linalg.lstsq(off.T, targets - predictions.mean(axis=0))[0]
    shrunk = ridge_weights(predictions, targets) - 0.25
    assert np.linalg.norm(shrunk) < 0.9 * np.linalg.norm(free)
    predictions, targets = unlike(0, n=2000)
    assert ridge_weights(predictions, targets)[0] > 0.8
    same = np.stack([predictions[0]] * 3)
    np.testing.assert_allclose(ridge_weights(same, targets), 1 / 3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(METRICS)), st.integers(1, 5))
def test_greedy_is_never_worse_in_sample_than_the_best_member(seed, name, n_members):
    predictions, targets = alike(seed, n_members, n=80)
    metric, bounds = metric_named(name, VALUES), RANGE
    if metric.takes_probabilities:
        predictions, bounds = as_probabilities(predictions), (0.0, 1.0)
    weights = greedy_weights(predictions, targets, bounds, metric, rounds=6)
    assert (weights >= 0).all() and weights.sum() == pytest.approx(1)
    best = best_member_weights(predictions, targets, metric)
    assert sorted(best) == [0.0] * (n_members - 1) + [1.0]
    found = metric(blend(predictions, weights, bounds), targets)
    assert metric.gain(found, metric(predictions[best.argmax()], targets)) >= -1e-12


def test_greedy_takes_members_more_than_once():
    targets = np.arange(90) % 4.0
    off = np.tile([1.0, -1.0, 0.5], 30)
    # Two parts of the first and one of the second are right.
    predictions = np.stack([targets + off, targets - 2 * off, targets + 3])
    weights = greedy_weights(predictions, targets, (-9.0, 9.0), metric_named("RMSE"))
    np.testing.assert_allclose(weights, [2 / 3, 1 / 3, 0], atol=0.02)


@pytest.mark.parametrize("name", sorted(METRICS))
@pytest.mark.parametrize("method", get_args(BlendMethod))
def test_every_method_takes_every_metric(method, name):
    predictions, targets = unlike(1, n=160)
    aim = goal(name)
    if aim.metric.takes_probabilities:
        predictions = as_probabilities(predictions)
    half = np.arange(160) < 80
    made = create_blend(method, aim, SETTINGS, seed=0)
    blended = made.fit(rows(predictions).take(half), targets[half])
    result = blended.predict(rows(predictions).take(~half))
    low, high = aim.bounds
    assert result.shape == predictions[0][~half].shape
    assert (result >= low).all() and (result <= high).all()
    if result.ndim == 2:
        np.testing.assert_allclose(result.sum(axis=1), 1)
    restored = restore_blend(blended.arrays(), aim).predict(rows(predictions).take(~half))
    np.testing.assert_array_equal(restored, result)
    points = aim.points(result)
    assert points.shape == (80,)
    # All of them have seen that some know the target.
    assert rmse(points, targets[~half]) < rmse(np.full(80, 1.5), targets[~half])


def test_trees_use_what_no_weights_can():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 4, 1500).astype(float)
    wide = rng.integers(0, 2, 1500)
    # One member is right for wide images, the other for high ones.
    guess = rng.uniform(0, 3, 1500)
    predictions = np.stack([np.where(wide, targets, guess), np.where(wide, guess, targets)])
    data = Rows(predictions, wide[:, None].astype(float))
    half = np.arange(1500) < 750
    scores = {
        method: rmse(
            create_blend(method, goal(), SETTINGS, 0)
            .fit(data.take(half), targets[half])
            .predict(data.take(~half)),
            targets[~half],
        )
        for method in ("box", "stack")
    }
    assert scores["stack"] < 0.8 * scores["box"]


def test_a_cross_fitted_search_takes_fewer_trials():
    assert with_fewer_trials(EnsembleSettings(experiments=["a"], n_trials=1000)).n_trials == 100
    assert with_fewer_trials(SETTINGS).n_trials == 1


def test_isotonic_calibration_straightens_what_is_bent():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 4, 800).astype(float)
    bent = 3 * (np.clip(targets + 0.2 * rng.normal(size=(2, 800)), 0, 3) / 3) ** 3
    plain = create_blend("mean", goal(), SETTINGS, 0)
    calibrated = CalibratedBlend(plain, "isotonic", goal())
    assert calibrated.name == "mean+isotonic"
    half = np.arange(800) < 400
    held = rows(bent).take(~half)
    fitted = calibrated.fit(rows(bent).take(half), targets[half])
    before = plain.fit(held, targets[~half]).predict(held)
    assert rmse(fitted.predict(held), targets[~half]) < 0.5 * rmse(before, targets[~half])
    order = np.argsort(before)
    assert (np.diff(fitted.predict(held)[order]) >= 0).all()


def test_calibration_that_does_not_fit_the_metric_is_refused():
    for how, name in (("isotonic", "LogLoss"), ("thresholds", "RMSE"), ("thresholds", "AUC")):
        plain = create_blend("mean", goal(name), SETTINGS, 0)
        with pytest.raises(ConfigError, match=f"{how} needs .*; the project's is {name}"):
            CalibratedBlend(plain, how, goal(name))


@pytest.mark.parametrize(("how", "name"), [("isotonic", "RMSE"), ("thresholds", "QWK")])
def test_a_calibration_is_restored_from_its_arrays(how, name):
    predictions, targets = unlike(1, n=160)
    made = CalibratedBlend(create_blend("ridge", goal(name), SETTINGS, 0), how, goal(name))
    fitted = made.fit(rows(predictions), targets)
    restored = restore_blend(fitted.arrays(), goal(name))
    wanted = fitted.predict(rows(predictions))
    assert len(np.unique(wanted)) > 2
    np.testing.assert_array_equal(restored.predict(rows(predictions)), wanted)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_trees_say_what_scikit_learn_says_of_what_is_unknown_too(n_classes):
    rng = np.random.default_rng(0)
    targets = rng.integers(0, n_classes, 600).astype(float)
    facts = np.stack([targets + rng.normal(size=600), rng.normal(size=600)], axis=1)
    facts[rng.random((600, 2)) < 0.3] = np.nan
    probabilities = np.full((2, 600, n_classes), 1 / n_classes)
    aim = Goal(
        metric_named("LogLoss"),
        OneNumber("target", (0.0, n_classes - 1.0), tuple(range(n_classes))),
    )
    data = Rows(probabilities, facts)
    fitted = create_blend("stack", aim, SETTINGS, 0).fit(data, targets)
    trees = HistGradientBoostingClassifier(**stacking._TREES, random_state=0)
    inputs = stacking._inputs(data, 0.0, 1.0)
    expected = trees.fit(inputs, targets).predict_proba(inputs)
    assert expected.std() > 0.05
    np.testing.assert_allclose(fitted.predict(data), expected, atol=1e-9)


def test_trees_of_another_form_are_not_taken(monkeypatch):
    predictions, targets = unlike(1, n=160)
    boosted = stacking.boosted_trees

    def other(trees):
        forest = boosted(trees)
        return replace(forest, value=forest.value + 0.1)

    monkeypatch.setattr(stacking, "boosted_trees", other)
    with pytest.raises(TrainingError, match="leave stack out of ensemble/methods"):
        create_blend("stack", goal(), SETTINGS, 0).fit(rows(predictions), targets)


@given(
    weights=st.lists(st.sampled_from([None, 0.0, 0.25, -0.5, 1.0]), min_size=1, max_size=6),
)
def test_a_blend_of_the_members_with_a_say_is_the_blend(weights):
    # None: a member that was left out before the weights were fitted.
    fitted_on = np.array([weight is not None for weight in weights])
    inner = FittedWeights(np.array([w for w in weights if w is not None]), (0.0, 3.0), 1.5)
    said = Rows(np.random.default_rng(0).normal(1, 1, (len(weights), 6)), np.empty((6, 0)))
    for one in (inner.among(fitted_on), FittedOnSome(inner, fitted_on)):
        used = one.uses(len(weights))
        assert used.tolist() == [weight not in (None, 0.0) for weight in weights]
        if used.any():
            alone = one.only(used).predict(said.of_members(used))
            np.testing.assert_allclose(alone, one.predict(said), atol=1e-12)


@pytest.mark.parametrize(("n_classes", "there"), [(50, True), (51, False)])
def test_many_classes_have_no_stack_which_a_note_says(n_classes, there, caplog):
    caplog.set_level("INFO", logger="foldsmith")
    values = tuple(map(float, range(n_classes)))
    names = tuple(f"kind{k}" for k in range(n_classes))
    metric = metric_named("Accuracy").for_classes(values, unordered=True)
    many = Goal(metric, Classes("kind", (0.0, n_classes - 1.0), values, names))
    settings = SETTINGS.model_copy(update={"methods": ["mean", "stack"], "calibrate": "none"})
    found = [candidate.name for candidate in candidates_of(["cls"], settings, many, 0)]
    assert ("stack" in found) == there
    assert ("stack is left out: with 51 classes" in caplog.text) != there
    # Numbers have a stack, however many classes they would be.
    assert without_stack(goal()) is None
