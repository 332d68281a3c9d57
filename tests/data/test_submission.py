"""Submissions take the form of the sample, and every id gets its own prediction."""

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.submission import read_submission, submission_table
from foldsmith.project.tables import read_test

IDS = ["007", "010", "1e5", "NA", "b.png"]
VALUES = [0.5, 1.5, 2.5, 0.25, 3.0]


def make(folder, sample, **settings):
    """Write a project without images; ``sample`` is a table or the text of a file."""
    content = {
        "name": "x",
        "image_path": "{image_id}.png",
        "id_column": "image_id",
        "target_column": "target",
        "target_range": [0, 3],
        "n_classes": 4,
        "folds": {"method": "KFold"},
        **settings,
    }
    (folder / "input").mkdir(exist_ok=True)
    pd.DataFrame({"image_id": IDS}).to_csv(folder / "input/test.csv", index=False)
    if sample is not None:
        content["sample_submission"] = "sample.csv"
        text = sample if isinstance(sample, str) else sample.to_csv(index=False)
        (folder / "input/sample.csv").write_text(text)
    (folder / "project.yml").write_text(yaml.safe_dump(content))
    project = ProjectFolder.open(folder)
    return project, read_test(project)


ORDER = [3, 0, 4, 2, 1]


@pytest.mark.parametrize("id_column", ["image_id", "Id", "file name"])
@pytest.mark.parametrize("value_column", ["target", "Predicted"])
@pytest.mark.parametrize("suffix", ["", ".png"])
def test_ids_are_matched_by_content(tmp_path, id_column, value_column, suffix):
    texts = [IDS[k] if IDS[k].endswith(".png") else IDS[k] + suffix for k in ORDER]
    sample = pd.DataFrame({id_column: texts, value_column: "0"})
    project, test = make(tmp_path, sample)
    table = submission_table(project, test, VALUES)
    assert table.columns.tolist() == [id_column, value_column]
    # The sample's order, and its ids as they stand there.
    assert table[id_column].tolist() == texts
    assert table[value_column].tolist() == [VALUES[k] for k in ORDER]
    path = tmp_path / "out.csv"
    table.to_csv(path, index=False)
    assert read_submission(project, path, test).tolist() == VALUES


@settings(max_examples=25)
@given(order=st.permutations(range(len(IDS))))
def test_the_order_of_the_sample_changes_no_prediction(tmp_path_factory, order):
    folder = tmp_path_factory.mktemp("order")
    sample = pd.DataFrame({"x": 1, "target": 0, "Id": [IDS[k] for k in order]})
    project, test = make(folder, sample)
    table = submission_table(project, test, VALUES)
    assert dict(zip(table["Id"], table["target"], strict=True)) == dict(
        zip(IDS, VALUES, strict=True)
    )
    assert table["x"].tolist() == ["1"] * len(IDS)


def test_a_sample_of_one_column_has_the_order_of_the_test_table(tmp_path):
    project, test = make(tmp_path, pd.DataFrame({"target": [0] * 5}))
    assert submission_table(project, test, VALUES)["target"].tolist() == VALUES
    project, test = make(tmp_path, pd.DataFrame({"target": [0] * 4}))
    with pytest.raises(DataError, match=r"sample\.csv: 4 rows, but the test table has 5"):
        submission_table(project, test, VALUES)


def test_without_a_sample_there_are_ids_and_targets(tmp_path):
    project, test = make(tmp_path, None)
    table = submission_table(project, test, VALUES)
    assert table.to_dict("list") == {"image_id": IDS, "target": VALUES}


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (
            {"Id": [*IDS[:4], "x"]},
            "column Id: 1 id is not in the test table, the first is 'x' in",
        ),
        ({"Id": [*IDS[:4], "x"]}, "1 id of the test table is missing, the first is 'b.png'"),
        (
            {"image_id": [*IDS, "x"]},
            "column image_id: 1 id .*'x' in line 7; it must have every id",
        ),
        ({"Id": IDS[:3]}, "2 ids of the test table are missing, the first is 'NA'"),
        ({"Id": [*IDS, "010"]}, "1 id stands more than once, the first is '010' in line 7"),
        ({"image_id": list("uvwxy")}, "column image_id: 5 ids are not in the test table"),
        ({"Id": ["7", "10", "x", "y", "z"]}, "no column has the ids .*lost the leading zeros"),
        (
            {"Id": list("uvwxy")},
            "no column has the ids of the test table, .* such as '007' .the",
        ),
    ],
)
def test_a_sample_of_other_ids_is_refused(tmp_path, sample, message):
    table = pd.DataFrame({**sample, "target": 0})
    project, test = make(tmp_path, table)
    with pytest.raises(DataError, match=message) as error:
        submission_table(project, test, VALUES)
    assert "sample.csv: " in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        (["a", "b"], {}, r"no column of predictions .it has: Id, a, b.; have .*a column 'target'"),
        ([], {}, "no column of predictions .it has: Id."),
        (
            ["cat", "dog"],
            {"class_names": ["cat", "dog"], "target_range": [0, 1], "n_classes": 2},
            "its form .one column per class .* needs class probabilities, which these",
        ),
    ],
)
def test_columns_of_values_that_are_not_clear_are_refused(tmp_path, columns, settings, message):
    sample = pd.DataFrame({"Id": IDS, **dict.fromkeys(columns, "0")})
    metric = {"metric": "Accuracy"} if settings else {}
    project, test = make(tmp_path, sample, **settings, **metric)
    with pytest.raises(DataError, match=message):
        submission_table(project, test, np.zeros(5))


def test_classes_are_written_by_their_names(tmp_path):
    names = ["NA", "007"]
    sample = pd.DataFrame({"Id": IDS[::-1], "Label": "NA"})
    settings = {"class_names": names, "target_range": [0, 1], "n_classes": 2}
    project, test = make(tmp_path, sample, metric="Accuracy", **settings)
    table = submission_table(project, test, [0, 1, 1, 0, 1])
    assert table["Label"].tolist() == ["007", "NA", "007", "007", "NA"]
    table.to_csv(tmp_path / "out.csv", index=False)
    assert read_submission(project, tmp_path / "out.csv", test).tolist() == [0, 1, 1, 0, 1]


def test_a_file_of_other_ids_is_not_read_as_a_submission(tmp_path):
    project, test = make(tmp_path, None)
    table = submission_table(project, test, VALUES)
    for other in (table[:4], table[::-1], table.rename(columns={"target": "t"})):
        other.to_csv(tmp_path / "out.csv", index=False)
        with pytest.raises(DataError, match=r"out\.csv: is not a submission of today's test table"):
            read_submission(project, tmp_path / "out.csv", test)
