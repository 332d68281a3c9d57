"""A new project, from the command to a blend."""

import shutil

import pandas as pd
import pytest
import yaml

from foldsmith.config import Project
from foldsmith.config.project import TEMPLATE
from foldsmith.errors import OutputError
from foldsmith.pipeline import dry_run
from foldsmith.stages import check, new_project

EXPERIMENTS = ["300", "400", "401", "410", "420", "901"]

# Everything that makes the recommended recipe run in seconds.
TINY = [
    "300:globals/max_epoch=1",
    "300:globals/snapshot_interval=1",
    "300:loader/train/batch_size=8",
    "4*0:dataset/img_size=32",
    "4[12]0:globals/max_epoch=1",
    "401:dataset/img_size=32",
    "300:dataset/img_size=32",
]


def fill_in(folder, photos):
    """Set the lines of the project file, as a person would, for the demo's photos."""
    text = (folder / "project.yml").read_text()
    for old, new in (
        ("photos/{photo_id}.jpg", "photos/{object_id}.jpg"),
        ("id_column: photo_id", "id_column: object_id"),
        ("group_column: group", "group_column: art_series_id"),
        ("n_splits: 5", "n_splits: 2"),
        ("StratifiedGroupKFold", "GroupKFold"),
    ):
        assert old in text
        text = text.replace(old, new, 1)
    (folder / "project.yml").write_text(text)
    shutil.copytree(photos, folder / "input")


def test_a_new_project_runs_once_its_lines_are_set(tmp_path, small_photos, cli):
    cli(tmp_path, "new", "mine")
    folder = tmp_path / "mine"
    assert sorted(file.stem for file in (folder / "exp_config").iterdir()) == EXPERIMENTS
    fill_in(folder, small_photos)
    cli(folder, "run", "--no-report", "-cfg", "exp_config/901.yml", *TINY)
    weights = pd.read_csv(folder / "output/901_ensemble/weights.csv").set_index("experiment")
    members = ["400_descriptors", "401_frozen", "410_regression", "420_distribution"]
    assert weights.index.tolist() == members
    assert weights["wopt-all"].sum() == pytest.approx(1)
    assert len(pd.read_csv(folder / "output/901_ensemble/submission.csv")) == 8
    # No fold has chosen its own epoch.
    assert (folder / "output/410_regression/oof_prediction_by_last.npy").is_file()


@pytest.mark.parametrize("budget", ["small", "medium", "large"])
def test_it_passes_the_check_at_every_budget(tmp_path, small_photos, budget):
    new_project(tmp_path / "mine", budget)
    fill_in(tmp_path / "mine", small_photos)
    project = Project.open(tmp_path / "mine")
    assert (project.settings.name, project.settings.budget) == ("mine", budget)
    planned = dry_run(project, "exp_config/901.yml")
    # preprocess, pretraining, two frozen members, two fine-tunings of two folds, ensemble
    assert len([line for line in planned.splitlines() if "to do" in line]) >= 6
    backbones = {
        yaml.safe_load(check(project, f"exp_config/{name}.yml", ["model/pretrained=null"]))[
            "model"
        ]["base_name"]
        for name in ("401", "410", "420")
    }
    assert len(backbones) == 1
    pretraining = yaml.safe_load(check(project, "exp_config/300.yml"))
    assert backbones == {pretraining["model"]["backbone"]["model_name"]}


def test_nothing_is_overwritten(tmp_path):
    new_project(tmp_path / "mine", "small")
    mine = tmp_path / "mine/exp_config/410.yml"
    mine.write_text("my own")
    (tmp_path / "mine/project.yml").unlink()
    with pytest.raises(OutputError, match=r"410\.yml|300\.yml"):
        new_project(tmp_path / "mine", "small")
    assert mine.read_text() == "my own"
    assert not (tmp_path / "mine/project.yml").exists()


def test_the_bundled_project_uses_the_same_recipes(project_dir):
    """Every recipe that a new project imports is one that the competition's 3xx and 4xx import."""

    def imports(folder):
        files = [*folder.glob("3*.yml"), *folder.glob("4*.yml"), folder / "901.yml"]
        return {yaml.safe_load(file.read_text())["import"] for file in files}

    assert imports(TEMPLATE / "exp_config") <= imports(project_dir / "exp_config")
