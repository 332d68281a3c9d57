"""Metrics of several labels equal scikit-learn's, thresholds and losses obey their laws."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from test_all_metrics import above_tpr, probabilistic_f

from foldsmith.errors import ConfigError
from foldsmith.targets import label_thresholds
from foldsmith.targets.decisions import LABEL_THRESHOLDS
from foldsmith.targets.label_losses import AsymmetricLoss, FocalLoss
from foldsmith.targets.label_means import weighted_mean
from foldsmith.targets.label_metrics import METRICS_OF_LABELS
from foldsmith.targets.label_thresholds import apply_label_thresholds, fit_label_thresholds
from foldsmith.targets.metric_text import split_metric
from foldsmith.targets.metrics import metric_named

SEEDS = st.integers(0, 2**32 - 1)


def data(seed, n=80, n_labels=4):
    """Labels from frequent to rare, one without an image, and probabilities of some worth."""
    rng = np.random.default_rng(seed)
    shares = np.array([0.6, 0.3, 0.1, 0.0, 0.05, 0.2])[:n_labels]
    labels = (rng.random((n, n_labels)) < shares).astype(float)
    probabilities = 1 / (1 + np.exp(-(rng.normal(size=labels.shape) * 1.5 + 2 * labels - 1.2)))
    return probabilities.round(2), labels


def named(name):
    return metric_named(name, metrics=METRICS_OF_LABELS)


def decided(function, **options):
    return lambda p, y: function(y, p >= 0.5, **options)


def ranked(function, average):
    """The mean over the labels that scikit-learn can rank."""

    def score(p, y):
        if average == "micro":
            return function(y.ravel(), p.ravel())
        there = [k for k in range(y.shape[1]) if 0 < y[:, k].mean() < 1]
        return np.mean([function(y[:, k], p[:, k]) for k in there])

    return score


def left_out(function, **options):
    """A macro average without labels that are neither decided nor true."""
    return decided(function, average="macro", zero_division=np.nan, **options)


def macro_jaccard(p, y):
    d, seen = p >= 0.5, (p >= 0.5).any(axis=0) | y.any(axis=0)
    scored = np.flatnonzero(seen)
    return np.mean([sk.jaccard_score(y[:, k], d[:, k], zero_division=0) for k in scored])


def each(function, there=lambda y: 0 < y.mean() < 1):
    """The mean over the labels that can be judged."""
    return lambda p, y: np.mean(
        [function(y[:, k], p[:, k]) for k in range(y.shape[1]) if there(y[:, k])]
    )


REFERENCES = {
    "F1": left_out(sk.f1_score),
    "F1(average=micro)": decided(sk.f1_score, average="micro"),
    "F1(average=weighted)": decided(sk.f1_score, average="weighted", zero_division=0),
    "F1(average=samples)": decided(sk.f1_score, average="samples", zero_division=1.0),
    "FBeta": left_out(sk.fbeta_score, beta=2),
    "FBeta(beta=0.5, average=micro)": decided(sk.fbeta_score, beta=0.5, average="micro"),
    "Jaccard": macro_jaccard,
    "Jaccard(average=samples)": decided(sk.jaccard_score, average="samples", zero_division=1.0),
    "Jaccard(average=micro)": decided(sk.jaccard_score, average="micro"),
    "Accuracy": decided(sk.accuracy_score),
    "Hamming": decided(sk.hamming_loss),
    "AUC": ranked(sk.roc_auc_score, "macro"),
    "AUC(average=micro)": ranked(sk.roc_auc_score, "micro"),
    "AveragePrecision": ranked(sk.average_precision_score, "macro"),
    "AveragePrecision(average=micro)": ranked(sk.average_precision_score, "micro"),
    "LogLoss": lambda p, y: np.mean(
        [sk.log_loss(y[:, k], p[:, k], labels=[0, 1]) for k in range(y.shape[1])]
    ),
    "Brier": lambda p, y: np.mean((p - y) ** 2),
    "PartialAUC": each(lambda y, s: sk.roc_auc_score(y, s, max_fpr=0.1)),
    "PartialAUC(max_fpr=0.4)": each(lambda y, s: sk.roc_auc_score(y, s, max_fpr=0.4)),
    "AUCAboveTPR": each(above_tpr),
    "AUCAboveTPR(min_tpr=0.5)": each(lambda y, s: above_tpr(y, s, 0.5)),
    "pF1": each(probabilistic_f, there=np.any),
}

# Metrics whose mean over the labels may have weights.
WEIGHABLE = [name for name, metric in METRICS_OF_LABELS.items() if "weights" in metric.options]


def test_every_metric_has_a_reference():
    assert {name.partition("(")[0] for name in REFERENCES} == set(METRICS_OF_LABELS)


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("seed", range(4))
def test_each_equals_its_reference(name, seed):
    probabilities, labels = data(seed)
    probabilities = probabilities.clip(0.01, 0.99)
    found = named(name)(probabilities, labels)
    assert found == pytest.approx(REFERENCES[name](probabilities, labels), abs=1e-12)


@pytest.mark.parametrize("name", REFERENCES)
@settings(max_examples=15)
@given(seed=SEEDS)
def test_the_order_of_rows_and_labels_changes_nothing(name, seed):
    probabilities, labels = data(seed, n_labels=6)
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(len(labels)), rng.permutation(labels.shape[1])
    metric = named(name)
    moved = probabilities[rows][:, columns], labels[rows][:, columns]
    assert metric(*moved) == pytest.approx(metric(probabilities, labels), abs=1e-12)
    low, high = metric.limits
    assert low <= metric(probabilities, labels) <= high
    assert metric.rows(probabilities, labels) is None or metric.row_function is not None


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12), st.randoms())
def test_the_order_of_labels_changes_no_digit_of_a_mean(values, random):
    weights = [1.0 + (k % 3) / 10 for k in range(len(values))]
    order = random.sample(range(len(values)), len(values))
    scores, by_label = np.array(values), np.array(weights)
    assert weighted_mean(scores[order], None) == weighted_mean(scores, None)
    assert weighted_mean(scores[order], by_label[order]) == weighted_mean(scores, by_label)


@pytest.mark.parametrize("name", REFERENCES)
def test_rows_without_some_labels_have_a_finite_score(name):
    metric = named(name)
    for labels in (np.zeros((3, 2)), np.ones((3, 2)), np.array([[0.0, 1]])):
        for probability in (0.0, 0.3, 1.0):
            assert np.isfinite(metric(np.full(labels.shape, probability), labels))
    # Nothing decided where nothing is true is right.
    if metric.decides:
        best = metric(np.zeros((3, 2)), np.zeros((3, 2)))
        assert best == (1.0 if metric.greater_is_better else 0.0)


@pytest.mark.parametrize(
    "name",
    ["AUC", "AveragePrecision", "LogLoss", "Brier", "PartialAUC", "AUCAboveTPR", "pF1"],
)
def test_one_label_agrees_with_two_classes(name):
    probabilities, labels = data(5, n_labels=1)
    as_classes = np.hstack([1 - probabilities, probabilities])
    classes = metric_named(name, (0.0, 1.0)).for_classes((0.0, 1.0), unordered=True)
    assert named(name)(probabilities, labels) == pytest.approx(classes(as_classes, labels[:, 0]))
    f1 = metric_named("F1(average=binary)", (0.0, 1.0)).for_classes((0.0, 1.0), unordered=True)
    odd = probabilities + 0.001  # no ties at 0.5
    both = np.hstack([1 - odd, odd])
    assert named("F1")(odd, labels) == pytest.approx(f1(both, labels[:, 0]))


@pytest.mark.parametrize("name", WEIGHABLE)
@settings(max_examples=10)
@given(seed=SEEDS)
def test_weights_of_labels_are_a_weighted_mean_of_each_alone(name, seed):
    probabilities, labels = data(seed, n_labels=4)
    labels[:2] = [[0, 0, 0, 0], [1, 1, 1, 1]]  # so that each can be judged
    names, weights = ["a", "b c", "d", "0"], np.array([2.0, 1, 5, 0.5])
    by_name = dict(zip(names, weights.tolist(), strict=True))
    bound = METRICS_OF_LABELS[name].for_labels(names)
    weighted = bound.with_options({"weights": by_name})
    alone = [weighted.of_one_label()(probabilities[:, [k]], labels[:, [k]]) for k in range(4)]
    found = weighted(probabilities, labels)
    assert found == pytest.approx(np.average(alone, weights=weights), abs=1e-12)
    rows = weighted.rows(probabilities, labels)
    assert rows is None or rows.mean() == pytest.approx(found)
    # The text of project.yml is read back, and the order of the names changes nothing.
    option = split_metric(weighted.title)[1]["weights"]
    assert {str(key): weight for key, weight in option.items()} == by_name
    order = np.random.default_rng(seed).permutation(4)
    moved = METRICS_OF_LABELS[name].for_labels([names[k] for k in order])
    again = moved.with_options({"weights": by_name})
    assert again(probabilities[:, order], labels[:, order]) == pytest.approx(found, abs=1e-12)
    equal = bound.with_options({"weights": dict.fromkeys(names, 3)})
    assert equal(probabilities, labels) == pytest.approx(bound(probabilities, labels), abs=1e-12)


@pytest.mark.parametrize("name", WEIGHABLE)
def test_a_label_that_cannot_be_judged_leaves_the_others_their_weights(name):
    probabilities, labels = data(3, n_labels=3)
    metric = METRICS_OF_LABELS[name]
    two = metric.for_labels("ab").with_options({"weights": {"a": 2, "b": 5}})
    # The first label is neither true nor decided for in any row: nothing ranks it or hits it.
    more = metric.for_labels("xab").with_options({"weights": {"x": 9, "a": 2, "b": 5}})
    zeros = np.zeros((len(labels), 1))
    found = more(np.hstack([zeros, probabilities[:, :2]]), np.hstack([zeros, labels[:, :2]]))
    expected = two(probabilities[:, :2], labels[:, :2])
    if metric.row_function is not None:  # errors, of which the first label has none
        expected *= 7 / 16
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "by_chance"),
    [("AUC", 0.5), ("PartialAUC", 0.5), ("AUCAboveTPR(min_tpr=0.6)", 0.4**2 / 2), ("pF1", 0.0)],
)
def test_without_a_label_to_rank_the_score_is_that_of_chance(name, by_chance):
    probabilities, _ = data(0)
    assert named(name)(probabilities, np.zeros_like(probabilities)) == by_chance
    assert named(name)(np.zeros_like(probabilities), np.zeros_like(probabilities)) == by_chance


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("F1(weights={a: 1, b: 0})", "weights: b: 0 must be a number above 0"),
        ("F1(weights={a: 1, c: 1})", "weights: 'c' is no label"),
        ("AUC(weights={a: 1})", "weights: there is none of 'b'"),
        ("LogLoss(weights=[1, 2])", "weights must be equal, or a weight of each label"),
        ("F1(average=micro, weights={a: 1, b: 2})", "weights need average=macro"),
        ("PartialAUC(max_fpr=0)", "max_fpr must be above 0 and at most 1"),
        ("PartialAUC(max_fpr=1.1)", "max_fpr must be above 0 and at most 1"),
        ("AUCAboveTPR(min_tpr=1)", "min_tpr must be at least 0 and below 1"),
        ("AUCAboveTPR(min_tpr=-0.1)", "min_tpr must be at least 0 and below 1"),
        ("pF1(beta=0)", "beta must be above 0"),
    ],
)
def test_wrong_weights_and_limits_are_named(text, message):
    bound = {name: metric.for_labels(("a", "b")) for name, metric in METRICS_OF_LABELS.items()}
    with pytest.raises(ConfigError) as error:
        metric_named(text, metrics=bound)
    assert message in str(error.value)


def test_wrong_options_and_shapes_are_named():
    with pytest.raises(ConfigError, match="average must be macro, micro, weighted or samples"):
        named("F1(average=binary)")
    with pytest.raises(ConfigError, match="needs a probability of each label"):
        named("F1")(np.zeros(3), np.zeros((3, 2)))


@pytest.mark.parametrize("name", ["F1", "F1(average=samples)", "FBeta", "Jaccard", "Accuracy"])
@settings(max_examples=8)
@example(seed=283401)  # two labels gain alike
@given(seed=SEEDS)
def test_thresholds_are_in_sample_never_worse_than_a_half(name, seed):
    probabilities, labels = data(seed, n=50)
    metric = named(name)
    cuts = fit_label_thresholds(probabilities, labels, metric)
    assert ((cuts >= 0) & (cuts <= 1)).all()
    moved = apply_label_thresholds(probabilities, cuts)
    assert metric.gain(metric(moved, labels), metric(probabilities, labels)) >= 0
    # They decide by the thresholds, and keep the order of images.
    assert ((moved >= 0.5) == (probabilities >= cuts)).all()
    assert (np.diff(moved[np.argsort(probabilities[:, 0], kind="stable"), 0]) >= -1e-15).all()
    # The order of labels changes no threshold.
    order = np.random.default_rng(seed).permutation(labels.shape[1])
    again = fit_label_thresholds(probabilities[:, order], labels[:, order], metric)
    assert again == pytest.approx(cuts[order])


def test_each_label_gets_the_threshold_that_parts_it(monkeypatch):
    odd = np.arange(40) % 2
    nothing = np.zeros(40)
    labels = np.stack([odd, odd, nothing, nothing], axis=1).astype(float)
    low, high = 0.1 + 0.2 * odd, 0.7 + 0.2 * odd
    probabilities = np.stack([low, high, np.full(40, 0.95), np.full(40, 0.01)], axis=1)
    cuts = fit_label_thresholds(probabilities, labels, named("F1"))
    # The third label, which no image has, is decided for none; the fourth one keeps the best
    # threshold for all.
    assert 0.1 < cuts[0] <= 0.3 and 0.7 < cuts[1] <= 0.9 and cuts[2] > 0.95
    assert cuts[3] == pytest.approx(0.2)
    # A second sweep finds each threshold for those that the others have by now.
    metric, (probabilities, labels) = named("Accuracy"), data(0, n=50)
    scores = []
    for sweeps in (0, 1, 2):
        monkeypatch.setattr(label_thresholds, "_SWEEPS", sweeps)
        cuts = fit_label_thresholds(probabilities, labels, metric)
        scores.append(metric(apply_label_thresholds(probabilities, cuts), labels))
    assert scores[0] < scores[1] < scores[2]


@pytest.mark.parametrize("seed", [21, 464, 606])
def test_thresholds_that_harm_together_are_not_taken_together(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    shape = int(rng.integers(5, 14)), int(rng.integers(2, 4))
    labels, probabilities = (rng.random(shape) < 0.5).astype(float), rng.random(shape).round(1)
    metric, scores = named("Accuracy"), []
    for sweeps in (0, 2):
        monkeypatch.setattr(label_thresholds, "_SWEEPS", sweeps)
        cuts = fit_label_thresholds(probabilities, labels, metric)
        scores.append(metric(apply_label_thresholds(probabilities, cuts), labels))
    assert scores[0] < scores[1]


def test_thresholds_find_a_rare_label():
    rng = np.random.default_rng(0)
    labels = (rng.random((2000, 1)) < 0.03).astype(float)
    probabilities = 0.02 + 0.2 * labels * rng.random(labels.shape) + 0.03 * rng.random(labels.shape)
    metric = named("F1")
    assert metric(probabilities, labels) == 0
    moved = LABEL_THRESHOLDS.cross_fitted(probabilities, labels, np.arange(2000) % 5, metric)
    assert metric(moved, labels) > 0.7


@settings(max_examples=15)
@given(seed=SEEDS)
def test_thresholds_never_use_the_fold_that_they_judge(seed):
    probabilities, labels = data(seed, n=60)
    folds, metric = np.arange(60) % 3, named("F1")
    found = LABEL_THRESHOLDS.cross_fitted(probabilities, labels, folds, metric)
    other = labels.copy()
    other[folds == 1] = 1 - other[folds == 1]
    again = LABEL_THRESHOLDS.cross_fitted(probabilities, other, folds, metric)
    assert (again[folds == 1] == found[folds == 1]).all()


def test_losses_are_those_of_the_papers():
    rng = np.random.default_rng(1)
    logits = torch.from_numpy(rng.normal(size=(6, 3)))
    labels = torch.from_numpy((rng.random((6, 3)) < 0.4).astype(float))
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    assert FocalLoss(gamma=0)(logits, labels) == pytest.approx(float(entropy))
    assert AsymmetricLoss(0, 0, 0)(logits, labels) == pytest.approx(float(entropy))
    p = torch.sigmoid(logits)
    of_truth = torch.where(labels == 1, p, 1 - p)
    alpha = torch.where(labels == 1, 0.25, 0.75)
    focal = (-alpha * (1 - of_truth) ** 2 * of_truth.log()).mean()
    assert FocalLoss(2, 0.25)(logits, labels) == pytest.approx(float(focal))
    shifted = (p - 0.05).clamp(min=0)
    asymmetric = -torch.where(
        labels == 1, (1 - p) * p.log(), shifted**4 * (1 - shifted).log()
    ).mean()
    assert AsymmetricLoss()(logits, labels) == pytest.approx(float(asymmetric))
    # The weights have no gradient, as in the authors' code.
    logits.requires_grad_()
    p = torch.sigmoid(logits)
    shifted = (p - 0.05).clamp(min=0)
    weights = torch.where(labels == 1, 1 - p, shifted**4).detach()
    entropy = -torch.where(labels == 1, p.log(), (1 - shifted).log())
    (expected,) = torch.autograd.grad((weights * entropy).mean(), logits)
    (found,) = torch.autograd.grad(AsymmetricLoss()(logits, labels), logits)
    torch.testing.assert_close(found, expected)
    # Large logits leave the gradient finite.
    far = torch.tensor([[80.0, -80.0]], requires_grad=True)
    for loss in (FocalLoss(), AsymmetricLoss()):
        value = loss(far, torch.tensor([[0.0, 1.0]]))
        assert torch.isfinite(torch.autograd.grad(value, far)[0]).all()
