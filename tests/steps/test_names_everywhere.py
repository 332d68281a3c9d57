"""Names that look like numbers, gaps or columns, from the tables through every command."""

import html
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from warm import foldsmith

import foldsmith as package
from foldsmith.extras.serve.limits import Limits
from foldsmith.extras.serve.service import create_app
from foldsmith.utils.yaml_io import dump_yaml

# The id column is called name, and so is a class.
CLASSES = ["1e5", "NA", "name", "0.10"]
COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30)]
IDS = ["007", "7", "1e5", "NA", "nan", "1.10", "1.1", "TRUE", "None", "00", "0", "-1"]
FOLDERS = ["000", "0", "1.0", "1"]
GROUPS = ["1.1", "1.10", "01", "1", "1e1", "10"]
RUN = "output/901"
SMALL = {"dataset/img_size": 16, "loader/train/num_workers": 0}
LOGISTIC = {"type": "LogisticHead", "class_values": "@/project.class_values"}
TREES = {"type": "TreesHead", "class_values": "@/project.class_values", "n_trees": 20}


def members(head):
    return {"import": "foldsmith:image_descriptors_classes.yml", "dataset/img_size": 16} | head


@pytest.fixture(scope="module")
def tables():
    """Labelled images, and images to predict: every combination of id and folder is an image."""
    rows = [
        {
            "name": f"{folder}_{name}",
            "folder": folder,
            "site": GROUPS[k % 6],
            "kind": CLASSES[k // 6 % 4],
        }
        for k, (name, folder) in enumerate((name, folder) for name in IDS for folder in FOLDERS)
    ]
    table = pd.DataFrame(rows)
    # Ids that look like other things entirely.
    table["name"] = [*IDS, *table["name"][len(IDS) :]]
    return table.iloc[:40].reset_index(drop=True), table.iloc[40:].reset_index(drop=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tables):
    folder, rng = tmp_path_factory.mktemp("names"), np.random.default_rng(0)
    for table in tables:
        for _, row in table.iterrows():
            image = np.full((16, 16, 3), COLOURS[CLASSES.index(row["kind"])], np.int16)
            image += rng.integers(-25, 25, image.shape, np.int16)
            path = folder / "input" / row["folder"] / f"{row['name']}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), image.clip(0, 255).astype(np.uint8))
    train, test = tables
    train.to_csv(folder / "input/train.csv", index=False)
    test.drop(columns="kind").to_csv(folder / "input/test.csv", index=False)
    project = {
        "name": "names",
        "image_path": "{folder}/{name}.png",
        "id_column": "name",
        "target_column": "kind",
        "group_column": "site",
        "class_names": CLASSES,
        "folds": {"method": "GroupKFold", "n_splits": 2},
    }
    experiments = {
        "001": members({"globals/output_root": "output/001", "head": LOGISTIC}),
        "1e1": members({"globals/output_root": "output/target", "head": TREES}),
        "901": {
            "import": "foldsmith:ensemble.yml",
            "globals/output_path": RUN,
            "ensemble/experiments": ["output/001", "output/target"],
            "ensemble/method": "box",
        },
    }
    (folder / "project.yml").write_text(dump_yaml(project))
    (folder / "exp_config").mkdir()
    for name, content in experiments.items():
        (folder / f"exp_config/{name}.yml").write_text(dump_yaml(content))
    result = foldsmith(folder, "run", "--no-report", "-cfg", "exp_config/901.yml")
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def test_tables_keep_every_name(finished, tables, cli):
    train, test = tables
    cli(finished, "check", "-cfg", "exp_config/901.yml")
    folds = read(finished / "input/train_gkf-2fold.csv")
    pd.testing.assert_frame_equal(folds[train.columns], train.astype(folds["name"].dtype))
    assert (folds.groupby("site")["fold"].nunique() == 1).all() and folds["site"].nunique() == 6
    info = read(finished / "input/img_info.csv")
    assert info["name"].tolist() == [*train["name"], *test["name"]]


def test_one_form_of_a_class_in_every_table(finished, tables):
    train, test = tables
    for file in (RUN + "/cross_fitted_predictions.csv", "output/001/oof_prediction_by_last.csv"):
        table = read(finished / file)
        assert table["name"].tolist() == train["name"].tolist()
        assert table["kind"].tolist() == train["kind"].tolist()
        for column in table.columns.drop(["name", "fold", "kind"]):
            assert set(table[column]) <= set(CLASSES), column
            # Trees on 20 rows (stack) learn nothing.
            assert column == "stack" or (table[column] == table["kind"]).mean() > 0.8, column
    for file in sorted(finished.glob("output/*/submission*.csv")):
        table = read(file)
        assert table["name"].tolist() == test["name"].tolist()
        assert set(table["kind"]) <= set(CLASSES)
    probabilities = read(finished / RUN / "probabilities.csv")
    assert probabilities.columns.tolist() == ["name", *(f"probability_{c}" for c in CLASSES)]
    assert probabilities["name"].tolist() == test["name"].tolist()
    best = probabilities.drop(columns="name").astype(float).to_numpy().argmax(axis=1)
    submitted = read(finished / RUN / "submission.csv")["kind"]
    assert submitted.tolist() == [CLASSES[k] for k in best]


def test_python_has_the_same_names(finished, tables):
    train, test = tables
    results = package.Project.open(finished).results("exp_config/901.yml")
    oof = results.oof
    assert oof["id"].tolist() == train["name"].tolist()
    assert oof["target"].tolist() == train["kind"].tolist()
    # A member's folder is called target, and does not take the target's place.
    assert oof.columns.tolist()[3:] == ["prediction", "001", "member target"]
    predictions = results.predictions
    assert predictions["id"].tolist() == test["name"].tolist()
    submitted = read(finished / RUN / "submission.csv")["kind"]
    assert predictions["prediction"].tolist() == submitted.tolist()
    kept = read(finished / RUN / "cross_fitted_predictions.csv")
    assert oof["prediction"].tolist() in [kept[name].tolist() for name in kept.columns]


def test_the_report_and_a_comparison_read_them(finished, cli):
    cli(finished, "report", "-cfg", "exp_config/901.yml")
    page = html.unescape((finished / "reports/901.html").read_text())
    assert "4 classes: 1e5 12, NA 12, name 10, 0.10 6" in page and "6 groups by site" in page
    said = cli(finished, "compare", RUN, "output/001").stdout
    assert "gain of B over A" in said


def test_new_images_get_names_from_a_run_an_export_and_a_server(finished, tables, tmp_path, cli):
    test = tables[1]
    images = [
        finished / "input" / row["folder"] / f"{row['name']}.png" for _, row in test.iterrows()
    ]
    wanted = read(finished / RUN / "submission.csv")["kind"].tolist()
    cli(finished, "predict", "--run", RUN, *map(str, images), "-o", str(tmp_path / "new.csv"))
    table = read(tmp_path / "new.csv")
    assert table["prediction"].tolist() == wanted
    assert table.columns.tolist()[3:] == [f"probability_{name}" for name in CLASSES]
    cli(finished, "export", "--run", RUN, str(tmp_path / "export"))
    predictor = package.load(tmp_path / "export")
    assert predictor.predict(images)["prediction"].tolist() == wanted
    with TestClient(create_app(predictor, "901", Limits())) as client:
        files = [("file", (image.name, image.read_bytes(), "image/png")) for image in images]
        answer = client.post("/predict", files=files)
    assert answer.status_code == 200, answer.text
    said = [row["prediction"] for row in answer.json()["predictions"]]
    assert said == wanted
