"""``foldsmith new`` recognises several labels per image."""

import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

from foldsmith.config import Experiment
from foldsmith.config.check import check_experiment
from foldsmith.errors import DataError
from foldsmith.new.new import new_project_of
from foldsmith.new.new_rows import Data
from foldsmith.new.survey.columns import Source
from foldsmith.new.survey.labels import labels_in_text
from foldsmith.project import ProjectFolder
from foldsmith.project.submission import submission_form
from foldsmith.project.tables import read_test, read_train
from foldsmith.steps.registry import types_of

N = 24


@pytest.fixture
def made(tmp_path):
    """Make a project of a table; returns it opened."""
    rng = np.random.default_rng(0)
    (tmp_path / "im").mkdir()
    for k in range(N + 2):
        cv2.imwrite(str(tmp_path / f"im/{k}.png"), rng.integers(0, 255, (24, 24, 3), np.uint8))

    def make(columns, sample=None, **options):
        pd.DataFrame({"id": range(N), **columns}).to_csv(tmp_path / "train.csv", index=False)
        pd.DataFrame({"id": [N, N + 1]}).to_csv(tmp_path / "test.csv", index=False)
        if sample is not None:
            sample.to_csv(tmp_path / "sample_submission.csv", index=False)
        tables = tmp_path / "train.csv", tmp_path / "test.csv"
        new_project_of(tmp_path / "p", Data(tmp_path / "im", *tables, **options), yes=True)
        return ProjectFolder.open(tmp_path / "p")

    return make


def test_several_columns_are_labels(made, capsys):
    columns = {"a": [0, 1] * 12, "b": [1, 0, 0] * 8, "other": range(N)}
    sample = pd.DataFrame({"id": [N, N + 1], "a": 0, "b": 0})
    project = made(columns, sample, target_column="a,b", time="small")
    said = capsys.readouterr().out
    assert "target   a, b, as named" in said
    assert "labels   2 labels: a 12, b 8; 8 images without any" in said
    assert "the rarest label" not in said
    assert "metric   F1(average=macro): several labels" in said
    assert (
        "sample   sample_submission.csv, found beside the tables: one column per label (2)" in said
    )
    assert project.settings.target_columns == ("a", "b")
    assert project.form.read(read_train(project)).sum(axis=0).tolist() == [12, 8]
    assert submission_form(project, read_test(project)).title == "one column per label (2)"
    # Its experiments are whole.
    experiments = sorted((project.folder / "exp_config").glob("4*.yml"))
    assert len(experiments) >= 5
    for file in experiments:
        check_experiment(Experiment.load(project, file, ()), types_of(project))
    tree = Experiment.load(project, project.folder / "exp_config/410.yml", ()).tree
    assert tree["globals"]["task"] == "multi-label"


def test_columns_with_one_1_in_each_row_are_classes(made, capsys):
    columns = {"a b": [1, 0, 0] * 8, "c": [0, 1, 0] * 8, "d": [0, 0, 1] * 8}
    sample = pd.DataFrame({"id": [N, N + 1], "d": 0.5, "a b": 0.5, "c": 0})
    project = made(columns, sample, time="small")
    said = capsys.readouterr().out
    assert "target   a b, c, d: the other columns, all of 0 and 1 (for one of them" in said
    assert "every image has exactly one of them: classes, in the column class" in said
    assert "(for labels, of which an image may have several: --labels)" in said
    assert "one column per class (3 probabilities that sum to 1)" in said
    assert project.class_names == ("a b", "c", "d")
    table = read_train(project)
    assert project.form.read(table).tolist() == [0.0, 1, 2] * 8
    assert table["class"].tolist() == ["a b", "c", "d"] * 8


def test_columns_with_one_1_in_each_row_may_be_labels(made, capsys):
    columns = {"a": [1, 0, 0] * 8, "c": [0, 1, 0] * 8, "d": [0, 0, 1] * 8}
    project = made(columns, labels=True, time="small")
    assert project.settings.target_columns == ("a", "c", "d")
    assert "exactly one" not in capsys.readouterr().out


def test_other_columns_beside_them_leave_the_choice_to_people(made):
    columns = {"a": [1, 0] * 12, "c": [0, 1] * 12, "width": range(N)}
    with pytest.raises(DataError, match="--target"):
        made(columns, time="small")
    project = made({"target": [1, 0] * 12, "front": [0, 1] * 12}, time="small")
    assert project.settings.target_column == "target"
    shutil.rmtree(project.folder)
    # Not exactly one in each row.
    project = made({"a": [1, 0] * 12, "c": [0, 1] * 11 + [1, 1]}, time="small")
    assert project.settings.target_columns == ("a", "c")


def test_labels_that_are_none_are_one_line(made):
    with pytest.raises(DataError, match="has no texts that share labels"):
        made({"kind": ["x", "y"] * 12}, labels=True, target_column="kind", time="small")


def test_texts_that_share_parts_are_labels(made, capsys):
    texts = ["scab rust", "scab", "rust", "", "mildew scab", "mildew"] * 4
    project = made({"labels": texts}, metric="AUC(average=micro)", time="small")
    said = capsys.readouterr().out
    assert "labels   3 labels: mildew 8, rust 8, scab 12; 4 images without any" in said
    assert "to take each combination for a class: --classes" in said
    settings = project.settings
    assert (settings.label_separator, settings.label_names) == (" ", ("mildew", "rust", "scab"))
    assert project.metric.title == "AUC(average=micro)"
    assert project.folder.joinpath("README.md").read_text().count("3 labels") == 1


def test_each_combination_may_be_a_class(made, capsys):
    texts = ["scab;rust", "scab", "rust"] * 8
    project = made({"labels": texts}, classes=True, time="small")
    assert project.class_names == ("rust", "scab", "scab;rust")
    assert "several labels" in capsys.readouterr().out


def test_columns_of_other_values_are_no_labels(made):
    """They are several numbers, unless they are said to be labels."""
    columns = {"a": [0, 1] * 12, "b": [0, 2] * 12}
    with pytest.raises(DataError, match="column b: '2' is neither 0 nor 1; several columns of"):
        made(columns, target_column="a,b", time="small", labels=True)
    with pytest.raises(DataError, match="no column 'c' for --target"):
        made({"a": [0, 1] * 12}, target_column="a,c", time="small")


@pytest.mark.parametrize(
    ("texts", "separator"),
    [
        (["x;y", "x", "y"], ";"),
        (["x|y", "y|z", "x|z"], "|"),
        (["x y", "x", "y"], " "),
        (["dark red", "light red", "blue"], None),
        (["Oak, old", "Oak", "Elm"], None),
        (["1,5", "2,5", "1,2"], None),
        (["very good", "good", "bad"], None),
    ],
)
def test_labels_are_told_from_names(texts, separator):
    table = pd.DataFrame({"id": [str(k) for k in range(9)], "t": texts * 3})
    found = labels_in_text(Source(table, "t.csv"), "t")
    assert (found and found.separator) == separator
