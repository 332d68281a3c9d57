"""Submissions of several labels per image: columns, texts and rows per label, filled and read."""

import numpy as np
import pandas as pd
import pytest
import yaml

from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.submission import read_submission, submission_form, submission_table
from foldsmith.project.tables import read_test

IDS, NAMES = ["a", "b", "c"], ["scab", "rust"]
PROBABILITIES = np.array([[0.9, 0.2], [0.1, 0.3], [0.5, 0.8]])
COLUMNS = {"target_columns": NAMES}
TEXT = {"target_column": "labels", "label_separator": ";", "label_names": NAMES}


def make(folder, target, sample=None, metric="F1"):
    content = {
        **{"name": "x", "image_path": "{id}.png", "id_column": "id", **target},
        **{"folds": {"method": "KFold"}, "metric": metric},
    }
    (folder / "input").mkdir(exist_ok=True)
    pd.DataFrame({"id": IDS}).to_csv(folder / "input/test.csv", index=False)
    if sample is not None:
        sample.to_csv(folder / "input/sample.csv", index=False)
        content["sample_submission"] = "sample.csv"
    (folder / "project.yml").write_text(yaml.safe_dump(content))
    project = ProjectFolder.open(folder)
    return project, read_test(project)


def handed_in(project, test):
    return submission_table(project, test, PROBABILITIES, PROBABILITIES)


@pytest.mark.parametrize("metric", ["F1", "AUC"])
def test_columns_have_decisions_or_probabilities(tmp_path, metric):
    project, test = make(tmp_path, COLUMNS, metric=metric)
    table = handed_in(project, test)
    assert list(table.columns) == ["id", *NAMES]
    wanted = (PROBABILITIES >= 0.5).astype(int) if metric == "F1" else PROBABILITIES
    assert (table[NAMES].to_numpy() == wanted).all()
    table.to_csv(tmp_path / "out.csv", index=False)
    assert (read_submission(project, tmp_path / "out.csv", test) == wanted).all()


def test_texts_have_the_separator_of_the_train_table(tmp_path):
    project, test = make(tmp_path, TEXT)
    table = handed_in(project, test)
    assert table["labels"].tolist() == ["scab", "", "scab;rust"]
    table.to_csv(tmp_path / "out.csv", index=False)
    read = read_submission(project, tmp_path / "out.csv", test)
    assert read.tolist() == [[1, 0], [0, 0], [1, 1]]


def test_the_sample_decides_in_whatever_order(tmp_path):
    sample = pd.DataFrame({"Id": IDS[::-1], "p_rust": 0, "p_scab": 0})
    project, test = make(tmp_path, TEXT, sample, "LogLoss")
    table = handed_in(project, test)
    assert table["p_rust"].tolist() == [0.8, 0.3, 0.2]
    assert table["p_scab"].tolist() == [0.5, 0.1, 0.9]
    rows = pd.DataFrame([(i, name, 0) for name in NAMES for i in IDS], columns=["id", "l", "v"])
    project, test = make(tmp_path, COLUMNS, rows)
    assert handed_in(project, test)["v"].tolist() == [1, 0, 1, 0, 0, 1]
    words = pd.DataFrame({"id": IDS, "labels": ["scab", "scab rust", ""]})
    project, test = make(tmp_path, COLUMNS, words)
    assert submission_form(project, test).title == "one column, labels"
    assert handed_in(project, test)["labels"].tolist() == ["scab", "", "scab rust"]


def test_one_label_is_a_column(tmp_path):
    sample = pd.DataFrame({"id": IDS, "scab": 0})
    project, test = make(tmp_path, {"target_columns": ["scab"]}, sample)
    one = PROBABILITIES[:, :1]
    assert submission_table(project, test, one, one)["scab"].tolist() == [1, 0, 1]


def test_a_label_that_is_missing_is_named(tmp_path):
    sample = pd.DataFrame({"id": IDS, "scab": 0, "rust": 0, "mildew": 0})
    project, test = make(tmp_path, COLUMNS, sample)
    with pytest.raises(DataError, match="labels such as scab, but mildew, which is no label"):
        submission_form(project, test)


def test_a_sample_of_other_columns_is_told_the_forms_of_labels(tmp_path):
    project, test = make(tmp_path, COLUMNS, pd.DataFrame({"id": IDS, "a": 0, "b": 0}))
    wanted = "have one column per label, or a row per id and class, or a column 'target'"
    with pytest.raises(DataError, match=f"no column of predictions .it has: id, a, b.; {wanted}"):
        submission_form(project, test)


@pytest.mark.parametrize("separator", ["_", "__", "-", "|"])
@pytest.mark.parametrize("label_first", [False, True])
def test_ids_joined_with_labels_are_taken_apart(tmp_path, separator, label_first):
    pairs = [(i, name) for name in NAMES for i in IDS[::-1]]
    texts = [separator.join(pair[::-1] if label_first else pair) for pair in pairs]
    sample = pd.DataFrame({"row_id": texts, "Target": 0})
    project, test = make(tmp_path, TEXT, sample, "LogLoss")
    form = submission_form(project, test)
    how = separator.join(("label", "id") if label_first else ("id", "label"))
    assert form.title.startswith(f"long: a row per id and label, joined as {how} in row_id")
    table = handed_in(project, test)
    assert table["row_id"].tolist() == texts
    expected = [PROBABILITIES[IDS.index(i), NAMES.index(name)] for i, name in pairs]
    assert table["Target"].tolist() == expected
    table.to_csv(tmp_path / "out.csv", index=False)
    assert read_submission(project, tmp_path / "out.csv", test) == pytest.approx(PROBABILITIES)


def test_ids_joined_with_classes_and_with_suffixes(tmp_path):
    content = {"class_names": NAMES, "target_column": "labels"}
    sample = pd.DataFrame(
        [(f"{name}:{i}.jpg", 0) for i in IDS for name in NAMES], columns=["id", "p"]
    )
    (tmp_path / "input").mkdir()
    project, _ = make(tmp_path, content, sample, "LogLoss")
    pd.DataFrame({"id": [f"{i}.jpg" for i in IDS]}).to_csv(tmp_path / "input/test.csv", index=False)
    probabilities = PROBABILITIES / PROBABILITIES.sum(axis=1, keepdims=True)
    given = read_test(project), probabilities.argmax(1), probabilities
    table = submission_table(project, *given)
    assert table["p"].tolist() == pytest.approx(probabilities.ravel().tolist())
    # Without the suffix in the sample alone.
    short = sample.assign(id=sample["id"].str.removesuffix(".jpg"))
    short.to_csv(tmp_path / "input/sample.csv", index=False)
    assert submission_table(project, *given)["p"].tolist() == table["p"].tolist()


def test_joined_ids_that_may_be_of_two_labels_are_refused(tmp_path):
    labels = {"target_columns": ["b", "a_b"]}
    texts = [f"{i}_{name}" for i in ("x", "x_a") for name in labels["target_columns"]]
    project, _ = make(tmp_path, labels, pd.DataFrame({"id": texts, "p": 0}))
    pd.DataFrame({"id": ["x", "x_a"]}).to_csv(tmp_path / "input/test.csv", index=False)
    with pytest.raises(DataError, match="an id may be of two labels"):
        submission_form(project, read_test(project))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a_scab", "a_rust", "b_scab", "b_rust", "c_scab", "c_rus"], "line 7: 'c_rus' is none"),
        (["a_scab", "a_rust", "b_scab", "b_rust", "c_scab", "c_scab"], "line 7: 'c_scab' stands"),
        (["a_scab", "a_rust", "b_scab", "b_rust", "c_scab"], "there is none for 'c_rust'"),
    ],
)
def test_joined_ids_that_do_not_fit_are_named(tmp_path, texts, message):
    project, test = make(tmp_path, COLUMNS, pd.DataFrame({"id": texts, "p": 0}))
    with pytest.raises(DataError) as error:
        submission_form(project, test)
    assert message in str(error.value)
    assert "column id: has ids as id_label" in str(error.value)
