"""A frozen-features experiment through the real pipeline."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from small_project import BACKBONE, EXPERIMENTS, write_experiment

from foldsmith.errors import ConfigError, OutputError
from foldsmith.project import ProjectFolder
from foldsmith.run.dry_run import dry_run
from foldsmith.run.engine import run
from foldsmith.steps.infer import infer
from foldsmith.steps.preprocess import preprocess
from foldsmith.steps.train_command import train

FROZEN = {
    "import": "foldsmith:frozen_features.yml",
    "globals/output_root": "output/300",
    "model/base_name": "test_resnet",
    "dataset/img_size": 32,
}
ENSEMBLE = EXPERIMENTS["900"] | {"ensemble/experiments": ["output/300"]}
OOF = "oof_prediction_by_last"


@pytest.fixture
def small(small_project):
    write_experiment(small_project, "300", FROZEN)
    project = ProjectFolder.open(small_project)
    preprocess(project)
    return project


def test_an_ensemble_takes_it_as_a_member(small):
    folder = small.folder
    write_experiment(folder, "300", FROZEN | {"model/pretrained": BACKBONE})
    members = {"ensemble/experiments": ["output/300"], "ensemble/checkpoint": "last"}
    write_experiment(folder, "900", EXPERIMENTS["900"] | members)
    run(small, "exp_config/900.yml")
    scores = pd.read_csv(folder / "output/900/ensemble_scores.csv", index_col="name")
    oof = np.load(folder / "output/300" / f"{OOF}.npy")
    assert oof.shape == (24, 1)
    table = pd.read_csv(folder / "output/300" / f"{OOF}.csv")
    rmse = np.sqrt(((table["prediction"] - table["target"]) ** 2).mean())
    assert scores.loc["avg-all", scores.columns[0]] == pytest.approx(rmse)
    assert "4 of 4 steps done" in dry_run(small, "exp_config/900.yml")
    # Another strength of the head is another result, from the same features.
    features = (folder / "output/300/train_features.npy").stat().st_mtime_ns
    stronger = ["300:head/alphas=[1.0e+6]"]
    assert "stale" in dry_run(small, "exp_config/900.yml", stronger)
    run(small, "exp_config/900.yml", stronger)
    assert (folder / "output/300/train_features.npy").stat().st_mtime_ns == features
    assert not np.array_equal(np.load(folder / "output/300" / f"{OOF}.npy"), oof)


@pytest.mark.parametrize("checkpoint", ["metric", "loss", "last", "common"])
def test_one_set_of_results_stands_for_every_checkpoint(small, cli, checkpoint):
    folder = small.folder
    write_experiment(folder, "900", ENSEMBLE | {"ensemble/checkpoint": checkpoint})
    run(small, "exp_config/900.yml")
    assert "3 of 3 steps done" in dry_run(small, "exp_config/900.yml")
    image = str(next((folder / "input").rglob("*.jpg")))
    cli(folder, "predict", "--run", "output/300", "-cri", checkpoint, image)
    cli(folder, "predict", "--run", "output/900", image)
    cli(folder, "compare", "output/300", "output/900", "-cri", checkpoint)
    cli(folder, "report", "-cfg", "exp_config/900.yml")


def test_the_remedy_for_predictions_that_are_gone_is_one_that_makes_them(small, cli):
    folder = small.folder
    write_experiment(folder, "900", ENSEMBLE)
    root = train(small, "exp_config/300.yml")
    for manifest in root.glob("manifest_by_*"):
        manifest.unlink()
    image = str(next((folder / "input").rglob("*.jpg")))
    for command in (
        ["ensemble", "-cfg", "exp_config/900.yml"],
        ["compare", "output/300", "output/300"],
        ["predict", "--run", "output/300", image],
    ):
        said = cli(folder, *command, code=2).stderr
        assert "infer" not in said, said


def test_the_held_out_fold_teaches_nothing(small):
    # A table of the user's own: that of preprocess may not be edited.
    own = small.folder / "folds.csv"
    shutil.copy(small.fold_table, own)
    write_experiment(small.folder, "300", FROZEN | {"globals/meta_file": "folds.csv"})
    root = train(small, "exp_config/300.yml")
    before = np.load(root / f"{OOF}.npy")[:, 0]
    table = pd.read_csv(own, dtype={"object_id": str})
    held_out = table["fold"] == 0
    table.loc[held_out, "target"] = 3 - table.loc[held_out, "target"]
    table.to_csv(own, index=False)
    train(small, "exp_config/300.yml", resume=True)
    after = np.load(root / f"{OOF}.npy")[:, 0]
    np.testing.assert_array_equal(after[held_out], before[held_out])
    assert not np.allclose(after[~held_out], before[~held_out])


def test_what_it_writes_and_refuses(small):
    root = train(small, "exp_config/300.yml")
    assert np.load(root / "train_features.npy").shape == (24, 96)
    manifest = json.loads((root / "manifest_by_last.json").read_text())
    assert manifest["facts"]["task"] == "regression"
    assert "submission_by_last_fold1.csv" in manifest["outputs"]
    # No epoch is chosen: nothing is written once more for another checkpoint.
    assert {path.name.split("_by_")[1][:4] for path in root.glob("*_by_*")} == {"last"}
    assert len(pd.read_csv(root / "submission_by_last.csv")) == 8
    with pytest.raises(OutputError, match="exists already"):
        train(small, "exp_config/300.yml")
    with pytest.raises(OutputError, match="foldsmith train"):
        infer(small, "output/300")
    with pytest.raises(ConfigError, match="all folds at once"):
        train(small, "exp_config/300.yml", folds=[0], force=True)
