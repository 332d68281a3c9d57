import pandas as pd
import pytest

from foldsmith.config import Project
from foldsmith.data.tables import (
    hash_columns,
    photo_paths,
    read_folds,
    read_test,
    read_train,
    submission_table,
)
from foldsmith.errors import DataError


@pytest.fixture
def opened(project_dir):
    return Project.open(project_dir)


def rewrite(opened, name, change):
    path = opened.data_dir / name
    table = change(pd.read_csv(path, dtype={"object_id": str}))
    table.to_csv(path, index=False)


def test_ids_stay_text(opened):
    rewrite(opened, "test.csv", lambda t: t.assign(object_id=[f"{k:05}" for k in range(len(t))]))
    assert read_test(opened)["object_id"].tolist()[:2] == ["00000", "00001"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="target"), "no column 'target' .it has: object_id"),
        (lambda t: t.iloc[:0], "has no rows"),
        (lambda t: t.assign(object_id=t["object_id"].iloc[0]), "stands more than once"),
        (lambda t: t.assign(target=7), "60 targets are missing or outside target_range 0..3"),
        (lambda t: t.assign(target=None), "60 targets are missing"),
        (lambda t: t.drop(columns="art_series_id"), "no column 'art_series_id'"),
        (lambda t: t.assign(object_id=None), "60 empty ids"),
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
    assert photo_paths(opened, table) == expected
    with pytest.raises(DataError, match="image_path"):
        photo_paths(opened, table.drop(columns="object_id"))


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
