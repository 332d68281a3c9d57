"""Each metric equals scikit-learn's or scipy's, and obeys the laws of its kind."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from foldsmith.errors import ConfigError
from foldsmith.targets.decisions import PRIORS
from foldsmith.targets.metric_text import joined_metric, split_metric
from foldsmith.targets.metrics import METRICS, METRICS_OF_LABELS, TYPES, metric_named
from foldsmith.targets.priors import apply_priors, fit_priors

N_CLASSES = 4
CLASSES = tuple(map(float, range(N_CLASSES)))
NAMES = sorted(METRICS)
OF_VALUES = [name for name in NAMES if not METRICS[name].of_classes]
OF_CLASSES = [name for name in NAMES if not METRICS[name].needs_order]


def judge(name):
    """Return a metric of classes without an order, or of values."""
    metric = metric_named(name, CLASSES)
    return metric if metric.needs_order else metric.for_classes(CLASSES, unordered=True)


def values(seed, n=120):
    rng = np.random.default_rng(seed)
    targets = rng.gamma(2.0, 2.0, n).round(1) + 0.1
    return (targets * rng.lognormal(0, 0.4, n)).round(1), targets


def classes(seed, n=150, n_classes=N_CLASSES):
    rng = np.random.default_rng(seed)
    true = np.minimum(rng.geometric(0.45, n) - 1, n_classes - 1)
    logits = rng.normal(size=(n, n_classes)) + 1.5 * np.eye(n_classes)[true]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), true


def any_data(name, seed):
    if METRICS[name].needs_order:
        predictions, targets = values(seed)
        return (predictions % 4, np.floor(targets % 4)) if name == "QWK" else (predictions, targets)
    probabilities, true = classes(seed)
    return probabilities, true.astype(float)


def weighted(p, y):
    weights = np.array([2.0, 1, 1, 5])[y]
    return sk.log_loss(y, p, sample_weight=weights, labels=range(N_CLASSES))


def decided(function, **options):
    return lambda p, y: function(y, p.argmax(axis=1), **options)


def precision_at_3(p, y):
    ranked = np.argsort(-p, axis=1)[:, :3]
    return np.mean(
        [1 / (1 + list(row).index(t)) if t in row else 0 for row, t in zip(ranked, y, strict=True)]
    )


def against_the_rest(function):
    """The mean over the classes of a score of one against the rest."""
    return lambda p, y: np.mean([function(y == k, p[:, k]) for k in range(N_CLASSES)])


def above_tpr(true, scores, min_tpr=0.8):
    """The area above a true positive rate as the metric of ISIC 2024 computes it."""
    largest = 1 - min_tpr
    scaled = sk.roc_auc_score(1 - true.astype(int), -scores, max_fpr=largest)
    return largest**2 / 2 + (largest - largest**2 / 2) / 0.5 * (scaled - 0.5)


def probabilistic_f(true, scores, beta=1.0):
    """Probabilistic precision and recall, as the metric of RSNA 2022 computes them."""
    hits = scores[true == 1].sum()
    precision, recall = hits / scores.sum(), hits / true.sum()
    return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)


# What each is, written by another hand; all names are here.
REFERENCES = {
    "RMSE": lambda p, y: sk.root_mean_squared_error(y, p),
    "MAE": lambda p, y: sk.mean_absolute_error(y, p),
    "R2": lambda p, y: sk.r2_score(y, p),
    "RMSLE": lambda p, y: sk.root_mean_squared_log_error(y, p),
    "MAPE": lambda p, y: sk.mean_absolute_percentage_error(y, p),
    "SMAPE": lambda p, y: np.mean(2 * abs(p - y) / (abs(p) + abs(y))),
    "NRMSE": lambda p, y: np.sqrt(1 - sk.r2_score(y, p)),
    "MedAE": lambda p, y: sk.median_absolute_error(y, p),
    "Pearson": lambda p, y: stats.pearsonr(p, y)[0],
    "Spearman": lambda p, y: stats.spearmanr(p, y)[0],
    "Pinball(quantile=0.9)": lambda p, y: sk.mean_pinball_loss(y, p, alpha=0.9),
    "QWK": lambda p, y: sk.cohen_kappa_score(y, np.ceil(p.clip(0, 3) - 0.5), weights="quadratic"),
    "Accuracy": decided(sk.accuracy_score),
    "BalancedAccuracy": decided(sk.balanced_accuracy_score),
    "F1": decided(sk.f1_score, average="macro"),
    "F1(average=weighted)": decided(sk.f1_score, average="weighted"),
    "F1(average=micro)": decided(sk.f1_score, average="micro"),
    "FBeta": decided(sk.fbeta_score, beta=2, average="macro"),
    "FBeta(beta=0.5, average=weighted)": decided(sk.fbeta_score, beta=0.5, average="weighted"),
    "MCC": decided(sk.matthews_corrcoef),
    "Jaccard": decided(sk.jaccard_score, average="macro"),
    "Jaccard(average=micro)": decided(sk.jaccard_score, average="micro"),
    "LogLoss": lambda p, y: sk.log_loss(y, p, labels=range(N_CLASSES)),
    "WeightedLogLoss": lambda p, y: np.mean(
        [-np.log(p[y == k, k]).mean() for k in range(N_CLASSES) if (y == k).any()]
    ),
    "WeightedLogLoss(weights=[2, 1, 1, 5])": weighted,
    "Brier": lambda p, y: ((p - np.eye(N_CLASSES)[y]) ** 2).sum(axis=1).mean(),
    "AUC": lambda p, y: sk.roc_auc_score(y, p, multi_class="ovr"),
    "AveragePrecision": lambda p, y: sk.average_precision_score(np.eye(N_CLASSES)[y], p),
    "WeightedAUC": lambda p, y: sk.roc_auc_score(y, p, multi_class="ovr", average="weighted"),
    "PartialAUC": against_the_rest(lambda y, s: sk.roc_auc_score(y, s, max_fpr=0.1)),
    "PartialAUC(max_fpr=0.33)": against_the_rest(lambda y, s: sk.roc_auc_score(y, s, max_fpr=0.33)),
    "PartialAUC(max_fpr=1)": lambda p, y: sk.roc_auc_score(y, p, multi_class="ovr"),
    "AUCAboveTPR": against_the_rest(above_tpr),
    "AUCAboveTPR(min_tpr=0)": lambda p, y: sk.roc_auc_score(y, p, multi_class="ovr"),
    "pF1": against_the_rest(probabilistic_f),
    "pF1(beta=2)": against_the_rest(lambda y, s: probabilistic_f(y, s, 2)),
    "TopKAccuracy": lambda p, y: sk.top_k_accuracy_score(y, p, k=2, labels=range(N_CLASSES)),
    "MAPatK": precision_at_3,
}


def test_every_metric_has_a_reference():
    assert {split_metric(text)[0] for text in REFERENCES} == set(METRICS)


@pytest.mark.parametrize("text", REFERENCES)
def test_it_is_what_others_compute(text):
    for seed in range(3):
        predictions, targets = any_data(split_metric(text)[0], seed)
        given_to = targets if judge(text).needs_order else targets.astype(int)
        expected = REFERENCES[text](predictions, given_to)
        assert judge(text)(predictions, targets) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=80)
@given(st.sampled_from(NAMES), st.integers(0, 10_000), st.integers(1, 30))
def test_any_rows_give_a_number_within_its_limits_in_any_order(name, seed, n):
    metric = judge(name)
    predictions, targets = any_data(name, seed)
    some, of_some = predictions[:n], targets[:n]  # also one row, and rows that lack classes
    value = metric(some, of_some)
    low, high = metric.limits
    assert math.isfinite(value) and low - 1e-9 <= value <= high + 1e-9
    order = np.random.default_rng(seed).permutation(n)
    assert metric(some[order], of_some[order]) == pytest.approx(value, abs=1e-9)
    constant = np.repeat(predictions[:1], n, axis=0)
    assert math.isfinite(metric(constant, of_some))


@settings(max_examples=40)
@given(st.sampled_from(OF_CLASSES), st.integers(0, 10_000), st.permutations(range(N_CLASSES)))
def test_the_order_of_classes_without_one_changes_nothing(name, seed, order):
    probabilities, true = classes(seed)
    renamed = np.argsort(order)[true].astype(float)
    found = judge(name)(probabilities[:, order], renamed)
    assert found == pytest.approx(judge(name)(probabilities, true.astype(float)), abs=1e-9)


@settings(max_examples=40)
@given(st.sampled_from(OF_VALUES), st.integers(0, 10_000), st.sampled_from([0.25, 10.0, 1e4]))
def test_a_unit_of_the_target_scales_or_changes_nothing(name, seed, unit):
    predictions, targets = values(seed)
    before, after = (
        judge(name)(predictions, targets),
        judge(name)(unit * predictions, unit * targets),
    )
    if name in ("RMSE", "MAE", "MedAE", "Pinball"):
        before *= unit
    if name != "RMSLE":  # log(1 + value) has a unit of its own
        assert after == pytest.approx(before, rel=1e-9)


@settings(max_examples=25)
@given(st.sampled_from(["F1", "FBeta", "Jaccard"]), st.integers(0, 10_000))
def test_binary_is_of_the_second_of_two_classes(name, seed):
    probabilities, true = classes(seed, n_classes=2)
    metric = METRICS[name].with_options({"average": "binary"}).for_classes((0.0, 1.0), True)
    function = {"F1": sk.f1_score, "Jaccard": sk.jaccard_score}.get(name)
    expected = (
        function(true, probabilities.argmax(axis=1))
        if function
        else sk.fbeta_score(true, probabilities.argmax(axis=1), beta=2)
    )
    assert metric(probabilities, true.astype(float)) == pytest.approx(expected)
    brier = metric_named("Brier", (0.0, 1.0))(probabilities, true.astype(float))
    assert brier == pytest.approx(sk.brier_score_loss(true, probabilities[:, 1]))
    average = metric_named("AveragePrecision", (0.0, 1.0))(probabilities, true.astype(float))
    assert average == pytest.approx(sk.average_precision_score(true, probabilities[:, 1]))


@settings(max_examples=25)
@given(
    st.dictionaries(
        st.sampled_from(["beta", "k", "average", "weights"]),
        st.one_of(
            st.integers(-5, 50),
            st.floats(-10, 10).map(lambda x: round(x, 3)),
            st.sampled_from(["macro", "balanced"]),
            st.lists(st.integers(1, 9), min_size=1, max_size=4),
        ),
    )
)
def test_the_text_of_a_metric_is_read_back(options):
    assert split_metric(joined_metric("FBeta", options)) == ("FBeta", options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("F2", "there is no metric F2"),
        ("F1(", "is neither a name nor a name with options"),
        ("F1(average)", "is neither a name nor a name with options"),
        ("F1(averge=macro)", r"F1: there is no option averge \(did you mean average"),
        ("RMSE(k=1)", r"RMSE: there is no option k \(it has none"),
        ("F1(average=mean)", "average must be macro, micro, weighted or binary"),
        ("F1(average=binary)", "average=binary is of 2 classes, and there are 4; take macro"),
        ("FBeta(beta=two)", "beta must be a number, not 'two'"),
        ("FBeta(beta=-1)", "beta must be above 0"),
        ("TopKAccuracy(k=1.5)", "k must be a whole number"),
        ("TopKAccuracy(k=4)", "k=4 must be below the number of classes, which is 4"),
        ("MAPatK(k=5)", "k=5 is more than the number of classes, which is 4"),
        ("Pinball(quantile=90)", "quantile must be between 0 and 1"),
        ("WeightedLogLoss(weights=[1, 2])", "weights has 2 numbers for 4 classes"),
        ("WeightedLogLoss(weights=even)", "weights must be balanced, or one per class"),
    ],
)
def test_a_wrong_option_is_named_in_one_line(text, message):
    with pytest.raises(ConfigError, match=message) as error:
        metric_named(text, CLASSES)
    assert "\n" not in str(error.value)


def test_an_experiment_gives_options_as_arguments():
    class Project:
        class_values, class_names, metrics = CLASSES, (), METRICS

    assert TYPES["FBeta"](Project(), beta=0.5).title == "FBeta(beta=0.5, average=macro)"
    assert TYPES["Pinball"](Project(), quantile=0.9).title == "Pinball(quantile=0.9)"


@pytest.mark.parametrize("name", ["F1", "BalancedAccuracy", "MCC", "Jaccard"])
def test_priors_help_rare_classes_and_see_no_row_that_they_judge(name):
    rng = np.random.default_rng(0)
    n = 900
    true = rng.choice(3, n, p=[0.85, 0.1, 0.05])
    logits = rng.normal(size=(n, 3)) + 1.2 * np.eye(3)[true] + np.log([0.85, 0.1, 0.05])
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets, folds = true.astype(float), np.arange(n) % 3
    metric = metric_named(name).for_classes((0.0, 1.0, 2.0), unordered=True)
    plain = metric(probabilities, targets)
    fitted = PRIORS.cross_fitted(probabilities, targets, folds, metric)
    assert metric(fitted, targets) > plain
    in_sample = apply_priors(probabilities, fit_priors(probabilities, targets, metric))
    assert metric(in_sample, targets) >= plain
    np.testing.assert_allclose(in_sample.sum(axis=1), 1)
    # Other targets of a fold change nothing for this fold.
    other = np.where(folds == 1, 2.0 - targets, targets)
    again = PRIORS.cross_fitted(probabilities, other, folds, metric)
    np.testing.assert_array_equal(again[folds == 1], fitted[folds == 1])
    assert not np.array_equal(again[folds != 1], fitted[folds != 1])


def test_every_line_of_the_documentation_names_a_metric():
    page = Path(__file__).resolve().parents[2] / "docs/metrics.md"
    found = re.findall(r"^\| `metric: (.*?)` \|", page.read_text(), re.MULTILINE)
    assert [split_metric(text)[0] for text in found] == [
        *(*METRICS, *METRICS_OF_LABELS, "GlobalR2", "ExactMatch")
    ]
    for text in found[: len(METRICS)]:
        assert judge(text).title == text
    for text in found[len(METRICS) : -2]:
        assert metric_named(text, metrics=METRICS_OF_LABELS).title == text


def test_pf1_of_nothing_at_all_is_0():
    # So small a beta leaves only the predicted sum, which is 0 too.
    metric = METRICS["pF1"].with_options({"beta": 1e-200}).for_classes((0.0, 1.0), unordered=True)
    assert metric(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0.0, 1.0])) == 0
