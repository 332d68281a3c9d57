"""The real command line on generated images, all five stages."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from bundled import ATMACUP, ONE_CURVE, SMALL_SSL, SMALL_TRAIN
from small_project import fresh
from warm import foldsmith

from foldsmith.errors import OutputError
from foldsmith.project import ProjectFolder
from foldsmith.steps import step_run
from foldsmith.steps.ensemble import ensemble
from foldsmith.steps.infer import infer
from foldsmith.steps.preprocess import preprocess
from foldsmith.steps.pretrain import pretrain
from foldsmith.steps.train_command import train
from foldsmith.utils.hashing import hash_file

CLS = "output/100_resnet18d_cls"
REG = "output/200_resnet18d_reg"
BLEND = f"ensemble/experiments=[{CLS}, {REG}]"
BACKBONE = "model/backbone/model_name=test_resnet"
MODEL = "model/base_name=test_resnet"
N_FOLDS = 3


def split_into(folder, n_folds):
    """Have a copy of the bundled project make other folds than its five."""
    file = folder / "project.yml"
    settings = file.read_text()
    assert settings.count("n_splits: 5") == 1
    file.write_text(settings.replace("n_splits: 5", f"n_splits: {n_folds}"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, generated_data):
    """A project after the five commands; their printed output by stage."""
    folder = tmp_path_factory.mktemp("finished") / "project"
    shutil.copytree(ATMACUP, folder, ignore=shutil.ignore_patterns("input", "output"))
    split_into(folder, N_FOLDS)
    shutil.copytree(generated_data, folder / "input" / "atmaCup-11")
    pretrained = "model/pretrained=output/000_resnet18d_simsiam/backbone_epoch_2.pth"
    small_train = [*SMALL_TRAIN[:-1], MODEL, pretrained]
    commands = {
        "preprocess": ["preprocess"],
        "pretrain": ["pretrain", "-cfg", "exp_config/000.yml", *SMALL_SSL, BACKBONE],
        "cls": ["train", "-cfg", "exp_config/100.yml", *small_train],
        "infer cls": ["infer", "-e", CLS],
        "reg": ["train", "-cfg", "exp_config/200.yml", *small_train, *ONE_CURVE],
        "infer reg": ["infer", "-e", REG, "--keep-snapshots"],
        "ensemble": ["ensemble", "-cfg", "exp_config/900.yml", BLEND, "ensemble/n_trials=20"],
    }
    printed = {}
    for name, command in commands.items():
        # One as a user starts it; the others need not wait for torch to be imported again.
        result = (fresh if name == "pretrain" else foldsmith)(folder, *command)
        assert result.returncode == 0, result.stdout + result.stderr
        printed[name] = result.stdout
    return folder, printed


def test_preprocess_writes_three_tables(finished):
    folder, printed = finished
    data = folder / "input/atmaCup-11"
    info = pd.read_csv(data / "img_info.csv")
    assert info.columns.tolist() == [
        *("data_type", "object_id", "height", "width"),
        *("r_mean", "g_mean", "b_mean", "r_std", "g_std", "b_std"),
    ]
    assert info["data_type"].value_counts().to_dict() == {"train": 60, "test": 20}
    stats = pd.read_csv(data / "stats_by_data.csv", index_col=0)
    assert stats.columns.tolist() == ["Red", "Green", "Blue"]
    assert len(stats) == 12
    train_table = pd.read_csv(data / "train.csv")
    folds = pd.read_csv(data / f"train_sgkf-{N_FOLDS}fold.csv")
    pd.testing.assert_frame_equal(folds.drop(columns="fold"), train_table)
    assert "folds by StratifiedGroupKFold" in printed["preprocess"]


def test_pretrain_leaves_a_backbone_that_timm_loads(finished):
    folder, _ = finished
    output = folder / "output/000_resnet18d_simsiam"
    for epoch in (1, 2):
        state = torch.load(output / f"backbone_epoch_{epoch}.pth", weights_only=True)
        timm.create_model("test_resnet", num_classes=0).load_state_dict(state, strict=True)
    assert len(list(output.glob("*.pth"))) == 3  # two backbones, one file to resume from
    log = pd.read_json(output / "log.json")
    assert log["epoch"].tolist() == [1, 2]
    assert {"train/loss", "train/std", "lr"} <= set(log.columns)
    assert log["train/loss"].between(-1, 1).all()
    for name in ("loss.png", "std.png", "lr.png", "manifest.json", "resolved_config.yml"):
        assert (output / name).stat().st_size > 0
    for name in ("project.yml", "exp_config/000.yml", "exp_config/base/simsiam.yml"):
        assert (output / "sources" / name).is_file()


def test_train_starts_from_the_pretrained_backbone(project):
    folder = pretrain(project, "exp_config/000.yml", [*SMALL_SSL, BACKBONE, "globals/max_epoch=1"])
    state = torch.load(folder / "backbone_epoch_1.pth", weights_only=True)
    pretrained = f"model/pretrained={folder / 'backbone_epoch_1.pth'}"
    frozen = ["globals/max_epoch=1", "globals/freeze_backbone=true", MODEL, pretrained]
    root = train(project, "exp_config/200.yml", [*SMALL_TRAIN[:-1], *frozen], folds=[0])
    trained = torch.load(root / "fold0" / "snapshot_last_epoch_1.pth", weights_only=True)
    for key, value in state.items():
        assert torch.equal(trained[f"backbone.{key}"], value), key


def test_each_fold_is_logged_and_plotted(finished):
    folder, printed = finished
    for fold in range(N_FOLDS):
        output = folder / CLS / f"fold{fold}"
        log = pd.read_json(output / "log.json")
        assert {"train/loss", "val/loss", "val/metric", "lr"} <= set(log.columns)
        for name in ("loss.png", "metric.png", "lr.png"):
            assert (output / name).read_bytes().startswith(b"\x89PNG")
        assert (output / "sources/exp_config/100.yml").is_file()
    assert "\x1b" not in "".join(printed.values())
    assert "val/metric" in printed["cls"]


@pytest.mark.parametrize(("root", "n_classes"), [(CLS, 4), (REG, 1)])
def test_inference_writes_what_it_promises(finished, root, n_classes):
    folder, _ = finished
    output = folder / root
    oof = np.load(output / "oof_prediction_by_best_metric.npy")
    assert oof.shape == (60, 1)
    assert ((oof >= 0) & (oof <= 3)).all()
    folds = [pd.read_csv(output / f"submission_by_best_metric_fold{k}.csv") for k in range(N_FOLDS)]
    average = pd.read_csv(output / "submission_by_best_metric.csv")
    assert average.columns.tolist() == ["target"]
    np.testing.assert_allclose(
        average["target"], np.mean([fold["target"] for fold in folds], axis=0), rtol=1e-9
    )
    if n_classes > 1:
        logits = np.load(output / "test_logit_by_best_metric.npy")
        assert logits.shape == (N_FOLDS, 20, 4)
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(
            average["target"], (probabilities @ np.arange(4)).mean(axis=0), rtol=1e-5
        )
        assert np.load(output / "oof_logit_by_best_metric.npy").shape == (60, 4)
    else:
        assert not list(output.glob("*logit*"))


@pytest.mark.parametrize("root", [CLS, REG])
def test_the_score_is_that_of_the_oof_array(finished, root):
    folder, _ = finished
    table = pd.read_csv(folder / f"input/atmaCup-11/train_sgkf-{N_FOLDS}fold.csv")
    oof = np.load(folder / root / "oof_prediction_by_best_metric.npy")[:, 0]
    scores = pd.read_csv(folder / root / "score_by_best_metric.csv")
    assert scores["fold"].tolist() == ["0", "1", "2", "oof"]
    error = (oof - table["target"]) ** 2
    by_fold = error.groupby(table["fold"]).mean() ** 0.5
    np.testing.assert_allclose(scores["metric"], [*by_fold, error.mean() ** 0.5], rtol=1e-5)
    for fold in range(N_FOLDS):
        log = pd.read_json(folder / root / f"fold{fold}" / "log.json")
        # What inference finds is what validation found, at the epoch with the lowest metric.
        assert scores["metric"][fold] == pytest.approx(log["val/metric"].min(), rel=1e-5)
        assert scores["epoch"][fold] == log["epoch"][log["val/metric"].idxmin()]
        assert scores["last_metric"][fold] == pytest.approx(log["val/metric"].iloc[-1], rel=1e-5)


def test_snapshots_are_deleted_or_kept(finished):
    folder, printed = finished
    assert not list((folder / CLS).glob("fold*/snapshot_*"))
    assert "deleted" in printed["infer cls"]
    assert len(list((folder / REG).glob("fold*/snapshot_*"))) == 3 * N_FOLDS
    assert "deleted" not in printed["infer reg"]
    for root in (CLS, REG):
        assert len(list((folder / root).glob("best_metric_model_fold*.pth"))) == N_FOLDS


def test_a_failing_inference_deletes_nothing(finished, tmp_path, monkeypatch):
    folder = tmp_path / "project"
    shutil.copytree(finished[0], folder)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(step_run, "write_manifest", full)
    with pytest.raises(OSError, match="No space"):
        infer(ProjectFolder.open(folder), REG)
    assert len(list((folder / REG).glob("fold*/snapshot_*"))) == 3 * N_FOLDS
    monkeypatch.undo()
    infer(ProjectFolder.open(folder), REG)
    assert not list((folder / REG).glob("fold*/snapshot_*"))


def test_a_second_inference_works_from_the_copies(finished):
    folder, _ = finished
    before = {p.name: p.read_bytes() for p in (folder / CLS).glob("[!m]*_by_best_metric*")}
    infer(ProjectFolder.open(folder), CLS)
    after = {p.name: p.read_bytes() for p in (folder / CLS).glob("[!m]*_by_best_metric*")}
    assert len(before) > 8
    assert before == after


def test_last_is_another_snapshot_under_another_name(finished):
    folder, _ = finished
    scores = infer(ProjectFolder.open(folder), REG, checkpoint="last", keep_snapshots=True)
    assert scores["epoch"].tolist()[:N_FOLDS] == [2] * N_FOLDS
    assert (folder / REG / "submission_by_last.csv").is_file()


def rmse_of(predicted, target):
    return ((predicted - target) ** 2).mean() ** 0.5


def test_ensemble_blends_and_scores(finished):
    folder, printed = finished
    output = folder / "output/900_ensemble"
    cls, reg = (
        pd.read_csv(folder / r / "submission_by_best_metric.csv")["target"] for r in (CLS, REG)
    )
    target = pd.read_csv(folder / "input/atmaCup-11/train.csv")["target"]
    oof = [np.load(folder / r / "oof_prediction_by_best_metric.npy")[:, 0] for r in (CLS, REG)]
    # A member that is worse than the constant gets no say beside one that is not.
    useful = [rmse_of(member, target) <= target.std(ddof=0) for member in oof]
    heard = useful if any(useful) else [True, True]
    mean = np.mean([test for test, use in zip((cls, reg), heard, strict=True) if use], axis=0)
    expected = {"cls": cls, "reg": reg, "all": mean}
    for name, values in expected.items():
        table = pd.read_csv(output / f"submission_avg_{name}.csv")
        assert table.columns.tolist() == ["target"]
        np.testing.assert_allclose(table["target"], values, rtol=1e-9)
    weights = pd.read_csv(output / "weights.csv")
    assert weights["experiment"].tolist() == ["100_resnet18d_cls", "200_resnet18d_reg"]
    optimised = pd.read_csv(output / "submission_weight_optimization_all.csv")["target"]
    blended = np.clip(weights["wopt-all"][0] * cls + weights["wopt-all"][1] * reg, 0, 3)
    np.testing.assert_allclose(optimised, blended, rtol=1e-9)
    scores = pd.read_csv(output / "ensemble_scores.csv")
    assert scores["name"].tolist()[:4] == ["avg-cls", "avg-reg", "avg-all", "wopt-all"]
    assert "constant" in printed["ensemble"] and "in sample" in printed["ensemble"]
    rmse = rmse_of(
        np.mean([member for member, use in zip(oof, heard, strict=True) if use], axis=0), target
    )
    assert scores.set_index("name")["rmse"]["avg-all"] == pytest.approx(rmse)


def test_a_resumed_pretraining_equals_an_uninterrupted_one(project):
    common = [*SMALL_SSL, BACKBONE, "globals/max_epoch=3", "optimizer/lr=0.05"]
    whole = pretrain(project, "exp_config/000.yml", [*common, "globals/output_path=output/whole"])
    path = ["globals/output_path=output/parts"]
    stopped = pretrain(
        project, "exp_config/000.yml", [*common, *path, "globals/max_epoch=2"], force=True
    )
    assert (stopped / "resume.pth").is_file()
    resumed = pretrain(project, "exp_config/000.yml", [*common, *path], resume=True)
    first = torch.load(whole / "backbone_epoch_3.pth", weights_only=True)
    second = torch.load(resumed / "backbone_epoch_3.pth", weights_only=True)
    assert all(torch.equal(first[key], second[key]) for key in first)
    logs = [json.loads((folder / "log.json").read_text()) for folder in (whole, resumed)]
    assert [entry["train/loss"] for entry in logs[0]] == [e["train/loss"] for e in logs[1]]
    with pytest.raises(OutputError, match=r"other inputs: .*optimizer/lr 0.05 -> 0.1"):
        changed = [*common, *path, "optimizer/lr=0.1", "globals/max_epoch=4"]
        pretrain(project, "exp_config/000.yml", changed, resume=True)


def test_oof_does_not_depend_on_the_workers(project_dir):
    split_into(project_dir, 2)
    project = ProjectFolder.open(project_dir)
    preprocess(project)
    arrays = []
    for workers in (0, 2):
        root = train(
            project,
            "exp_config/100.yml",
            [
                *SMALL_TRAIN,
                *ONE_CURVE,
                MODEL,
                "globals/max_epoch=1",
                f"globals/output_root=output/w{workers}",
                f"loader/train/num_workers={workers}",
                f"loader/val/num_workers={workers}",
                "dataset/mixup/start_epoch=0",
                "dataset/mixup/end_epoch=null",
            ],
        )
        infer(project, root)
        arrays.append(np.load(root / "oof_prediction_by_best_metric.npy"))
    np.testing.assert_array_equal(arrays[0], arrays[1])


def test_another_seed_gives_another_oof(project):
    metrics = []
    for seed in (1, 2):
        root = train(
            project,
            "exp_config/200.yml",
            [
                *SMALL_TRAIN,
                *ONE_CURVE,
                MODEL,
                "globals/max_epoch=1",
                f"globals/seed={seed}",
                f"globals/output_root=output/s{seed}",
            ],
            folds=[0],
        )
        metrics.append(pd.read_json(root / "fold0" / "log.json")["val/metric"][0])
    assert metrics[0] != metrics[1]


def test_ensembles_refuse_other_folds(finished, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(finished[0], folder)
    path = folder / REG / "oof_prediction_by_best_metric.csv"
    manifest = folder / REG / "manifest_by_best_metric.json"
    texts = {file: file.read_text() for file in (path, manifest)}
    table = pd.read_csv(path)
    table.assign(fold=(table["fold"] + 1) % N_FOLDS).to_csv(path, index=False)
    # As if it had been written so.
    content = json.loads(manifest.read_text())
    content.pop("sha256")  # of the content as it was
    content["outputs"][path.name] = hash_file(path)
    manifest.write_text(json.dumps(content))
    project = ProjectFolder.open(folder)
    with pytest.raises(OutputError, match="100_resnet18d_cls and 200_resnet18d_reg differ in"):
        ensemble(project, "exp_config/900.yml", [BLEND], force=True)
    # The same with real folds: another seed of the split, then the old experiments.
    for file, text in texts.items():
        file.write_text(text)
    settings = (folder / "project.yml").read_text()
    (folder / "project.yml").write_text(settings.replace("seed: 1086", "seed: 7"))
    project = ProjectFolder.open(folder)
    preprocess(project)
    with pytest.raises(OutputError, match="another fold table"):
        ensemble(project, "exp_config/900.yml", [BLEND], force=True)
    with pytest.raises(OutputError, match="trained with other folds"):
        infer(project, CLS)
