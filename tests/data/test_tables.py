import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.submission import submission_table
from foldsmith.project.tables import (
    groups_of,
    hash_columns,
    image_paths,
    read_folds,
    read_table,
    read_test,
    read_train,
    targets_of,
)


@pytest.fixture
def opened(project_dir):
    return ProjectFolder.open(project_dir)


def rewrite(opened, name, change):
    path = opened.data_dir / name
    table = change(pd.read_csv(path, dtype={"object_id": str}))
    table.to_csv(path, index=False)


def test_ids_stay_text(opened):
    rewrite(opened, "test.csv", lambda t: t.assign(object_id=[f"{k:05}" for k in range(len(t))]))
    assert read_test(opened)["object_id"].tolist()[:2] == ["00000", "00001"]


def test_a_test_table_may_have_no_rows_but_needs_its_column(opened):
    rewrite(opened, "test.csv", lambda t: t.iloc[:0])
    assert len(read_test(opened)) == 0
    rewrite(opened, "test.csv", lambda t: t.rename(columns={"object_id": "id"}))
    with pytest.raises(DataError, match="no column 'object_id'"):
        read_test(opened)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="target"), "no column 'target' .it has: object_id"),
        (lambda t: t.iloc[:0], "a line of column names but no rows"),
        (lambda t: t.assign(object_id=t["object_id"].iloc[0]), "stands more than once"),
        (lambda t: t.assign(target=7), "60 targets are outside target_range 0..3"),
        (lambda t: t.assign(target=None), "60 targets are missing"),
        (lambda t: t.drop(columns="art_series_id"), "no column 'art_series_id'"),
        (lambda t: t.assign(object_id=None), "60 empty ids, the first in lines 2, 3, 4, ..."),
    ],
)
def test_what_is_wrong_with_the_train_table_is_said(opened, change, message):
    rewrite(opened, "train.csv", change)
    with pytest.raises(DataError, match=message) as error:
        read_train(opened)
    assert "train.csv" in str(error.value)


def test_a_missing_table_is_named(opened):
    (opened.data_dir / "train.csv").unlink()
    with pytest.raises(DataError, match=r"train\.csv: no such file"):
        read_train(opened)


def test_folds_need_preprocess_first(opened):
    with pytest.raises(DataError, match="run 'foldsmith preprocess' first"):
        read_folds(opened, None)


def test_fold_tables_of_another_number_are_refused(project):
    rewrite(project, "train_sgkf-5fold.csv", lambda t: t.assign(fold=t["fold"] % 4))
    with pytest.raises(DataError, match=r"must hold 0\.\.4"):
        read_folds(project, None)


def test_the_path_template_takes_columns(opened):
    table = read_train(opened).iloc[:2]
    expected = [opened.data_dir / "photos" / f"{key}.jpg" for key in table["object_id"]]
    assert list(image_paths(opened, table)) == expected
    with pytest.raises(DataError, match="image_path"):
        image_paths(opened, table.drop(columns="object_id"))


def test_submissions_take_the_sample_s_form(opened):
    test = read_test(opened)
    table = submission_table(opened, test, [0.5] * len(test))
    assert table.columns.tolist() == ["target"]
    assert table["target"].tolist() == [0.5] * len(test)
    rewrite(opened, "atmaCup#11_sample_submission.csv", lambda t: t.iloc[1:])
    with pytest.raises(DataError, match="19 rows, but the test table has 20"):
        submission_table(opened, test, [0.5] * len(test))


def test_the_hash_sees_order_and_values():
    table = pd.DataFrame({"id": ["a", "b"], "fold": [0, 1]})
    assert hash_columns(table, ["id", "fold"]) == hash_columns(table.copy(), ["id", "fold"])
    for other in (table.iloc[::-1], table.assign(fold=[1, 0]), table.assign(id=["a", "c"])):
        assert hash_columns(other, ["id", "fold"]) != hash_columns(table, ["id", "fold"])


def test_an_id_may_look_like_anything(opened):
    ids = ["NA", "007", "null", "1e5", "None", "True", " x ", "nan"]
    rewrite(opened, "test.csv", lambda t: t.iloc[:8].assign(object_id=ids))
    assert read_test(opened)["object_id"].tolist() == ids


# Texts that look like something else.
LIKE_OTHERS = ["1.1", "1.10", "1", "01", "NA", "nan", "None", "1e5", "100000", "TRUE", "True", " x"]


@given(st.permutations(LIKE_OTHERS))
@settings(max_examples=5)
def test_whatever_names_something_is_text(texts):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        pd.DataFrame({"id": range(len(texts)), "site": texts}).to_csv(path, index=False)
        table = read_table(path, ["id"], number_columns=["id"])
        assert table["site"].tolist() == list(texts)
        assert table["id"].tolist() == list(range(len(texts)))


def test_groups_and_folders_are_text(opened):
    texts = (LIKE_OTHERS * 5)[:60]
    rewrite(opened, "train.csv", lambda t: t.assign(art_series_id=texts))
    table = read_train(opened)
    assert table["art_series_id"].tolist() == texts
    assert groups_of(opened, table).max() + 1 == len(LIKE_OTHERS)
    in_folders = opened.settings.model_copy(update={"image_path": "{art_series_id}/a.png"})
    below = ProjectFolder(opened.folder, in_folders)
    assert image_paths(below, table)[3] == opened.data_dir / "01/a.png"
    padded = opened.settings.model_copy(update={"image_path": "{art_series_id:05d}.png"})
    with pytest.raises(DataError, match=r"is filled up with zeros by \{column:0>5\}"):
        image_paths(ProjectFolder(opened.folder, padded), table)


def test_an_empty_cell_is_a_gap_and_na_is_a_name(opened):
    groups = ["NA", " ", "", *map(str, range(57))]
    rewrite(opened, "train.csv", lambda t: t.assign(art_series_id=groups))
    with pytest.raises(DataError, match="art_series_id: 2 rows have no group, lines 3, 4"):
        read_train(opened)


def test_a_column_that_stands_twice_is_refused_where_it_is_needed(opened):
    path = opened.data_dir / "train.csv"
    header, rows = path.read_text().split("\n", 1)
    path.write_text(f"{header},note,note\n{rows}")
    assert len(read_train(opened)) == 60
    path.write_text(f"{header},target\n{rows}")
    with pytest.raises(DataError, match="the column name 'target' stands 2 times"):
        read_train(opened)


def test_numbers_are_numbers_wherever_they_stand(opened):
    table = read_train(opened)
    assert table["target"].dtype == np.int64
    values = [0.5, 3, 1e-3, *([1] * 57)]
    rewrite(opened, "train.csv", lambda t: t.assign(target=values))
    assert read_train(opened)["target"].tolist() == values
    rewrite(opened, "train.csv", lambda t: t.assign(target=["TRUE", *values[1:]]))
    with pytest.raises(DataError, match="1 target is missing or no number"):
        read_train(opened)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_byte_order_marks_and_line_ends_do_not_matter(opened, encoding, line_end):
    expected = read_train(opened)
    path = opened.data_dir / "train.csv"
    path.write_bytes(path.read_text().replace("\n", line_end).encode(encoding))
    pd.testing.assert_frame_equal(read_train(opened), expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \r\n", "is empty"),
        ("object_id,target,art_series_id\nä,1,x\n".encode("latin-1"), "line 2 is not UTF-8 text"),
        (
            b"object_id,target,art_series_id\na,1,x,5\n",
            "line 2 has 4 values, but there are 3 column names",
        ),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "not UTF-8 text"),
        (b"object_id,target\n\0a,1\n", "is it a CSV"),
    ],
)
def test_what_is_no_table_is_said(opened, content, message):
    (opened.data_dir / "train.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_train(opened)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "a\\..\\..\\x"])
def test_ids_stay_in_the_image_folder(opened, name):
    rewrite(opened, "test.csv", lambda t: t.assign(object_id=[name, *t["object_id"][1:]]))
    with pytest.raises(DataError, match="leads out of the image folder photos"):
        read_test(opened)


def test_ids_may_name_folders_below(opened):
    rewrite(opened, "test.csv", lambda t: t.assign(object_id="a/b/" + t["object_id"]))
    assert image_paths(opened, read_test(opened))[0].parent == opened.data_dir / "photos/a/b"


def test_all_problems_of_a_table_are_listed(opened):
    rewrite(
        opened,
        "train.csv",
        lambda t: t.assign(
            target=[9, None, *t["target"][2:]], art_series_id=[None, *t["art_series_id"][1:]]
        ),
    )
    with pytest.raises(DataError) as error:
        read_train(opened)
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert "column art_series_id: 1 row has no group, line 2" in lines[2]


def test_targets_keep_all_their_digits(opened):
    at = 1_600_000_000.25
    table = read_train(opened)
    table["target"] = [at + k for k in range(len(table))]
    targets = targets_of(opened, table)
    assert targets.dtype == np.float64 and (targets - at).tolist() == list(range(len(table)))
