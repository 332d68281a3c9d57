import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, log_loss, roc_auc_score

from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.targets.classification import MultiClass
from foldsmith.targets.metrics import METRICS, TYPES, metric_named
from foldsmith.targets.regression import Regression
from foldsmith.targets.scoring import check_metric, score_logits

VALUES = (0.0, 1.0, 2.0, 3.0)


def data(seed, n=200, n_classes=4):
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, n_classes, n)
    probabilities = rng.dirichlet(np.ones(n_classes), n) + 0.3 * np.eye(n_classes)[classes]
    # Rounded, so that there are ties.
    return classes, np.round(probabilities, 2)


def test_a_wrong_name_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"no metric RSME \(did you mean RMSE"):
        metric_named("RSME")


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_metrics_of_classes_are_those_of_scikit_learn(seed):
    classes, probabilities = data(seed)
    targets = classes.astype(float)
    points = probabilities @ np.asarray(VALUES) / probabilities.sum(axis=1)
    rounded = np.ceil(points - 0.5)  # halves down
    kappa = cohen_kappa_score(rounded, classes, weights="quadratic")
    assert metric_named("QWK", VALUES)(points, targets) == pytest.approx(kappa)
    hits = np.mean(rounded == classes)
    assert metric_named("Accuracy", VALUES)(points, targets) == pytest.approx(hits)
    sums = probabilities / probabilities.sum(axis=1, keepdims=True)
    assert metric_named("LogLoss", VALUES)(sums, targets) == pytest.approx(log_loss(classes, sums))
    auc = roc_auc_score(classes, sums, multi_class="ovr", average="macro")
    assert metric_named("AUC", VALUES)(sums, targets) == pytest.approx(auc)


def test_the_second_of_two_classes_is_the_positive_one():
    classes, probabilities = data(0, n_classes=2)
    auc = metric_named("AUC", (0.0, 1.0))(probabilities, classes.astype(float))
    assert auc == pytest.approx(roc_auc_score(classes, probabilities[:, 1]))
    assert 0.6 < auc < 0.99
    assert metric_named("AUC", (0.0, 1.0))(probabilities[:5], np.zeros(5)) == 0.5


def test_classes_need_not_be_whole_numbers():
    qwk = metric_named("QWK", (10.0, 1.0, 3.0))
    targets = np.array([1.0, 3.0, 10.0, 10.0])
    assert qwk(np.array([1.4, 3.9, 8.0, 30.0]), targets) == 1.0
    # One class off in their order, whatever the distance of the values.
    assert qwk(np.array([1.0, 1.0, 10.0, 10.0]), targets) == pytest.approx(
        cohen_kappa_score([0, 0, 2, 2], [0, 1, 2, 2], weights="quadratic")
    )


@given(st.sampled_from(sorted(METRICS)), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_rows_and_directions(name, seed):
    metric = metric_named(name, VALUES)
    classes, probabilities = data(seed)
    targets = classes.astype(float)
    sure, unsure = np.eye(4)[classes], probabilities / probabilities.sum(axis=1, keepdims=True)
    if not metric.takes_probabilities:
        sure, unsure = targets, unsure @ np.asarray(VALUES)
    right, wrong = metric(sure, targets), metric(unsure, targets)
    # What is right is better than what is not, whatever the direction.
    assert metric.gain(right, wrong) > 0 > metric.gain(wrong, right)
    assert metric.best([wrong, right, wrong]) == 1
    rows = metric.rows(unsure, targets)
    assert (rows is None) == (METRICS[name].row_function is None)
    if rows is not None:
        assert metric.from_mean(rows.mean()) == pytest.approx(wrong)


@pytest.mark.parametrize(("name", "judged_by"), [("QWK", "QWK"), ("MAE", "MAE"), ("AUC", "RMSE")])
def test_what_has_only_values_is_judged_by_values(small_project, name, judged_by):
    text = (small_project / "project.yml").read_text()
    (small_project / "project.yml").write_text(f"{text}metric: {name}\n")
    metric = ProjectFolder.open(small_project).metric.for_points()
    assert (metric.name, metric.takes_probabilities) == (judged_by, False)
    assert metric.rounds == (name == "QWK")


def test_a_metric_in_an_experiment_knows_classes_that_a_fold_lacks(small_project):
    project = ProjectFolder.open(small_project)
    qwk = TYPES["QWK"](project)
    targets = np.array([0.0, 1, 2, 2, 1])
    wrong = np.array([0.0, 1, 3, 3, 1])
    assert qwk(targets, targets) == 1.0 > qwk(wrong, targets)
    assert qwk.as_judged(np.array([0.4, 2.6, 9.0])).tolist() == [0.0, 3.0, 3.0]
    assert TYPES["RMSE"](project).as_judged(np.array([0.4])).tolist() == [0.4]


def test_a_task_that_has_no_probabilities_is_named():
    metric = metric_named("LogLoss", VALUES)
    with pytest.raises(ConfigError, match=r"LogLoss: needs class prob.*regression gives none"):
        check_metric(Regression((0.0, 3.0)), metric)
    logits = np.log(np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]])).astype(np.float32)
    found = score_logits(MultiClass(VALUES), metric, logits, np.array([3, 0], np.float32))
    assert found == pytest.approx(-np.log([0.4, 0.7]).mean(), rel=1e-5)
    with pytest.raises(ConfigError, match=r"shape \(2, 4\), one per class; there are \(2, 3\)"):
        metric(np.ones((2, 3)) / 3, np.zeros(2))


def test_rows_that_are_another_metric_are_refused():
    def halved(predictions, targets):
        return np.abs(predictions - targets) / 2

    wrong = replace(METRICS["MAE"], row_function=halved)
    predictions, targets = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.5, 2.0])
    with pytest.raises(ConfigError, match="MAE: row_function and from_mean give 0.25, function"):
        wrong.rows(predictions, targets)
    with pytest.raises(ConfigError, match="one value per row"):
        replace(wrong, row_function=lambda p, t: np.full(1, 0.5)).rows(predictions, targets)


def test_a_metric_of_an_order_does_not_take_classes_without_one():
    for metric in METRICS.values():
        if metric.needs_order:
            with pytest.raises(ConfigError, match=f"{metric.name}: needs an order"):
                metric.for_classes((0.0, 1.0, 2.0), unordered=True)
        else:
            assert metric.for_classes((0.0, 1.0, 2.0), unordered=True).takes_probabilities


def test_the_names_are_there_without_heavy_imports():
    code = (
        "import sys, foldsmith.targets.metrics as m; print(*m.METRICS); "
        "print(*{'torch', 'sklearn', 'scipy', 'pandas', 'pydantic'} & sys.modules.keys())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.startswith("RMSE MAE QWK Accuracy LogLoss AUC R2 ")
    assert said.stdout.endswith("\n\n")
