"""Damaged tables, project files and metrics of several labels: an answer or one line for people."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_data import LABELS, make_labels
from test_fuzz import FUZZ, MANY, TOKENS, YAML_TOKENS, edited

from foldsmith.config import Experiment
from foldsmith.config.check import check_experiment
from foldsmith.data.table_checks import table_problems
from foldsmith.errors import FoldsmithError
from foldsmith.project import ProjectFolder
from foldsmith.steps.registry import types_of
from foldsmith.targets.label_thresholds import apply_label_thresholds, fit_label_thresholds
from foldsmith.targets.metric_text import joined_metric, split_metric
from foldsmith.targets.metrics import METRICS_OF_LABELS, metric_named

# Pieces of the keys of labels.
WORDS = [
    *("target_columns: ", "label_separator: ", "label_names: ", "target_column: ", "[red]", "[]"),
    *('" "', '""', ";", "- red", "- ''", "class_names: [a, b]", "metric: ", "F1(average=samples)"),
    *("F1(weights={red: 1})", "{name: LogLoss, weights: {red: 1, green: 2, blue: 3}}", "n_classes"),
    *("PartialAUC(max_fpr=2)", "average=", "weights={", "red", "0", "group_column: red"),
]


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    return {
        "columns": make_labels(folder / "columns", n_train=12, n_test=3),
        "text": make_labels(folder / "text", in_text=True, n_train=12, n_test=3),
    }


def one_line(error):
    """Make sure that each problem is a line of some length."""
    lines = str(error).strip().splitlines()
    assert lines and all(line.strip() and len(line) < 2000 for line in lines)


@pytest.mark.parametrize("form", ["columns", "text"])
@settings(max_examples=100 * MANY, **FUZZ)
@given(data=st.data())
def test_project_files_of_labels(projects, form, data):
    path = projects[form] / "project.yml"
    original = path.read_text()
    path.write_text(data.draw(edited(original, [*YAML_TOKENS, *WORDS])), encoding="utf-8")
    try:
        project = ProjectFolder.open(projects[form])
        problems = table_problems(project)
        check_experiment(Experiment.load(project, "exp_config/410.yml"), types_of(project))
    except FoldsmithError as error:
        one_line(error)
    else:
        assert all("\n" not in line for line in problems)
    finally:
        path.write_text(original)


@pytest.mark.parametrize("form", ["columns", "text"])
@settings(max_examples=100 * MANY, **FUZZ)
@given(data=st.data())
def test_tables_of_labels(projects, form, data):
    path = projects[form] / "input/train.csv"
    original = path.read_bytes()
    tokens = [*TOKENS, b"2", b"yes", b"0.5", b"red", b"red red", b" ", b"red;green"]
    path.write_bytes(data.draw(edited(original, tokens)))
    try:
        problems = table_problems(ProjectFolder.open(projects[form]))
    finally:
        path.write_bytes(original)
    assert all("train.csv" in line and "\n" not in line for line in problems), problems


@settings(max_examples=200 * MANY, **FUZZ)
@given(
    text=edited("F1(average=macro, weights={red: 1, green: 2, blue: 3})", [*YAML_TOKENS, *WORDS])
)
def test_metrics_of_labels(text):
    bound = {name: metric.for_labels(LABELS) for name, metric in METRICS_OF_LABELS.items()}
    try:
        metric = metric_named(text, metrics=bound)
    except FoldsmithError as error:
        one_line(error)
        return
    # What is taken can be written, read and computed.
    assert joined_metric(*split_metric(metric.title)) == metric.title
    labels = np.eye(3)
    low, high = metric.limits
    assert low - 1e-9 <= metric(labels * 0.5 + 0.1, labels) <= high + 1e-9


@settings(max_examples=60 * MANY, **FUZZ)
@given(data=st.data(), n=st.integers(1, 12), k=st.integers(1, 4))
def test_thresholds_of_any_probabilities(data, n, k):
    numbers = st.sampled_from([0.0, 1e-300, 0.5, 1 - 1e-16, 1.0]) | st.floats(0, 1)
    found = np.array(data.draw(st.lists(numbers, min_size=n * k, max_size=n * k))).reshape(n, k)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    labels = (rng.random((n, k)) < 0.5).astype(float)
    metric = METRICS_OF_LABELS[data.draw(st.sampled_from(["F1", "Accuracy", "Jaccard"]))]
    cuts = fit_label_thresholds(found, labels, metric)
    assert cuts.shape == (k,) and ((cuts >= 0) & (cuts <= 1)).all()
    moved = apply_label_thresholds(found, cuts)
    assert np.isfinite(moved).all()
    assert metric(moved, labels) >= metric(found, labels) - 1e-12
