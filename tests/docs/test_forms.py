"""Every example of the page of forms: a project, its metric, and its submission."""

import re
from io import StringIO

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from pages import DOCS, blocks

from foldsmith import Project
from foldsmith.new.new import new_project_of
from foldsmith.new.new_rows import Data
from foldsmith.project import ProjectFolder

PAGE = DOCS / "forms.md"
TITLES = re.findall(r"^## (.*)$", PAGE.read_text(), re.MULTILINE)
EXAMPLES = dict(
    zip(TITLES, zip(*[iter(block.text for block in blocks(PAGE))] * 3, strict=True), strict=True)
)
HEADS = {
    "classes": {"type": "LogisticHead", "class_values": "@/project.class_values", "C": [0.1]},
    "labels": {
        "type": "LabelsHead",
        "head": {"type": "LogisticHead", "class_values": [0, 1], "C": [0.1]},
    },
}


def tables(text):
    return pd.read_csv(StringIO(text), dtype=str, keep_default_na=False)


def enlarged(train):
    """Twelve rows that repeat those of the example."""
    rows = train.iloc[np.arange(12) % len(train)].reset_index(drop=True)
    return rows.assign(id=[str(k) for k in range(1, 13)])


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in (*range(1, 13), 91, 92):
        pixels = rng.integers(0, 120, (16, 16, 3)) + 40 * (number % 3)
        cv2.imwrite(str(folder / f"{number}.png"), pixels.astype(np.uint8))
    return folder


def test_the_table_links_every_example():
    linked = re.findall(r"\]\(#(.*?)\)", PAGE.read_text())
    assert linked == [title.lower().replace(" ", "-") for title in TITLES]


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_runs_and_its_submission_has_the_form(title, images, tmp_path, monkeypatch):
    train, settings, sample = EXAMPLES[title]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "input").mkdir()
    (tmp_path / "input/images").symlink_to(images)
    enlarged(tables(train)).to_csv("input/train.csv", index=False)
    pd.DataFrame({"id": [91, 92]}).to_csv("input/test.csv", index=False)
    (tmp_path / "input/sample.csv").write_text(sample)
    content = yaml.safe_load(settings) | {
        **{"name": "example", "id_column": "id", "image_path": "images/{id}.png"},
        **{"folds": {"method": "KFold", "n_splits": 2}, "sample_submission": "sample.csv"},
    }
    (tmp_path / "project.yml").write_text(yaml.safe_dump(content))
    (tmp_path / "exp_config").mkdir()
    numbers = content.get("target_kind") == "numbers"
    parts = content.get("target_kind") == "classes"
    labels = "target_columns" in content or "label_separator" in content
    head = HEADS["labels" if labels else "classes"]
    if parts:
        alone = {"type": "LogisticHead", "class_values": [0, 1], "C": [0.1]}
        head = {"type": "ClassTargetsHead", "sizes": "@/project.block_sizes", "head": alone}
    if "target_range" in content:
        ridge = {"type": "RidgeHead"}
        head = {"type": "NumbersHead", "head": ridge} if numbers else ridge
    tree = {
        "import": "foldsmith:image_descriptors.yml",
        **{"globals/output_root": "output/400", "dataset/img_size": 16, "head": head},
    }
    (tmp_path / "exp_config/400.yml").write_text(yaml.safe_dump(tree))
    Project.open(tmp_path).run("400", quiet=True)
    file = tmp_path / "output/400/submission_by_last.csv"
    made, wanted = tables(file.read_text()), tables(sample)
    assert list(made.columns) == list(wanted.columns)
    kept = [name for name in ("id", "row", "finding") if name in wanted]
    assert made[kept].equals(wanted[kept])
    values = made.drop(columns=kept).to_numpy().ravel()
    known = {*content.get("class_names", ()), *content.get("label_names", ())}
    known |= {text for texts in content.get("target_classes", {}).values() for text in texts}
    if title == "Findings":
        assert set(values) <= {"0", "1"}
    elif wanted.iloc[0, -1].replace(".", "").isdigit():
        low, high = content.get("target_range", (0, 1))
        assert all(low <= float(value) <= high for value in values)
    else:
        assert all(set(value.split()) <= known for value in values)
    if title == "A species with probabilities":
        assert values.reshape(2, 3).astype(float).sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("title", EXAMPLES)
def test_new_recognises_the_example(title, images, tmp_path, capsys):
    train, settings, sample = EXAMPLES[title]
    content = yaml.safe_load(settings)
    enlarged(tables(train)).to_csv(tmp_path / "train.csv", index=False)
    pd.DataFrame({"id": [91, 92]}).to_csv(tmp_path / "test.csv", index=False)
    (tmp_path / "sample.csv").write_text(sample)
    (tmp_path / "project.yml").write_text(
        yaml.safe_dump(
            content
            | {"name": "x", "id_column": "id", "image_path": "x", "folds": {"method": "KFold"}}
        )
    )
    metric = ProjectFolder.open(tmp_path).metric.title
    data = Data(
        *(images, tmp_path / "train.csv", tmp_path / "test.csv"),
        sample=tmp_path / "sample.csv",
        # Of several columns the targets must be named, if they are numbers or classes.
        target_column=",".join(content["target_columns"]) if "target_kind" in content else None,
        metric=metric,
        time="small",
    )
    new_project_of(tmp_path / "p", data, yes=True)
    made = ProjectFolder.open(tmp_path / "p")
    assert made.metric.title == metric
    assert made.form.labels == ProjectFolder.open(tmp_path).form.labels or "target_range" in content
    assert "sample   sample.csv, as named: " in capsys.readouterr().out
