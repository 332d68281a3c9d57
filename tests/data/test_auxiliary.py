import numpy as np
import pandas as pd
import pytest
import yaml

from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import read_folds
from foldsmith.steps.preprocess import preprocess
from foldsmith.targets.auxiliary import read_auxiliary

DECLARED = {
    "materials": {
        "table": "materials.csv",
        "column": "name",
        "kind": "multi-label",
        "min_count": 3,
    },
    "date": {"column": "sorting_date", "kind": "regression"},
}


@pytest.fixture
def opened(small_project):
    path = small_project / "project.yml"
    content = yaml.safe_load(path.read_text()) | {"auxiliary": DECLARED}
    path.write_text(yaml.safe_dump(content))
    project = ProjectFolder.open(small_project)
    preprocess(project)
    return project


def read(project, *names):
    table = read_folds(project, None)
    seen = table["fold"].to_numpy() != 0
    return table, seen, read_auxiliary(project, names, table, seen)


def test_numbers_are_standardised_by_the_training_folds(opened):
    table, seen, found = read(opened, "date")
    values = found["date"].values
    assert values.shape == (24, 1) and values.dtype == np.float32
    assert values[seen].mean() == pytest.approx(0, abs=1e-5)
    assert values[seen].std() == pytest.approx(1, abs=1e-5)
    assert np.corrcoef(values[:, 0], table["sorting_date"].astype(float))[0, 1] == pytest.approx(1)


def test_words_are_those_that_the_training_folds_have_often_enough(opened):
    table, seen, found = read(opened, "materials")
    materials = pd.read_csv(opened.data_dir / "materials.csv", dtype={"object_id": str})
    in_training = materials[materials["object_id"].isin(table["object_id"][seen])]
    counts = in_training.drop_duplicates()["name"].value_counts()
    assert found["materials"].labels == tuple(sorted(counts.index[counts >= 3]))
    for row, image in enumerate(table["object_id"]):
        names = set(materials["name"][materials["object_id"] == image])
        values = found["materials"].values[row]
        expected = [float(label in names) for label in found["materials"].labels]
        assert values.tolist() == expected if names else np.isnan(values).all()


def test_a_image_without_rows_is_unknown_not_empty(opened):
    path = opened.data_dir / "materials.csv"
    materials = pd.read_csv(path, dtype={"object_id": str})
    gone = read_folds(opened, None)["object_id"].iloc[5]
    materials[materials["object_id"] != gone].to_csv(path, index=False)
    _, _, found = read(opened, "materials")
    assert np.isnan(found["materials"].values[5]).all()


def test_what_is_too_rare_is_said(opened):
    text = (opened.folder / "project.yml").read_text()
    (opened.folder / "project.yml").write_text(text.replace("min_count: 3", "min_count: 99"))
    with pytest.raises(DataError, match="auxiliary/materials: .* lower its min_count"):
        read(ProjectFolder.open(opened.folder), "materials")
