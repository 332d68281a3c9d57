"""A pretrained backbone in timm's own hands."""

import json

import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import load_file
from small_project import EXPERIMENTS, make_project, write_experiment

from foldsmith.errors import ConfigError, OutputError
from foldsmith.predictor.export import export
from foldsmith.project import ProjectFolder
from foldsmith.steps.preprocess import preprocess
from foldsmith.steps.pretrain import pretrain

VIT = {
    "globals/output_path": "output/010",
    "model/backbone": {
        "type": "Backbone",
        "model_name": "vit_tiny_patch16_224",
        "img_size": "@/dataset/img_size",
        "drop_path_rate": 0.1,
        "options": {"dynamic_img_size": True},
    },
}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, small_images):
    folder = make_project(tmp_path_factory.mktemp("pretrained") / "project", small_images)
    quick = EXPERIMENTS["000"] | {"globals/max_epoch": 2, "globals/snapshot_interval": 1}
    write_experiment(folder, "000", quick)
    vit = quick | VIT | {"globals/max_epoch": 1}
    del vit["model/backbone/model_name"]
    write_experiment(folder, "010", vit)
    project = ProjectFolder.open(folder)
    preprocess(project)
    for name in ("000", "010"):
        pretrain(project, f"exp_config/{name}.yml")
    return folder


def test_timm_loads_it(pretrained, tmp_path, cli):
    out = tmp_path / "backbone"
    printed = cli(pretrained, "export", "--run", "output/000", str(out)).stdout
    assert "model.safetensors (test_resnet, backbone_epoch_2.pth)" in printed
    weights = torch.load(pretrained / "output/000/backbone_epoch_2.pth", weights_only=True)
    file = str(out / "model.safetensors")
    model = timm.create_model("test_resnet", num_classes=0, checkpoint_path=file)
    for key, value in model.state_dict().items():
        assert torch.equal(value, weights[key]), key
    # The folder says all: with another head too, and how images are normalised.
    named = timm.create_model(f"local-dir:{out}", pretrained=True, num_classes=4)
    assert torch.equal(named.state_dict()["conv1.0.weight"], weights["conv1.0.weight"])
    assert named.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 4)
    data = timm.data.resolve_model_data_config(named)
    stats = pd.read_csv(pretrained / "input/stats_by_data.csv", index_col=0)
    assert data["mean"] == pytest.approx(stats.loc["mean_norm"])
    assert data["std"] == pytest.approx(stats.loc["std_norm"])
    assert list(data["input_size"]) == [3, 32, 32]


def test_another_epoch_and_what_is_there(pretrained, tmp_path):
    path = export(pretrained / "output/000", tmp_path, pick="1") / "model.safetensors"
    weights = torch.load(pretrained / "output/000/backbone_epoch_1.pth", weights_only=True)
    exported = load_file(path)
    assert exported.keys() == weights.keys()
    assert all(torch.equal(exported[key], weights[key]) for key in weights)
    with pytest.raises(OutputError, match="holds an export already; add -f"):
        export("output/000", tmp_path, project=pretrained)
    export("output/000", tmp_path, project=pretrained, force=True)
    last = torch.load(pretrained / "output/000/backbone_epoch_2.pth", weights_only=True)
    assert torch.equal(load_file(path)["conv1.0.weight"], last["conv1.0.weight"])


def test_a_transformer_keeps_its_arguments(pretrained, tmp_path):
    export(pretrained / "output/010", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_args"] == {"dynamic_img_size": True, "img_size": 32}
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=0)
    weights = torch.load(pretrained / "output/010/backbone_epoch_1.pth", weights_only=True)
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("pick", "message"),
    [
        ("7", "writes no backbone_epoch_7.pth .*the nearest is backbone_epoch_2.pth"),
        ("best_probe", "000 has no probe"),
        ("best", "must be best_probe, last or an epoch"),
    ],
)
def test_a_backbone_that_is_not_there(pretrained, tmp_path, pick, message):
    with pytest.raises(ConfigError, match=message):
        export(pretrained / "output/000", tmp_path / "new", pick=pick)
    assert not (tmp_path / "new").exists()


def test_files_that_are_gone_or_changed(pretrained, tmp_path):
    for path in (
        pretrained / "output/000/backbone_epoch_1.pth",
        pretrained / "input/stats_by_data.csv",
    ):
        kept = path.read_bytes()
        path.write_bytes(kept + b"\n")
        with pytest.raises(OutputError, match=f"{path.name}: differs from the run's file"):
            export(pretrained / "output/000", tmp_path / "new", pick=1)
        path.unlink()
        with pytest.raises(OutputError, match=f"{path.name}: no such file; put it back"):
            export(pretrained / "output/000", tmp_path / "new", pick=1)
        path.write_bytes(kept)
    with pytest.raises(OutputError, match="is it the output folder of a run?"):
        export(pretrained / "input", tmp_path / "new")
    assert not (tmp_path / "new").exists()
