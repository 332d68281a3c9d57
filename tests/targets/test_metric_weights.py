"""Weights of rows in metrics, and in what is fitted by them: whole weights are repeated rows."""

import numpy as np
import pytest
from sklearn import metrics as sk

from foldsmith.blending.base import Goal, Rows
from foldsmith.blending.bootstrap import bootstrap
from foldsmith.blending.calibration import CalibratedBlend
from foldsmith.blending.label_stacking import StackedLabels
from foldsmith.blending.methods import create_blend
from foldsmith.config import EnsembleSettings
from foldsmith.errors import ConfigError
from foldsmith.project.class_forms import ClassTargets
from foldsmith.project.column_forms import Classes, OneNumber
from foldsmith.project.label_forms import LabelsInColumns
from foldsmith.project.number_forms import SeveralNumbers
from foldsmith.targets.decisions import decider_of
from foldsmith.targets.metrics import METRICS, METRICS_OF_LABELS, Metric, metric_named

N, VALUES, LABELS = 60, (0.0, 1.0, 2.0, 3.0), ("red", "blue", "green")
NUMBERS = SeveralNumbers(("a", "b"), ((0.0, 20.0),) * 2, (("b", 3.0),))
LINE = OneNumber("target", (0.0, 3.0), VALUES)
KINDS = Classes("kind", (0.0, 3.0), VALUES, ("k", "l", "m", "n"))
BY_LABEL = LabelsInColumns(LABELS)
COLUMNS = ClassTargets(
    (("kind", ("k", "l", "m", "n")), ("size", ("s", "t", "u", "v"))), (("size", 3.0),)
)


def classes_of(name):
    metric = metric_named(name, VALUES)
    return metric if metric.needs_order else metric.for_classes(VALUES, unordered=True)


# A metric of the probabilities of one column of classes.
KINDS_LOSS = classes_of("LogLoss")

# Every metric of the package, and options by which its computation differs.
OPTIONS = ("F1(average=micro)", "F1(average=weighted)", "WeightedLogLoss(weights=[2, 1, 1, 5])")
OF_LABELS = ("F1(average=micro)", "F1(average=weighted)", "F1(average=samples)")
OF_RANKS = ("AUC(average=micro)", "AveragePrecision(average=micro)")
ALL = {f"{name} of one column": classes_of(name) for name in (*METRICS, *OPTIONS)}
ALL |= {
    f"{name} of labels": metric_named(name, metrics=METRICS_OF_LABELS).for_labels(LABELS)
    for name in (*METRICS_OF_LABELS, *OF_LABELS, *OF_RANKS)
}
ALL |= {f"{name} of numbers": NUMBERS.judge(metric) for name, metric in NUMBERS.metrics.items()}
ALL |= {
    f"{name} of class targets": COLUMNS.judge(metric_named(name, metrics=COLUMNS.metrics))
    for name in (*COLUMNS.metrics, "F1(average=micro)", "F1(average=weighted)")
}


def drawn(metric, seed):
    """Return predictions and targets that a metric can judge, with ties."""
    rng = np.random.default_rng(seed)
    if metric.of_labels:
        probabilities = rng.uniform(size=(N, 3)).round(1)
        return probabilities, (probabilities + rng.normal(0, 0.4, (N, 3)) > 0.6).astype(float)
    if metric.blocks is not None:
        (first, one), (second, other) = (drawn(KINDS_LOSS, seed + 10 * k) for k in range(2))
        targets = np.stack([one, other], axis=1)
        targets[rng.random((N, 2)) < 0.2] = np.nan
        return np.concatenate([first, second], axis=1), targets
    if metric.takes_probabilities:
        targets = rng.integers(0, 4, N)
        odds = np.exp(rng.normal(size=(N, 4)).round(1) + np.eye(4)[targets])
        return odds / odds.sum(axis=1, keepdims=True), targets.astype(float)
    if metric.of_numbers:
        targets = rng.uniform(1, 9, (N, 2)).round(1)
        off = rng.normal(size=(N, 2)).round(1)
        targets[rng.random((N, 2)) < 0.2] = np.nan
        return np.nan_to_num(targets, nan=4.0) + off, targets
    targets = rng.integers(1, 4, N).astype(float)
    return (targets + rng.normal(0, 0.8, N)).round(1), targets


def weights(seed):
    return np.random.default_rng(seed).integers(0, 4, N).astype(float)


def repeated(weight, *arrays):
    return [np.repeat(each, weight.astype(int), axis=0) for each in arrays]


@pytest.mark.parametrize("name", ALL)
def test_whole_weights_are_repeated_rows_whatever_their_scale(name):
    for seed in range(2):
        (predictions, targets), weight = drawn(ALL[name], seed), weights(seed)
        expected = ALL[name](*repeated(weight, predictions, targets))
        found = [ALL[name](predictions, targets, scale * weight) for scale in (1, 0.3)]
        assert found == pytest.approx([expected] * 2, rel=1e-9, abs=1e-12)
        # Not by chance; a median of rounded errors may stay.
        if not name.startswith("MedAE"):
            assert abs(expected - ALL[name](predictions, targets)) > 1e-6
        equal = ALL[name](predictions, targets, np.full(N, 0.7))
        assert equal == pytest.approx(ALL[name](predictions, targets), rel=1e-9, abs=1e-12)


def test_weights_are_those_of_scikit_learn():
    (p, y), w = drawn(ALL["AUC of one column"], 0), weights(0) + 0.5
    assert ALL["F1 of one column"](p, y, w) == pytest.approx(
        sk.f1_score(y, p.argmax(axis=1), average="macro", sample_weight=w)
    )
    per_class = [sk.roc_auc_score(y == k, p[:, k], sample_weight=w) for k in range(4)]
    assert ALL["AUC of one column"](p, y, w) == pytest.approx(np.mean(per_class))


def test_a_metric_that_cannot_weigh_rows_says_so():
    own = Metric("Own", lambda p, y: float(np.max(np.abs(p - y))), greater_is_better=False)
    assert not own.takes_weights
    assert not SeveralNumbers(("a", "b"), ((0, 1),) * 2).judge(own).takes_weights
    assert all(metric.takes_weights for metric in ALL.values())
    with pytest.raises(ConfigError, match="metric Own: cannot weigh rows; give its function"):
        own(np.zeros(2), np.zeros(2), np.array([1.0, 2.0]))
    with pytest.raises(ConfigError, match="metric RMSE: every row has the weight 0"):
        METRICS["RMSE"](np.zeros(2), np.zeros(2), np.zeros(2))


@pytest.mark.parametrize("name", ["RMSE of one column", "AUC of one column", "RMSE of numbers"])
def test_intervals_have_the_weights(name):
    (predictions, targets), weight = drawn(ALL[name], 1), weights(1)
    groups = np.arange(N) % 20
    found = bootstrap(ALL[name], {"a": predictions}, targets, groups, 0, weight)["a"]
    p, y, g = repeated(weight, predictions, targets, groups)
    expected = bootstrap(ALL[name], {"a": p}, y, np.unique(g, return_inverse=True)[1], 0)["a"]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


GOALS = {
    "RMSE": Goal(METRICS["RMSE"], LINE),
    "MAE": Goal(METRICS["MAE"], LINE),
    "classes": Goal(ALL["F1 of one column"], KINDS),
    "labels": Goal(ALL["LogLoss of labels"], BY_LABEL),
    "numbers": Goal(ALL["RMSE of numbers"], NUMBERS),
}


def members(goal, weight):
    """Return rows of three members with weights, the same repeated, and targets of both."""
    each = [drawn(goal.metric, 7)[0], *(drawn(goal.metric, seed)[0] for seed in (8, 9))]
    targets = drawn(goal.metric, 7)[1]
    stacked = np.stack([each[0], 0.7 * each[0] + 0.3 * each[1], 0.5 * each[0] + 0.5 * each[2]])
    plain = Rows(stacked, np.empty((N, 0)), weight)
    again = np.repeat(stacked, weight.astype(int), axis=1)
    of_repeated = Rows(again, np.empty((again.shape[1], 0)))
    return plain, of_repeated, targets, repeated(weight, targets)[0]


@pytest.mark.parametrize("kind", GOALS)
def test_blends_and_the_constant_are_fitted_with_the_weights(kind):
    goal, weight = GOALS[kind], weights(3)
    rows, again, targets, of_again = members(goal, weight)
    np.testing.assert_allclose(goal.constant(targets, weight), goal.constant(of_again))
    np.testing.assert_allclose(goal.mean(targets, weight), goal.mean(of_again))
    np.testing.assert_array_equal(
        goal.useful(rows.predictions, targets, weight), goal.useful(again.predictions, of_again)
    )
    settings = EnsembleSettings(experiments=["a"], n_trials=8)
    unweighted = Rows(rows.predictions, rows.features)
    differ = False
    for method in ("mean", "best", "box", "simplex", "nnls", "greedy", "optuna"):
        blend = create_blend(method, goal, settings, 0)
        found = blend.fit(rows, targets).predict(rows)
        expected = blend.fit(again, of_again).predict(rows)
        np.testing.assert_allclose(found, expected, atol=2e-3, err_msg=method)
        differ |= bool(np.abs(blend.fit(unweighted, targets).predict(rows) - found).max() > 5e-3)
    assert differ


def test_calibrations_and_stacks_are_fitted_with_the_weights():
    weight = weights(3)
    settings = EnsembleSettings(experiments=["a"])
    for kind, metric, how in (
        ("RMSE", METRICS["RMSE"], "isotonic"),
        ("RMSE", ALL["QWK of one column"], "thresholds"),
        ("classes", ALL["F1 of one column"], "priors"),
        ("labels", ALL["F1 of labels"], "thresholds"),
    ):
        goal = Goal(metric, GOALS[kind].form)
        rows, again, targets, of_again = members(goal, weight)
        blend = CalibratedBlend(create_blend("mean", goal, settings, 0), how, goal)
        found, expected = blend.fit(rows, targets), blend.fit(again, of_again)
        plain = blend.fit(Rows(rows.predictions, rows.features), targets).predict(rows)
        assert np.abs(plain - found.predict(rows)).max() > 1e-4
        if how in ("isotonic", "priors"):  # thresholds are searched among quantiles of rows
            np.testing.assert_allclose(found.predict(rows), expected.predict(rows), atol=1e-9)
        else:
            uncalibrated = found.blend.predict(rows)
            gained = [metric(each, targets, weight) for each in (found.predict(rows), uncalibrated)]
            assert metric.gain(*gained) >= 0


def test_stacks_are_fitted_with_the_weights():
    weight, settings = weights(3), EnsembleSettings(experiments=["a"])
    rows, again, targets, of_again = members(GOALS["labels"], weight)
    found = StackedLabels("stack").fit(rows, targets).predict(rows)
    expected = StackedLabels("stack").fit(again, of_again).predict(rows)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # Too few rows for a split: the trees predict the mean residual, or the classes' shares.
    rows, _, targets, _ = members(GOALS["RMSE"], weight)
    stack = create_blend("stack", GOALS["RMSE"], settings, 0)
    average = rows.predictions.mean(axis=0)
    off = np.average(targets - average, weights=weight)
    found = stack.fit(rows, targets).predict(rows)
    np.testing.assert_allclose(found, np.clip(average + off, 0, 3))
    rows, _, targets, _ = members(GOALS["classes"], weight)
    shares = np.bincount(targets.astype(int), weight) / weight.sum()
    found = create_blend("stack", GOALS["classes"], settings, 0).fit(rows, targets).predict(rows)
    np.testing.assert_allclose(found, np.broadcast_to(shares, found.shape), atol=0.02)


def test_decisions_of_a_fold_are_fitted_with_the_weights_of_the_others():
    metric = ALL["F1 of one column"]
    (probabilities, targets), folds, weight = drawn(metric, 2), np.arange(N) % 3, weights(2)
    decider = decider_of(metric, metric.decision)
    found = decider.cross_fitted(probabilities, targets, folds, metric, weight)
    for fold in range(3):
        held = folds == fold
        fitted = decider.fit(probabilities[~held], targets[~held], metric, weight[~held])
        expected = decider.apply(probabilities[held], fitted, metric)
        np.testing.assert_array_equal(found[held], expected)
    assert np.abs(found - decider.cross_fitted(probabilities, targets, folds, metric)).max() > 1e-6
