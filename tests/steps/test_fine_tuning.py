"""What a fine-tuning may be told to do, through the real train stage."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from small_project import EXPERIMENTS, write_experiment

from foldsmith.api import Project
from foldsmith.config import Context, Experiment
from foldsmith.data.cache.image_store import ImageStore
from foldsmith.errors import ConfigError, DataError, OutputError
from foldsmith.inference.predict import predict_logits
from foldsmith.models.ridge_layer import ridge_layer
from foldsmith.models.runtime import create_runtime
from foldsmith.project import ProjectFolder
from foldsmith.steps import fold_training, pretrain
from foldsmith.steps.epoch_advice import more_epochs_may_help
from foldsmith.steps.infer import infer
from foldsmith.steps.preprocess import preprocess
from foldsmith.steps.registry import types_of
from foldsmith.steps.train import train_folds
from foldsmith.steps.train_command import train
from foldsmith.targets.scale_buffer import scale_kept, take_scale
from foldsmith.targets.tasks import create_task
from foldsmith.utils.hashing import FileHashes

FILE = "exp_config/200.yml"
PLAIN = EXPERIMENTS["200"] | {"model/pretrained": None, "globals/max_epoch": 4}
LP_FT = PLAIN | {"globals/ema_decay": 0.9, "globals/head_epochs": 2}


class KilledError(Exception):
    pass


@pytest.fixture
def small(small_project):
    project = ProjectFolder.open(small_project)
    preprocess(project)
    return project


def run_fold(project, content, root, listener=None, start="auto"):
    content = content | {"globals/output_root": root}
    write_experiment(project.folder, "200", content)
    experiment = Experiment.load(project, project.path(FILE))
    return train_folds(experiment, [0], start, listener) / "fold0"


def weights(folder, epoch=4):
    return torch.load(folder / f"snapshot_last_epoch_{epoch}.pth", weights_only=True)


def test_a_resumed_average_and_head_start_equal_uninterrupted_ones(small):
    def stop(report):
        if report.epoch == 2:
            raise KilledError

    whole = run_fold(small, LP_FT, "output/whole")
    with pytest.raises(KilledError):
        run_fold(small, LP_FT, "output/parts", stop)
    parts = run_fold(small, LP_FT, "output/parts")
    one, two = (weights(folder) for folder in (whole, parts))
    assert all(torch.equal(one[key], two[key]) for key in one)
    logs = [json.loads((folder / "log.json").read_text()) for folder in (whole, parts)]
    for key in ("train/loss", "val/loss", "val/metric", "lr"):
        assert [e[key] for e in logs[0]] == [e[key] for e in logs[1]], key


def test_validation_after_some_epochs_only_is_all_that_is_chosen_from(small):
    """Curves, choice, resume and advice cope with epochs that were not validated."""

    def stop(report):
        if report.epoch == 3:
            raise KilledError

    content = PLAIN | {"globals/snapshot_epochs": "all"}
    every = run_fold(small, content, "output/every")
    some = content | {"globals/validations": 2}
    whole = run_fold(small, some, "output/whole")
    with pytest.raises(KilledError):
        run_fold(small, some, "output/200", stop)
    parts = run_fold(small, some, "output/200")
    logs = [json.loads((f / "log.json").read_text()) for f in (every, whole, parts)]
    validated = [[e["epoch"] for e in log if "val/metric" in e] for log in logs]
    assert validated == [[1, 2, 3, 4], [2, 4], [2, 4]]
    # Validation changes nothing of the training, and an interruption nothing of either.
    for key in ("train/loss", "lr"):
        assert [e[key] for e in logs[0]] == [e[key] for e in logs[1]] == [e[key] for e in logs[2]]
    assert [logs[0][k]["val/metric"] for k in (1, 3)] == [
        e["val/metric"] for e in logs[2] if "val/metric" in e
    ]
    train(small, FILE, resume=True)
    names = {path.name for path in whole.glob("snapshot_by_metric_epoch_*.pth")}
    assert names and names <= {f"snapshot_by_metric_epoch_{k}.pth" for k in (2, 4)}
    for checkpoint in ("metric", "common"):
        scores = infer(small, small.path("output/200"), checkpoint, keep_snapshots=True)
        assert set(scores["epoch"].dropna()) <= {2, 4}
    more_epochs_may_help(small.path("output/200"), 2)
    results = Project.open(small.folder).results("exp_config/200.yml")
    assert results.log["val/metric"].notna().sum() == 4
    results.plot_learning_curves()


def test_the_head_comes_first(small):
    states = []

    class Spy:
        def __call__(self, report):
            path = small.path("output/200/fold0/resume.pth")
            if path.exists():  # that of the epoch before
                states.append(torch.load(path, weights_only=True)["models"]["main"])

    run_fold(small, LP_FT, "output/200", Spy())
    first, second, third = states
    body = [key for key in first if key.startswith("backbone.")]
    assert all(torch.equal(first[key], second[key]) for key in body)
    assert not torch.equal(first["head.0.weight"], second["head.0.weight"])
    changed = [key for key in body if not torch.equal(second[key], third[key])]
    assert any("running_mean" in key for key in changed)
    assert any("conv" in key for key in changed)


def test_the_average_is_what_is_validated_and_kept(small):
    plain = run_fold(small, PLAIN, "output/plain")
    averaged = run_fold(small, PLAIN | {"globals/ema_decay": 0.9}, "output/averaged")
    logs = [json.loads((folder / "log.json").read_text()) for folder in (plain, averaged)]
    # The training is the same, what is looked at is not.
    assert [e["train/loss"] for e in logs[0]] == [e["train/loss"] for e in logs[1]]
    assert logs[0][-1]["val/loss"] != logs[1][-1]["val/loss"]
    one, two = weights(plain), weights(averaged)
    assert one.keys() == two.keys()
    assert not torch.equal(one["head.0.weight"], two["head.0.weight"])


def test_inference_takes_the_average(small):
    content = PLAIN | {"globals/ema_decay": 0.9, "globals/max_epoch": 2}
    write_experiment(small.folder, "200", content)
    root = train(small, FILE)
    scores = infer(small, root, "last")
    for fold in range(2):
        log = json.loads((root / f"fold{fold}" / "log.json").read_text())
        np.testing.assert_allclose(scores["metric"][fold], log[-1]["val/metric"], rtol=1e-5)


def test_a_model_without_a_head_to_train_alone_is_refused(small):
    (small.folder / "own.py").write_text(
        "from torch import nn\n"
        "TYPES = {'Own': lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), "
        "nn.Linear(3, 1))}\n"
    )
    path = small.folder / "project.yml"
    path.write_text(path.read_text() + "python: [own.py]\n")
    content = {k: v for k, v in LP_FT.items() if not k.startswith("model/")}
    with pytest.raises(ConfigError, match="head_epochs: Sequential cannot train its head alone"):
        run_fold(
            ProjectFolder.open(small.folder), content | {"model": {"type": "Own"}}, "output/own"
        )


def test_layers_keep_their_rates_and_boxes_are_pasted_through_the_recipe(small):
    steps = {
        "type": "optimizer_steps",
        "loader": "@/loader/train",
        "grad_accum": "@/globals/grad_accum",
        "max_epoch": "@/globals/max_epoch",
    }
    content = EXPERIMENTS["100"] | {
        "model/pretrained": None,
        "globals/max_epoch": 2,
        "dataset/mixup": {"type": "MixupOrCutMix"},
        "loss": {"type": "CrossEntropyLoss", "label_smoothing": 0.1},
        "optimizer": {
            "type": "AdamW",
            "params": {"type": "layer_decay_groups", "model": "@/model", "lr": 0.01},
        },
        "scheduler": {
            "type": "WarmupCosine",
            "optimizer": "@/optimizer",
            "total_steps": steps,
        },
    }
    folder = run_fold(small, content, "output/layers")
    log = json.loads((folder / "log.json").read_text())
    # The logged rate is that of the head.
    assert log[0]["lr"] > log[1]["lr"] > 0.0005
    assert np.isfinite(log[-1]["val/loss"])


@pytest.mark.parametrize("continuous", [False, True])
def test_hl_gauss_from_training_to_predictions(small, continuous):
    path = small.folder / "project.yml"
    declared = {"column": "sorting_date", "range": [1400, 1950]}
    declared["thresholds"] = [1600.5, 1700.5, 1800.5]
    content = yaml.safe_load(path.read_text()) | {"continuous": declared}
    path.write_text(yaml.safe_dump(content))
    project = ProjectFolder.open(small.folder)
    root = train_whole(
        project,
        "hl_gauss",
        {"globals/n_bins": 16, "globals/continuous_target": continuous},
    )
    scores = infer(project, root, "last")
    log = json.loads((root / "fold0" / "log.json").read_text())
    assert scores["metric"][0] == pytest.approx(log[-1]["val/metric"], rel=1e-5)
    assert scores["loss"][0] == pytest.approx(log[-1]["val/loss"], rel=1e-5)
    assert np.load(root / "oof_logit_by_last.npy").shape == (24, 16 + 2 * 3)
    manifest = json.loads((root / "manifest_by_last.json").read_text())
    assert manifest["facts"]["task"] == "hl-gauss"
    if continuous:
        table = pd.read_csv(project.fold_table, dtype={"object_id": str})
        table.loc[3, "sorting_date"] = 1850 if table.loc[3, "target"] < 3 else 1550
        table.to_csv(project.fold_table, index=False)
        with pytest.raises(DataError, match=r"leads to the target .* \(1 such rows\)"):
            train(project, "exp_config/300.yml", force=True)


def test_corn_from_training_to_predictions(small):
    root = train_whole(small, "corn", {"dataset/mixup": {"type": "CutMix"}})
    infer(small, root, "last")
    assert np.load(root / "oof_logit_by_last.npy").shape == (24, 3)


def train_whole(project, recipe, values):
    content = {
        "import": f"foldsmith:{recipe}.yml",
        "globals/output_root": "output/300",
        "globals/max_epoch": 1,
        "model/base_name": "test_resnet",
        "dataset/img_size": 32,
        "loader/train/batch_size": 8,
    }
    write_experiment(project.folder, "300", content | values)
    return train(project, "exp_config/300.yml")


def test_auxiliary_heads_teach_and_leave_no_trace_in_inference(small):
    path = small.folder / "project.yml"
    materials = {"table": "materials.csv", "column": "name", "kind": "multi-label", "min_count": 2}
    declared = {"materials": materials, "date": {"column": "sorting_date", "kind": "regression"}}
    content = yaml.safe_load(path.read_text()) | {"auxiliary": declared}
    path.write_text(yaml.safe_dump(content))
    project = ProjectFolder.open(small.folder)
    weighted = {"globals/auxiliary": {"materials": 0.3, "date": 0.3}, "globals/ema_decay": 0.9}
    root = train_whole(project, "regression", weighted)
    log = json.loads((root / "fold0" / "log.json").read_text())
    assert {"train/loss_materials", "train/loss_date"} <= log[0].keys()
    state = torch.load(root / "fold0" / "snapshot_last_epoch_1.pth", weights_only=True)
    assert "auxiliary.of_materials.weight" in state
    scores = infer(project, root, "last", keep_snapshots=True)
    assert scores["metric"][0] == pytest.approx(log[-1]["val/metric"], rel=1e-5)
    # Another table is another training.
    table = project.data_dir / "materials.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(OutputError, match="auxiliary: materials"):
        (root / "fold0" / "manifest.json").rename(root / "fold0" / "unfinished.json")
        train(project, "exp_config/300.yml", folds=[0], resume=True)


def test_a_head_that_begins_as_a_ridge_regression(small):
    # Rates so low that nothing moves: the first epoch's validation is that of the start.
    still = {
        "globals/max_epoch": 1,
        "globals/freeze_backbone": True,
        "optimizer": {
            "type": "SGD",
            "params": {"type": "trainable_parameters", "model": "@/model"},
            "lr": 1e-12,
        },
        "scheduler": None,
    }
    folder = run_fold(small, PLAIN | still | {"globals/head_init": "ridge"}, "output/ridge")
    state = weights(folder, 1)
    folds = pd.read_csv(small.fold_table)
    targets = folds["target"][folds["fold"] != 0].to_numpy(np.float64)
    experiment = Experiment.load(small, small.path(FILE))
    built = experiment.with_values({"globals/val_fold": 0, "dataset/val/part": "train"})
    runtime = create_runtime(experiment.globals)
    store = ImageStore(None, FileHashes(small.hash_store))
    context = Context(images=store, runtime=runtime, task=create_task(experiment.globals, small))
    parts = built.build(types_of(small), context)
    model = parts["model"]
    take_scale(model, state)
    model.load_state_dict(state)
    scale = scale_kept(model)
    assert scale.inverse(np.zeros(1)) == pytest.approx(targets.mean())
    model = runtime.place(model)
    features = predict_logits([model.backbone], parts["loader/val"], runtime)[0]
    expected, bias = ridge_layer(features, scale.forward(targets))
    np.testing.assert_allclose(state["head.0.weight"][0], expected, rtol=1e-3, atol=1e-5)
    assert state["head.0.bias"].item() == pytest.approx(bias, rel=1e-3)


def test_a_ridge_start_needs_a_linear_head(small):
    deep = PLAIN | {"globals/head_init": "ridge", "model/dims_head": [None, 8, 1]}
    with pytest.raises(ConfigError, match="one linear layer"):
        run_fold(small, deep, "output/deep")


def change_targets(path):
    table = pd.read_csv(path)
    table["target"] = (table["target"] + 1) % 4
    table.to_csv(path, index=False)


def test_a_table_that_changes_between_two_folds_is_read_again(small):
    # A table of the user's own: that of preprocess may not be edited.
    own = shutil.copy(small.fold_table, small.folder / "folds.csv")
    content = PLAIN | {"globals/max_epoch": 1, "globals/output_root": "output/both"}
    content |= {"globals/meta_file": "folds.csv"}
    write_experiment(small.folder, "both", content)

    def edit(_):
        if not (small.folder / "output/both/fold1").exists():
            change_targets(own)

    train_folds(Experiment.load(small, "exp_config/both.yml"), None, "new", edit)
    experiment = Experiment.load(small, "exp_config/both.yml", ["globals/output_root=output/alone"])
    train_folds(experiment, [1], "new")
    one, other = (weights(small.folder / f"output/{name}/fold1", 1) for name in ("both", "alone"))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("command", [train, pretrain.pretrain])
def test_what_changes_while_a_training_is_prepared_ends_it(small, monkeypatch, command):
    building = fold_training if command is train else pretrain
    tune = building.tune

    def edit_and_tune(*arguments):
        if command is train:
            change_targets(small.fold_table)
        else:
            image = next((small.folder / "input/photos").glob("*.jpg"))
            image.write_bytes(image.read_bytes() + b"\0")
        return tune(*arguments)

    monkeypatch.setattr(building, "tune", edit_and_tune)
    file = {"train": "exp_config/200.yml", "pretrain": "exp_config/000.yml"}[command.__name__]
    overrides = ["model/pretrained=null"] if command is train else []
    with pytest.raises(
        DataError, match="(were changed meanwhile|was changed since preprocess wrote it)"
    ):
        command(small, file, overrides)
    folder = {"train": "output/200/fold0", "pretrain": "output/000"}[command.__name__]
    assert not (small.folder / folder).exists()
