"""Parts of several class targets per image: form, metrics, loss, heads, blends, weights."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from foldsmith.blending.base import Goal, Rows
from foldsmith.blending.bootstrap import bootstrap
from foldsmith.blending.methods import create_blend, restore_blend
from foldsmith.config import EnsembleSettings
from foldsmith.data.folds import assign_folds
from foldsmith.errors import ConfigError
from foldsmith.models.class_target_heads import ClassTargetsHead
from foldsmith.models.feature_heads import MeanHead
from foldsmith.models.logistic_head import LogisticHead
from foldsmith.models.ridge_head import RidgeHead
from foldsmith.models.trees_head import TreesHead
from foldsmith.project.class_forms import ClassTargets
from foldsmith.project.column_forms import Classes
from foldsmith.project.settings import FoldSettings
from foldsmith.targets.class_target_loss import ClassTargetsLoss
from foldsmith.targets.classification import MultiClass
from foldsmith.targets.metrics import METRICS, METRICS_OF_CLASS_COLUMNS
from foldsmith.targets.multi_classification import MultiClassification

TEXTS = {"colour": ("red", "green", "blue"), "size": ("small", "large"), "kind": tuple("abcd")}
WEIGHTS = (("colour", 3.0), ("kind", 0.5))
OF_CLASSES = [name for name in METRICS_OF_CLASS_COLUMNS if name in METRICS]
# With two classes k cannot be 2.
FITTING = [name for name in OF_CLASSES if name not in ("TopKAccuracy", "MAPatK")]


def form_of(names=tuple(TEXTS), weights=WEIGHTS):
    return ClassTargets(tuple((name, TEXTS[name]) for name in names), weights)


def drawn(seed, names=tuple(TEXTS), n=40, missing=0.3):
    """Return probabilities and targets, by name, some targets missing, each row with one."""
    rng = np.random.default_rng(seed)
    gone = rng.random((n, len(TEXTS))) < missing
    gone[np.arange(n), rng.integers(0, len(TEXTS), n)] = False
    blocks, targets = {}, {}
    for k, (name, texts) in enumerate(TEXTS.items()):
        classes = rng.integers(0, len(texts), n)
        raw = rng.random((n, len(texts))) + 0.7 * np.eye(len(texts))[classes]
        blocks[name] = raw / raw.sum(axis=1, keepdims=True)
        targets[name] = np.where(gone[:, k], np.nan, classes)
    chosen = np.concatenate([blocks[name] for name in names], axis=1)
    return chosen, np.stack([targets[name] for name in names], axis=1)


@pytest.mark.parametrize("name", FITTING)
def test_a_metric_is_the_weighted_mean_of_its_columns(name):
    form = form_of()
    metric = form.judge(METRICS[name])
    probabilities, targets = drawn(0)
    alone = []
    for k, (part, texts) in enumerate(zip(form.sum_to_1, TEXTS.values(), strict=True)):
        seen = ~np.isnan(targets[:, k])
        one = METRICS[name].for_classes(tuple(range(len(texts))), unordered=True)
        alone.append(one(probabilities[seen, part], targets[seen, k]))
    assert len(set(alone)) > 1
    expected = np.average(alone, weights=[3.0, 1.0, 0.5])
    assert metric(probabilities, targets) == pytest.approx(expected, rel=1e-12)
    rows = metric.rows(probabilities, targets)
    assert (rows is None) == (METRICS[name].row_function is None)


@pytest.mark.parametrize("name", ["Accuracy", "F1", "LogLoss", "AUC", "ExactMatch"])
@given(seed=st.integers(0, 10**6), other=st.integers(1, 10**6))
@settings(max_examples=10, deadline=None)
def test_masked_predictions_and_the_order_of_columns_change_nothing(name, seed, other):
    probabilities, targets = drawn(seed)
    metric = form_of().judge(METRICS_OF_CLASS_COLUMNS[name])
    value = metric(probabilities, targets)
    hidden = np.isnan(form_of().encoded(targets))
    assert metric(np.where(hidden, drawn(other)[0], probabilities), targets) == value
    names = tuple(TEXTS)[::-1]
    turned = form_of(names).judge(METRICS_OF_CLASS_COLUMNS[name])
    assert turned(*drawn(seed, names)) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("name", OF_CLASSES)
def test_one_column_has_the_metric_of_classes(name):
    metric = form_of(("kind",), ()).judge(METRICS[name])
    probabilities, targets = drawn(3, ("kind",), missing=0)
    one = METRICS[name].for_classes((0.0, 1.0, 2.0, 3.0), unordered=True)
    assert metric.least_squares == one.least_squares
    assert metric(probabilities, targets) == one(probabilities, targets[:, 0])
    groups = np.arange(40) // 2
    several = bootstrap(metric, {"x": probabilities}, targets, groups, 0)["x"]
    alone = bootstrap(one, {"x": probabilities}, targets[:, 0], groups, 0)["x"]
    assert np.array_equal(several, alone)


def test_exact_matches_need_every_target_that_is_there():
    form = form_of(("colour", "size"), ())
    metric = form.judge(METRICS_OF_CLASS_COLUMNS["ExactMatch"])
    right = form.encoded(np.array([[0, 0], [1, 1], [2, 0], [0, 1]], float))
    targets = np.array([[0, 0], [1, 0], [2, np.nan], [1, 0]])
    assert metric(right, targets) == 0.5
    assert metric.rows(right, targets).tolist() == [1, 0, 1, 0]


def test_options_are_checked_for_each_column():
    metric = form_of().judge(METRICS["TopKAccuracy"])
    with pytest.raises(ConfigError, match="column size: k=2 must be below the number of classes"):
        metric.with_options({"k": 2})
    assert form_of(("kind",), ()).judge(METRICS["TopKAccuracy"]).with_options({"k": 3})


def test_texts_are_read_written_and_read_again():
    form = form_of(("colour", "kind"))
    table = pd.DataFrame({"colour": ["blue", "", "red"], "kind": ["a", "d", "none"]})
    targets = form.read(table)
    assert np.array_equal(targets, [[2, 0], [np.nan, 3], [0, np.nan]], equal_nan=True)
    assert form.shown(targets) == ["colour blue, kind a", "colour -, kind d", "colour red, kind -"]
    points = form.encoded(np.array([[2, 0], [1, 3]], float))
    written = pd.DataFrame(form.table_of("prediction", points))
    assert written.to_numpy().tolist() == [["blue", "a"], ["green", "d"]]
    assert np.array_equal(form.of_table(written, "prediction"), points)
    assert form.wrong(table.assign(kind=["a", "e", ""])).tolist() == [False, True, False]


def test_a_class_may_be_called_none():
    form = ClassTargets((("mark", ("none", "dot")), ("size", TEXTS["size"])))
    table = pd.DataFrame({"mark": ["none", "nan", "none"], "size": ["small", "large", ""]})
    expected = [[0, 0], [np.nan, 1], [0, np.nan]]
    assert np.array_equal(form.read(table), expected, equal_nan=True)
    assert not form.wrong(table).any()


def test_the_loss_is_the_mean_cross_entropy_of_what_is_there():
    form, rng = form_of(), np.random.default_rng(0)
    task = MultiClassification(form.blocks, form.labels)
    outputs = torch.from_numpy(rng.normal(size=(40, 9)).astype(np.float32))
    targets = task.encode(torch.from_numpy(task.codes(drawn(1)[1])))
    loss = task.loss()
    weights, total, count = (3.0, 1.0, 0.5), 0.0, 0.0
    for k, part in enumerate(form.sum_to_1):
        seen = targets[:, k] >= 0
        each = nn.functional.cross_entropy(outputs[seen, part], targets[seen, k], reduction="sum")
        total, count = total + weights[k] * each, count + weights[k] * seen.sum()
    assert float(loss(outputs, targets)) == pytest.approx(float(total / count), rel=1e-6)
    # Outputs of missing targets change neither the loss nor a gradient.
    hidden = torch.from_numpy(np.isnan(form.encoded(drawn(1)[1])))
    outputs.requires_grad_()
    found = loss(outputs, targets, torch.linspace(0.1, 2, 40))
    found.backward()
    assert (outputs.grad[hidden] == 0).all() and (outputs.grad[~hidden] != 0).all()
    other = torch.where(hidden, torch.tensor(50.0), outputs.detach())
    assert float(loss(other, targets, torch.linspace(0.1, 2, 40))) == float(found.detach())
    nothing = torch.full((4, 3), -1)
    assert float(loss(outputs[:4], nothing).detach()) == 0
    smooth = ClassTargetsLoss((4,), label_smoothing=0.1)(outputs[:, 5:], targets[:, 2:].clamp(0))
    plain = nn.CrossEntropyLoss(label_smoothing=0.1)(outputs[:, 5:], targets[:, 2].clamp(0))
    assert float(smooth.detach()) == pytest.approx(float(plain.detach()), rel=1e-6)


def test_one_target_is_learned_and_predicted_as_classes():
    form = form_of(("kind",), ())
    task, one = (
        MultiClassification(form.blocks, form.labels),
        MultiClass((0, 1, 2, 3), tuple("abcd")),
    )
    logits = np.random.default_rng(0).normal(size=(3, 40, 4)).astype(np.float32)
    assert np.array_equal(task.probabilities(logits), one.probabilities(logits))
    targets = drawn(1, ("kind",), missing=0)[1]
    assert np.array_equal(task.constant_logits(targets), one.constant_logits(targets[:, 0]))
    outputs, codes = torch.from_numpy(logits[0]), torch.from_numpy(task.codes(targets))
    alone = nn.CrossEntropyLoss()(outputs, codes[:, 0])
    assert float(task.loss()(outputs, codes)) == pytest.approx(float(alone), rel=1e-6)


HEAD = MeanHead((LogisticHead((0, 1), C=(0.1,)), TreesHead(5, class_values=(0, 1))))


def test_heads_learn_each_target_from_the_images_that_have_it():
    rng = np.random.default_rng(0)
    features, groups = rng.normal(size=(40, 6)).astype(np.float32), np.arange(40) // 2
    targets, sizes = drawn(0)[1], (3, 2, 4)
    head = ClassTargetsHead(sizes, HEAD)
    fitted = head.fit(features, targets, groups, 0)
    found = fitted.predict(features)
    for k, part in enumerate(form_of().sum_to_1):
        seen = ~np.isnan(targets[:, k])
        values = tuple(range(sizes[k]))
        own = MeanHead((LogisticHead(values, C=(0.1,)), TreesHead(5, class_values=values)))
        alone = own.fit(features[seen], targets[seen, k], groups[seen], 0).predict(features)
        assert np.array_equal(found[:, part], alone)
    again = head.restore(fitted.arrays())
    assert np.allclose(again.predict(features), found, atol=1e-12)
    # Another order of the targets, and one that no image has.
    turned = ClassTargetsHead(sizes[::-1], HEAD).fit(features, targets[:, ::-1], groups, 0)
    assert np.allclose(turned.predict(features)[:, :4], found[:, 5:])
    gone = np.concatenate([targets, np.full((40, 1), np.nan)], axis=1)
    more = ClassTargetsHead((*sizes, 5), HEAD)
    arrays = more.fit(features, gone, groups, 0).arrays()
    assert np.allclose(more.restore(arrays).predict(features)[:, 9:], 0.2)


def test_heads_of_numbers_are_refused():
    with pytest.raises(ConfigError, match="RidgeHead must give probabilities of classes"):
        ClassTargetsHead((2, 3), RidgeHead())
    with pytest.raises(ConfigError, match="sizes is empty"):
        ClassTargetsHead((), HEAD)


SETTINGS = EnsembleSettings(experiments=["a"])
METHODS = ("mean", "best", "box", "simplex", "nnls", "ridge", "greedy")


@pytest.mark.parametrize("method", METHODS)
def test_blends_of_one_column_are_those_of_classes(method):
    form, one = form_of(("kind",), ()), Classes("kind", (0, 3), (0.0, 1.0, 2.0, 3.0), tuple("abcd"))
    members = np.stack([drawn(seed, ("kind",), missing=0)[0] for seed in range(3)])
    targets = drawn(1, ("kind",), missing=0)[1]
    rows, found = Rows(members, np.empty((40, 0))), []
    for each, truth in ((form, targets), (one, targets[:, 0])):
        metric = METRICS["LogLoss"]
        judge = each.judge(metric) if each is form else metric.for_classes(one.values, True)
        blend = create_blend(method, Goal(judge, each), SETTINGS, 0)
        found.append(blend.fit(rows, truth).predict(rows))
    assert np.array_equal(*found)


@pytest.mark.parametrize("method", METHODS)
def test_blends_leave_missing_targets_out_and_keep_blocks_of_probabilities(method):
    names, found = tuple(TEXTS), {}
    for order in (names, names[::-1]):
        form = form_of(order)
        goal = Goal(form.judge(METRICS["LogLoss"]), form)
        members = np.stack([drawn(seed, order)[0] for seed in range(3)])
        targets = drawn(1, order)[1]
        rows = Rows(members, np.empty((40, 0)))
        fitted = create_blend(method, goal, SETTINGS, 0).fit(rows, targets)
        blended = fitted.predict(rows)
        for part in form.sum_to_1:
            assert np.allclose(blended[:, part].sum(axis=1), 1)
        hidden = np.isnan(form.encoded(targets))
        other = np.where(hidden, 0.5, members)
        again = create_blend(method, goal, SETTINGS, 0)
        masked = again.fit(Rows(other, rows.features), targets).predict(rows)
        assert np.array_equal(masked, blended)
        kept = restore_blend(fitted.arrays(), goal)
        assert np.array_equal(kept.predict(rows), blended)
        found[order] = dict(zip(order, form.blocks.of(blended), strict=True))
    for name in names:
        assert np.allclose(found[names][name], found[names[::-1]][name], atol=1e-9)


def test_stack_is_refused():
    form = form_of()
    with pytest.raises(
        ConfigError, match="stack predicts one column, but .* several class targets"
    ):
        create_blend("stack", Goal(form.judge(METRICS["F1"]), form), SETTINGS, 0)


@pytest.mark.parametrize("grouped", [False, True])
def test_folds_balance_the_classes_of_all_columns(grouped):
    targets = drawn(0, n=120)[1]
    values = form_of().for_folds(targets)
    method = "StratifiedGroupKFold" if grouped else "StratifiedKFold"
    groups = pd.Series(np.arange(120) // 2) if grouped else None
    folds = assign_folds(FoldSettings(method=method, n_splits=3), values, groups)
    counts = np.stack([values[folds == fold].sum(axis=0) for fold in range(3)])
    if not grouped:
        assert np.ptp(counts, axis=0).max() <= 2
    turned = form_of(tuple(TEXTS)[::-1]).for_folds(targets[:, ::-1])
    again = assign_folds(FoldSettings(method=method, n_splits=3), turned, groups)
    assert np.array_equal(folds, again)
    if grouped:
        assert (pd.Series(folds).groupby(groups).nunique() == 1).all()
