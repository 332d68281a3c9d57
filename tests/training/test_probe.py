import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from small_project import EXPERIMENTS, write_experiment

from foldsmith.config import Context, Experiment
from foldsmith.data.cache.image_store import ImageStore
from foldsmith.data.on_device import OnDevice
from foldsmith.errors import ConfigError, DataError
from foldsmith.inference.probes import ridge_oof
from foldsmith.models.backbone import create_backbone
from foldsmith.project import ProjectFolder
from foldsmith.steps.inputs.pretrain import pretrain_inputs
from foldsmith.steps.manifest import differences, read_manifest
from foldsmith.steps.preprocess import preprocess
from foldsmith.steps.pretrain import may_be_longer, pretrain, pretrain_experiment
from foldsmith.steps.registry import types_of
from foldsmith.training.extensions.probe import Probe
from foldsmith.utils.hashing import FileHashes

BYOL = EXPERIMENTS["000"] | {
    "import": "foldsmith:byol.yml",
    "globals/output_path": "output/byol",
    "globals/snapshot_interval": 1,
}
# The method with most to remember: a teacher, a centre, schedules of its own.
DINO = {key: value for key, value in BYOL.items() if not key.startswith("model/")} | {
    "globals/output_path": "output/dino",
    "model": {
        "type": "DINO",
        "backbone": {"type": "Backbone", "model_name": "test_resnet"},
        "out_dim": 32,
        "proj_hidden_dim": 64,
        "freeze_last_layer_fraction": 0.2,
    },
}


@pytest.fixture
def project(small_project):
    write_experiment(small_project, "byol", BYOL)
    write_experiment(small_project, "dino", DINO)
    opened = ProjectFolder.open(small_project)
    preprocess(opened)
    return opened


def load(project, name, **values):
    overrides = [f"{key}={value}" for key, value in values.items()]
    return Experiment.load(project, f"exp_config/{name}.yml", overrides)


def test_a_killed_pretraining_ends_as_an_uninterrupted_one(project):
    whole = pretrain_experiment(load(project, "dino"), "new")

    def kill(report):
        if report.epoch == 2:
            raise KeyboardInterrupt

    path = {"globals/output_path": "output/killed"}
    killed = load(project, "dino", **path)
    with pytest.raises(KeyboardInterrupt):
        pretrain_experiment(killed, "new", kill)
    resumed = pretrain_experiment(load(project, "dino", **path), "resume")
    names = ["probes.csv", "backbone_best_probe.pth", *(f"backbone_epoch_{k}.pth" for k in (1, 3))]
    for file in names:
        assert (whole / file).read_bytes() == (resumed / file).read_bytes(), file
    states = [torch.load(f / "resume.pth", weights_only=True) for f in (whole, resumed)]
    models = [state["models"]["main"] for state in states]
    assert any("teacher" in key for key in models[0])
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])
    logs = [json.loads((folder / "log.json").read_text()) for folder in (whole, resumed)]
    for one, other in zip(*logs, strict=True):
        keys = [key for key in one if key.startswith(("probe/", "train/", "lr"))]
        assert [one[key] for key in keys] == [other[key] for key in keys]
    assert read_manifest(whole / "manifest.json").outputs.keys() >= set(names)


def test_the_probe_is_what_the_kept_backbone_is_worth(project, capsys):
    exact = {"globals/enable_amp": "false"}
    folder = pretrain_experiment(load(project, "byol", **exact), "new")
    probes = pd.read_csv(folder / "probes.csv")
    assert probes.columns.tolist() == ["epoch", "knn", "ridge", "rank", "std", "best"]
    assert probes["epoch"].tolist() == [1, 2, 3]
    assert probes["best"].sum() == 1 and probes["best"][probes["ridge"].idxmin()]
    best = probes.loc[probes["ridge"].idxmin(), "epoch"]
    kept = (folder / "backbone_best_probe.pth").read_bytes()
    assert kept == (folder / f"backbone_epoch_{best}.pth").read_bytes()
    log = json.loads((folder / "log.json").read_text())
    assert [entry["probe/ridge"] for entry in log] == probes["ridge"].tolist()
    assert {"probe/knn", "probe/rank", "probe/std"} <= log[0].keys()
    assert (folder / "probe.png").is_file()
    assert "probe/ridge" in capsys.readouterr().out
    # Again, from the file, by the folds of the table.
    backbone = create_backbone("test_resnet").eval()
    backbone.load_state_dict(
        torch.load(folder / "backbone_best_probe.pth", weights_only=True), strict=True
    )
    experiment = load(project, "byol")
    context = Context(images=ImageStore(None, FileHashes(project.hash_store)))
    dataset = experiment.build(types_of(project), context)["probe/loader/dataset"]
    batch = dataset.__getitems__([(0, index) for index in range(len(dataset))])
    (images,) = OnDevice(dataset).views(batch, torch.device("cpu"))
    with torch.inference_mode():
        features = backbone(images).double().numpy()
    table = pd.read_csv(project.fold_table)
    targets = table["target"].to_numpy(dtype=np.float64)
    predictions = ridge_oof(features, targets, table["fold"].to_numpy()).clip(0, 3)
    rmse = np.sqrt(((predictions - targets) ** 2).mean())
    assert rmse == pytest.approx(probes["ridge"].min(), rel=1e-3)


def test_without_folds_a_probe_says_what_is_missing(project):
    project.fold_table.unlink()
    with pytest.raises(DataError, match=r"2fold.csv: no such file; run .foldsmith preprocess"):
        pretrain(project, "exp_config/byol.yml")
    folder = pretrain(project, "exp_config/byol.yml", ["probe=null", "globals/max_epoch=1"])
    assert not list(folder.glob("*probe*"))


def test_a_probed_pretraining_depends_on_folds_and_targets(project):
    hashes, types = FileHashes(project.hash_store), types_of(project)

    def inputs(**values):
        return pretrain_inputs(load(project, "byol", **values), types, hashes)

    probed, blind = inputs(), inputs(probe="null")
    assert differences(probed, inputs(**{"globals/snapshot_interval": 2}))
    table = pd.read_csv(project.fold_table)
    table.assign(fold=1 - table["fold"]).to_csv(project.folder / "folds.csv", index=False)
    own = {"globals/meta_file": "folds.csv"}
    assert any("fold assignment" in text for text in differences(probed, inputs(**own)))
    assert not differences(blind, inputs(probe="null", **own))
    path = project.folder / "project.yml"
    settings = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(settings | {"metric": "MAE"}))
    other = ProjectFolder.open(project.folder)
    changed = pretrain_inputs(load(other, "byol"), types, hashes)
    assert any("metric" in text for text in differences(probed, changed))


@pytest.mark.parametrize(
    ("every", "max_epoch", "snapshots", "epochs"),
    [("null", 200, 10, 20), ("null", 5, 1, 1), ("null", 25, 10, 10), (4, 100, 2, 4)],
)
def test_every_probed_backbone_is_kept(project, every, max_epoch, snapshots, epochs):
    probe = Probe(
        *(None, None, project, None),
        max_epoch=max_epoch,
        snapshot_interval=snapshots,
        every=None if every == "null" else every,
    )
    assert probe.trigger.points == sorted({*range(epochs, max_epoch + 1, epochs), max_epoch})
    with pytest.raises(ConfigError, match="multiple of globals/snapshot_interval"):
        Probe(None, None, project, None, max_epoch=9, snapshot_interval=2, every=3)


def test_only_what_knows_no_end_may_be_longer(project):
    types = types_of(project)
    assert may_be_longer(load(project, "000"), types)
    assert not may_be_longer(load(project, "byol"), types)
    constant = load(project, "byol", scheduler="null", probe="null")
    assert not may_be_longer(constant, types)  # the momentum has a schedule of its own
    assert not may_be_longer(load(project, "000", scheduler="{type: StepLR}"), types)
