"""The unit of the target through real trainings: it changes numbers, never what is learned."""

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from small_project import EXPERIMENTS, PROJECT, make_project, write_experiment

import foldsmith
from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.steps.ensemble import ensemble
from foldsmith.steps.infer import infer
from foldsmith.steps.preprocess import preprocess
from foldsmith.steps.pretrain import pretrain
from foldsmith.steps.train_command import train

SHORT = {
    "globals/max_epoch": 1,
    "model/pretrained": None,
    "model/base_name": "test_resnet",
    "dataset/img_size": 32,
    "loader/train/batch_size": 8,
    "globals/deterministic": True,
}
MEMBERS = {
    "200": {
        "import": "foldsmith:regression.yml",
        "globals/ema_decay": 0.5,
        "globals/auxiliary": {"date": 0.3},
        "dataset/mixup": {"type": "Mixup"},
    },
    "420": {"import": "foldsmith:hl_gauss.yml"},
}


def project_of(folder, images, change):
    """A project whose targets, range, classes and auxiliary numbers are changed."""
    make_project(folder, images)
    path = folder / "input" / "train.csv"
    table = pd.read_csv(path)
    # Numbers, not classes.
    table["target"] = change(table["target"] + np.arange(len(table)) % 7 / 10)
    table["date"] = change(np.arange(len(table)) % 5)
    table.to_csv(path, index=False)
    low, high = change(np.array([0.0, 4.0])).tolist()
    settings = PROJECT | {
        "target_range": [low, high],
        "auxiliary": {"date": {"column": "date", "kind": "regression"}},
    }
    (folder / "project.yml").write_text(yaml.safe_dump(settings))
    return ProjectFolder.open(folder)


def run_all(project):
    preprocess(project)
    for name, content in MEMBERS.items():
        experiment = SHORT | content | {"globals/output_root": f"output/{name}"}
        write_experiment(project.folder, name, experiment)
        train(project, f"exp_config/{name}.yml")
        infer(project, f"output/{name}", "last")
    blend = {
        "import": "foldsmith:ensemble.yml",
        "globals/output_path": "output/901",
        "ensemble/experiments": [f"output/{name}" for name in MEMBERS],
        "ensemble/checkpoint": "last",
        "ensemble/calibrate": "isotonic",
    }
    write_experiment(project.folder, "901", blend)
    ensemble(project, "exp_config/901.yml")
    tables = {}
    for root in sorted((project.folder / "output").iterdir()):
        for path in sorted(root.glob("submission*.csv")):
            tables[f"{root.name}/{path.name}"] = pd.read_csv(path)["target"].to_numpy()
    for name in MEMBERS:
        oof = np.load(project.folder / f"output/{name}/oof_prediction_by_last.npy")
        tables[f"{name} oof"] = oof[:, 0]
        log = pd.read_json(project.folder / f"output/{name}/fold0/log.json")
        tables[f"{name} loss"] = log[["train/loss", "val/loss"]].to_numpy().ravel()
    return tables


def test_years_are_ages_that_are_shifted_through_every_step(tmp_path, small_images):
    """Tolerance: a hundred-thousandth of the target's range."""
    ages = project_of(tmp_path / "ages", small_images, lambda y: y)
    times = project_of(tmp_path / "times", small_images, lambda y: 1.6e9 + 512 * y)
    one, two = run_all(ages), run_all(times)
    assert one.keys() == two.keys() and len(one) > 12
    for name, values in one.items():
        if name.endswith("loss"):
            np.testing.assert_allclose(two[name], values, rtol=1e-4, err_msg=name)
        else:
            expected = 1.6e9 + 512 * values
            np.testing.assert_allclose(
                two[name], expected, rtol=0, atol=1e-5 * 4 * 512, err_msg=name
            )
    # A snapshot is enough to predict in units: so do new images and exports.
    test = pd.read_csv(times.folder / "input" / "test.csv")["object_id"]
    images = [times.folder / f"input/photos/{name}.jpg" for name in test]
    for root, kept in (("output/200", "200/submission_by_last.csv"), ("output/901", None)):
        predictor = foldsmith.load(times.folder / root)
        kept = kept or "901/submission.csv"
        found = predictor.predict(images)["prediction"].to_numpy()
        np.testing.assert_allclose(found, two[kept], rtol=0, atol=1e-3 * 512, err_msg=root)


def test_a_training_that_has_not_moved_predicts_the_mean_of_its_fold(tmp_path, small_images):
    project = project_of(tmp_path / "p", small_images, lambda y: 1950 + 10 * y)
    preprocess(project)
    still = {
        "optimizer": {
            "type": "SGD",
            "params": {"type": "trainable_parameters", "model": "@/model"},
            "lr": 1e-12,
        },
        "scheduler": None,
    }
    content = SHORT | {"import": "foldsmith:regression.yml", "globals/output_root": "output/m"}
    write_experiment(project.folder, "200", content | still)
    train(project, "exp_config/200.yml")
    infer(project, "output/m", "last")
    table = pd.read_csv(project.folder / "output/m/oof_prediction_by_last.csv")
    for fold, rows in table.groupby("fold"):
        expected = table["target"][table["fold"] != fold].mean()
        np.testing.assert_allclose(rows["prediction"], expected, rtol=1e-7)
    state = torch.load(project.folder / "output/m/last_model_fold0.pth", weights_only=True)
    assert state["target_scale"].dtype == torch.int64


def test_a_fold_of_equal_targets_predicts_them_in_every_member(tmp_path, small_images, capsys):
    project = project_of(tmp_path / "p", small_images, lambda y: y)
    # One fold alone has other targets.
    preprocess(project)
    table = pd.read_csv(project.fold_table)
    table["target"] = np.where(table["fold"] == 0, 2.5 + np.arange(len(table)) % 2, 1.0)
    table["date"] = np.arange(len(table)) % 5
    table.to_csv(project.folder / "folds.csv", index=False)
    own = {"globals/meta_file": "folds.csv"}
    for name, content in (MEMBERS | {"400": {"import": "foldsmith:image_descriptors.yml"}}).items():
        experiment = content | {"globals/output_root": f"output/{name}", "dataset/img_size": 32}
        experiment |= own
        if name != "400":
            experiment = SHORT | experiment
        write_experiment(project.folder, name, experiment)
        train(project, f"exp_config/{name}.yml")
        if name != "400":
            infer(project, f"output/{name}", "last")
        assert "fold 0: all " in capsys.readouterr().out
        oof = pd.read_csv(project.folder / f"output/{name}/oof_prediction_by_last.csv")
        assert (oof["prediction"][oof["fold"] == 0] == 1.0).all(), name


def test_an_ssl_batch_of_one_is_refused_before_anything_is_made(small_project):
    project = ProjectFolder.open(small_project)
    preprocess(project)
    with pytest.raises(ConfigError, match="batch_size is 1: a batch is a single image"):
        pretrain(project, "exp_config/000.yml", ["loader/train/batch_size=1"])
    assert not (small_project / "output" / "000").exists()


def test_a_batch_of_one_trains_where_the_backbone_leaves_pixels(small_project):
    project = ProjectFolder.open(small_project)
    preprocess(project)
    content = EXPERIMENTS["200"] | SHORT | {"loader/train/batch_size": 1}
    write_experiment(small_project, "200", content)
    with pytest.raises(ConfigError, match=r"batch_size is 1.*set loader/train/batch_size to 2"):
        train(project, "exp_config/200.yml", folds=[0])
    assert not (small_project / "output" / "200").exists()
    train(project, "exp_config/200.yml", ["dataset/img_size=64"], folds=[0])


def test_rank_and_log_are_refused_where_nothing_learns_numbers(small_project):
    project = ProjectFolder.open(small_project)
    preprocess(project)
    with pytest.raises(ConfigError, match="globals/target_scale: rank is for tasks that"):
        train(project, "exp_config/100.yml", ["globals/target_scale=rank"])
