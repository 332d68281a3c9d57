"""Parts of several numbers per image: formulas, metrics, scales, losses and heads."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from foldsmith.blending.base import Goal, Rows
from foldsmith.blending.bootstrap import bootstrap
from foldsmith.blending.methods import create_blend
from foldsmith.config import EnsembleSettings
from foldsmith.models.number_heads import NumbersHead
from foldsmith.models.ridge_head import RidgeHead
from foldsmith.project.column_forms import OneNumber
from foldsmith.project.number_forms import SeveralNumbers
from foldsmith.targets.column_scales import ColumnScales, restore_scale
from foldsmith.targets.formulas import parse_formula
from foldsmith.targets.losses import MaskedHuberLoss, MaskedL1Loss, MaskedMSELoss
from foldsmith.targets.metrics import METRICS, METRICS_OF_NUMBERS
from foldsmith.targets.multi_regression import MultiRegression
from foldsmith.targets.scale import TargetScale

NAMES = ("a", "b", "c")
LIMITS = ((-100.0, 100.0),) * 3
VALUES = [name for name in METRICS_OF_NUMBERS if name in METRICS]
NOT_NEGATIVE = ("RMSLE", "MAPE")


def drawn(seed, n=30, missing=0.3):
    """Return predictions and targets of three columns, some missing, each row with one."""
    rng = np.random.default_rng(seed)
    targets = rng.uniform(1, 9, (n, 3))
    predictions = targets + rng.normal(size=targets.shape)
    gone = rng.random(targets.shape) < missing
    gone[np.arange(n), rng.integers(0, 3, n)] = False
    return predictions, np.where(gone, np.nan, targets)


@pytest.mark.parametrize("name", VALUES)
def test_a_metric_is_the_weighted_mean_of_its_columns(name):
    form = SeveralNumbers(NAMES, LIMITS, (("a", 3.0), ("c", 0.5)))
    metric = form.judge(METRICS[name])
    predictions, targets = drawn(0)
    alone = []
    for k in range(3):
        seen = ~np.isnan(targets[:, k])
        alone.append(METRICS[name](predictions[seen, k], targets[seen, k]))
    expected = np.average(alone, weights=[3.0, 1.0, 0.5])
    assert metric(predictions, targets) == pytest.approx(expected)
    # The lowest squared error of all columns together is not that of each.
    assert not metric.least_squares
    rows = metric.rows(predictions, targets)
    assert (rows is None) == (METRICS[name].row_function is None)


@pytest.mark.parametrize("name", ["RMSE", "MAE", "R2", "NRMSE", "GlobalR2", "Spearman"])
@given(seed=st.integers(0, 10**6), noise=st.floats(-1e6, 1e6))
@settings(max_examples=15, deadline=None)
def test_masked_predictions_and_the_order_of_columns_change_nothing(name, seed, noise):
    metric = SeveralNumbers(NAMES, LIMITS, (("b", 2.0),)).judge(METRICS_OF_NUMBERS[name])
    predictions, targets = drawn(seed)
    value = metric(predictions, targets)
    assert metric(np.where(np.isnan(targets), noise, predictions), targets) == value
    turned = SeveralNumbers(NAMES[::-1], LIMITS, (("b", 2.0),)).judge(METRICS_OF_NUMBERS[name])
    found = turned(predictions[:, ::-1], targets[:, ::-1])
    assert found == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("name", VALUES)
def test_one_column_has_the_metric_of_one_number(name):
    metric = SeveralNumbers(("a",), LIMITS[:1]).judge(METRICS[name])
    predictions, targets = drawn(3, missing=0)
    one = METRICS[name]
    assert metric.least_squares == one.least_squares
    assert metric(predictions[:, :1], targets[:, :1]) == one(predictions[:, 0], targets[:, 0])
    groups = np.arange(30) // 2
    several = bootstrap(metric, {"x": predictions[:, :1]}, targets[:, :1], groups, 0)["x"]
    alone = bootstrap(one, {"x": predictions[:, 0]}, targets[:, 0], groups, 0)["x"]
    assert np.allclose(several, alone, rtol=1e-12)


@given(seed=st.integers(0, 10**6), n=st.integers(2, 300), size=st.floats(1e-6, 1e6))
@settings(max_examples=30, deadline=None)
def test_nrmse_is_the_rmse_of_scikit_learn_in_deviations_to_the_digit(seed, n, size):
    predictions, targets = np.random.default_rng(seed).normal(size=(2, n)) * size
    expected = METRICS["RMSE"](predictions, targets) / np.std(targets)
    assert METRICS_OF_NUMBERS["NRMSE"](predictions, targets) == expected
    same = np.full(n, size)
    assert [METRICS_OF_NUMBERS["NRMSE"](x, same) for x in (same, predictions)] == [0, 1]


def test_global_r2_is_that_of_all_numbers_by_their_weights():
    form = SeveralNumbers(NAMES, LIMITS, (("a", 0.1), ("b", 0.2), ("c", 0.7)))
    metric = form.judge(METRICS_OF_NUMBERS["GlobalR2"])
    predictions, targets = drawn(1)
    seen = ~np.isnan(targets)
    weights = np.broadcast_to([0.1, 0.2, 0.7], targets.shape)[seen]
    from sklearn.metrics import r2_score

    expected = r2_score(targets[seen], predictions[seen], sample_weight=weights)
    assert metric(predictions, targets) == pytest.approx(expected)


def test_derived_columns_with_a_weight_are_judged():
    formula = parse_formula("a + 2 * (b - c) / 4", NAMES)
    form = SeveralNumbers(NAMES, LIMITS, (("t", 1.0),), (("t", formula),))
    predictions, targets = drawn(2)
    with_t = [
        np.column_stack([x, x[:, 0] + (x[:, 1] - x[:, 2]) / 2]) for x in (predictions, targets)
    ]
    alone = [
        np.abs(p - t)[~np.isnan(t)].mean() for p, t in zip(with_t[0].T, with_t[1].T, strict=True)
    ]
    assert form.judge(METRICS["MAE"])(predictions, targets) == pytest.approx(np.mean(alone))
    unjudged = SeveralNumbers(NAMES, LIMITS, (), (("t", formula),))
    value = unjudged.judge(METRICS["MAE"])(predictions, targets)
    assert value == pytest.approx(np.mean(alone[:3]))


@pytest.mark.parametrize(
    "text",
    [
        "a.b",
        "f(a)",
        "a if b else c",
        "a[0]",
        "1",
        "a ** 2",
        "a // b",
        "lambda: a",
        "a +",
        "d",
        "'a'",
    ],
)
def test_what_is_no_formula_is_refused(text):
    with pytest.raises(ValueError, match=r"^(?!.*Traceback)"):
        parse_formula(text, NAMES)


@given(
    st.recursive(
        st.sampled_from([*NAMES, "2", "0.5"]),
        lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(
            lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"
        ),
        max_leaves=6,
    )
)
@settings(max_examples=40, deadline=None)
def test_formulas_are_as_python_computes_them(text):
    columns = {name: np.linspace(k, k + 3, 5) for k, name in enumerate(NAMES)}
    if not any(name in text for name in NAMES):
        return
    expected = eval(text, {}, columns)
    assert np.allclose(parse_formula(text, NAMES).of(columns), expected)


def test_names_that_python_has_not_stand_in_backquotes():
    formula = parse_formula("`dry weight` * 2", ("dry weight",))
    assert formula.of({"dry weight": np.array([1.0, np.nan])})[0] == 2
    assert parse_formula("b - -a + (+a)", NAMES).of({"a": np.ones(1), "b": np.zeros(1)}) == 2
    assert np.isnan(parse_formula("a / b", NAMES).of({"a": np.ones(1), "b": np.zeros(1)})).all()


@pytest.mark.parametrize(
    ("masked", "plain"),
    [
        (MaskedMSELoss(), nn.MSELoss()),
        (MaskedL1Loss(), nn.L1Loss()),
        (MaskedHuberLoss(delta=0.5), nn.HuberLoss(delta=0.5)),
    ],
)
def test_losses_leave_missing_targets_out(masked, plain):
    predictions, targets = (torch.from_numpy(x).float() for x in drawn(4))
    outputs = predictions.clone().requires_grad_()
    seen = ~torch.isnan(targets)
    loss = masked(outputs, targets)
    assert torch.allclose(loss, plain(predictions[seen], targets[seen]))
    loss.backward()
    assert (outputs.grad[~seen] == 0).all() and torch.isfinite(outputs.grad).all()
    for value in (1e30, torch.inf, torch.nan):
        assert masked(torch.where(seen, predictions, torch.tensor(value)), targets) == loss
    assert masked(outputs, torch.full_like(targets, torch.nan)) == 0


def test_outputs_are_clipped_to_the_range_of_each_target_and_begin_at_its_mean():
    _, targets = drawn(8)
    scales = ColumnScales.fit(targets, ("linear", "linear", "log"))
    for scale in (None, scales):
        task = MultiRegression(NAMES, ((0.0, 5.0), (2.0, 6.0), (1.0, 9.0)), scale)
        far = 1e3 * np.array([[1, -1, 1], [-1, 1, -1]], dtype=np.float32)
        assert task.predict(far).tolist() == [[5, 2, 9], [0, 6, 1]]
        means = np.nanmean(targets, axis=0)
        first = task.predict(task.constant_logits(targets))
        assert np.allclose(first, means.clip((0, 2, 1), (5, 6, 9)), rtol=1e-5)
        codes = task.codes(targets)
        assert (np.isnan(codes) == np.isnan(targets)).all()
        back = task.predict(codes)[~np.isnan(targets)]
        kept = targets.clip((0, 2, 1), (5, 6, 9))[~np.isnan(targets)]
        assert np.allclose(back, kept, rtol=1e-5)


def test_weights_of_a_loss_count():
    predictions, targets = (torch.from_numpy(x).float() for x in drawn(5, missing=0))
    each = ((predictions - targets) ** 2).mean(dim=0)
    expected = (each * torch.tensor([1.0, 0.0, 3.0])).sum() / 4
    assert torch.allclose(MaskedMSELoss(weights=(1, 0, 3))(predictions, targets), expected)


def test_scales_are_those_of_each_column_and_come_back():
    _, targets = drawn(6)
    scales = ColumnScales.fit(targets, ("linear", "log", "rank"))
    for k, form in enumerate(("linear", "log", "rank")):
        column = targets[~np.isnan(targets[:, k]), k]
        expected = TargetScale.fit(column, form).forward(column)
        assert (scales.forward(targets)[~np.isnan(targets[:, k]), k] == expected).all()
    assert (np.isnan(scales.forward(targets)) == np.isnan(targets)).all()
    again = restore_scale(scales.array())
    assert np.array_equal(again.forward(targets), scales.forward(targets), equal_nan=True)


@given(seed=st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
def test_heads_are_fitted_to_the_rows_of_each_target(seed):
    rng = np.random.default_rng(seed)
    features, (_, targets) = rng.normal(size=(30, 4)).astype(np.float32), drawn(seed)
    groups = np.arange(30)
    head = NumbersHead(RidgeHead())
    fitted = head.fit(features, targets, groups, 0)
    for k in range(3):
        seen = ~np.isnan(targets[:, k])
        alone = RidgeHead().fit(features[seen], targets[seen, k], groups[seen], 0)
        assert (fitted.predict(features)[:, k] == alone.predict(features)).all()
    again = head.restore(fitted.arrays())
    assert (again.predict(features) == fitted.predict(features)).all()


@pytest.mark.parametrize("method", ["box", "simplex", "nnls", "ridge", "greedy", "best", "optuna"])
def test_blends_of_one_column_are_those_of_one_number(method):
    rng = np.random.default_rng(0)
    targets = rng.uniform(0, 50, 60)
    members = targets + rng.normal(size=(3, 60)) * np.array([[4.0], [6.0], [9.0]])
    config = EnsembleSettings(experiments=["a"], n_trials=20)
    one = OneNumber("a", (0.0, 50.0))
    several = SeveralNumbers(("a",), ((0.0, 50.0),))
    rmse = METRICS["RMSE"]
    found = create_blend(method, Goal(rmse, one), config, 0).fit(
        Rows(members, np.zeros((60, 1))), targets
    )
    goal = Goal(several.judge(rmse), several)
    rows = Rows(members[:, :, None], np.zeros((60, 1)))
    other = create_blend(method, goal, config, 0).fit(rows, targets[:, None])
    predicted = found.predict(Rows(members, np.zeros((60, 1))))
    assert np.allclose(other.predict(rows)[:, 0], predicted, atol=1e-7)


@pytest.mark.parametrize("method", ["box", "simplex", "nnls", "ridge", "greedy"])
def test_blends_do_not_read_masked_predictions(method):
    predictions, targets = drawn(7, n=60)
    rng = np.random.default_rng(0)
    members = np.stack([predictions + rng.normal(size=predictions.shape) for _ in range(3)])
    form = SeveralNumbers(NAMES, LIMITS)
    goal = Goal(form.judge(METRICS["MAE"]), form)
    config = EnsembleSettings(experiments=["a"])
    noise = np.where(np.isnan(targets), 77.0, members)
    weights = [
        create_blend(method, goal, config, 0).fit(Rows(each, np.zeros((60, 1))), targets).arrays()
        for each in (members, noise)
    ]
    for key, value in weights[0].items():
        assert np.array_equal(value, weights[1][key])


@given(st.permutations(range(3)), st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_folds_do_not_depend_on_the_order_of_the_columns(order, seed):
    _, targets = drawn(seed)
    form = SeveralNumbers(NAMES, LIMITS)
    turned = SeveralNumbers(tuple(NAMES[k] for k in order), LIMITS)
    places = form.for_folds(targets), turned.for_folds(targets[:, list(order)])
    assert np.allclose(*places, atol=2e-6)


def test_results_are_stale_by_every_setting_of_the_numbers():
    total = (("total", parse_formula("a + b", ("a", "b"))),)
    form = SeveralNumbers(("a", "b"), LIMITS[:2], (("a", 2.0),), total)
    less = (("total", parse_formula("a - b", ("a", "b"))),)
    for change in (
        {"names": ("b", "a")},
        {"limits": ((0.0, 1.0), (0.0, 2.0))},
        {"given_weights": (("a", 3.0),)},
        {"given_weights": ()},
        {"formulas": less},
        {"formulas": ()},
    ):
        assert replace(form, **change).facts() != form.facts(), change
