"""What makes a step stale: content, never time."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from small_project import EXPERIMENTS, make_project, write_experiment
from test_imports import SLOW, modules_after

from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.run.dry_run import dry_run
from foldsmith.run.engine import run
from foldsmith.run.plan import plan_of
from foldsmith.run.state import states_of
from foldsmith.run.status import status
from foldsmith.steps.inputs.train import train_inputs
from foldsmith.steps.manifest import differences, write_manifest
from foldsmith.steps.registry import types_of
from foldsmith.utils.hashing import FileHashes

TARGET = "exp_config/900.yml"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, generated_data):
    folder = make_project(tmp_path_factory.mktemp("run") / "project", generated_data)
    run(ProjectFolder.open(folder), TARGET)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    copy = tmp_path / "project"
    shutil.copytree(finished, copy)
    return copy


def states(folder: Path, *overrides: str) -> dict[str, str]:
    project = ProjectFolder.open(folder)
    plan = plan_of(project, TARGET, overrides)
    found = states_of(plan, FileHashes(project.hash_store))
    return {label: f"{state.status}: {state.why}" for label, state in found.items()}


def not_done(folder: Path, *overrides: str) -> set[str]:
    return {k for k, v in states(folder, *overrides).items() if not v.startswith("done")}


def test_everything_is_done_after_a_run(folder):
    assert not_done(folder) == set()
    assert "9 of 9 steps done" in dry_run(ProjectFolder.open(folder), TARGET)


@pytest.mark.parametrize("command", [["status"], ["run", "-cfg", TARGET, "--dry-run"]])
def test_what_is_done_is_read_without_slow_libraries(command, folder):
    text, modules = modules_after(folder, *command)
    assert "9 of 9 steps done" in text and modules & SLOW == set()
    # A change shows as quickly.
    write_experiment(folder, "100", EXPERIMENTS["100"] | {"globals/seed": 5})
    text, modules = modules_after(folder, *command)
    assert "globals/seed" in text and modules & SLOW == set()


def test_comments_touches_and_speed_make_nothing_stale(folder):
    for path in folder.rglob("*"):
        path.touch()
    for path in [*folder.glob("exp_config/*.yml"), folder / "project.yml"]:
        path.write_text("# a comment\n" + path.read_text() + "\n# another\n")
    free = [
        "1*:loader/train/num_workers=0",
        "[012]*:globals/image_store=false",
        "*:globals/device=cpu",
        "*:globals/loggers=[]",
        "000:globals/snapshot_interval=1",
        "100:extensions/console/label=other",
        "100:extensions/lr_curve=null",
        "100:extensions/std={type: LearningCurve, y_keys: [train/loss], filename: x.png}",
    ]
    assert not_done(folder, *free) == set()


LAST = {"infer 200", "ensemble 900"}
FOLDS = {"train 200 fold 0", "train 200 fold 1"}
ALL_FOLDS = FOLDS | {"train 100 fold 0", "train 100 fold 1"}


@pytest.mark.parametrize(
    ("override", "stale"),
    [
        ("200:optimizer/lr=0.01", FOLDS | LAST),
        ("200:loader/train/window=4", FOLDS | LAST),
        ("200:loader/test/batch_size=3", LAST),
        ("200:globals/tta=hflip", LAST),
        ("000:optimizer/momentum=0.5", {"pretrain 000"} | ALL_FOLDS | {"infer 100"} | LAST),
        ("900:globals/seed=5", {"ensemble 900"}),
        (
            "100:globals/seed=5",
            {"train 100 fold 0", "train 100 fold 1", "infer 100", "ensemble 900"},
        ),
    ],
)
def test_a_change_reaches_what_depends_on_it_and_nothing_else(folder, override, stale):
    assert not_done(folder, override) == stale
    key = override.partition(":")[2].partition("=")[0]
    assert key in " ".join(states(folder, override).values())


def test_a_changed_image_reaches_everything_that_reads_it(folder):
    test_image = pd.read_csv(folder / "input/test.csv")["object_id"][0]
    path = folder / f"input/photos/{test_image}.jpg"
    path.write_bytes(path.read_bytes() + b"\0")
    assert "images changed" in states(folder)["preprocess"]
    run(ProjectFolder.open(folder), TARGET, until="preprocess")
    # Folds are trained on train images: only the new backbone can make them stale.
    found = states(folder)
    assert "images changed" in found["pretrain 000"]
    assert found["train 100 fold 0"] == "stale: follows pretrain 000"


def test_the_content_of_what_was_made_anew_decides(folder, capsys):
    # Another file, the same backbone: trainings on it stay as they are.
    shutil.rmtree(folder / "output/000")
    before = (folder / "output/100/fold0/manifest.json").read_bytes()
    assert "train 100 fold 0" in not_done(folder)
    run(ProjectFolder.open(folder), TARGET)
    assert "pretrain 000" in capsys.readouterr().out
    assert not_done(folder) == set()
    assert (folder / "output/100/fold0/manifest.json").read_bytes() == before


def test_outputs_that_are_gone_or_edited_are_made_again(folder):
    (folder / "output/900/submission_avg_all.csv").unlink()
    assert not_done(folder) == {"ensemble 900"}
    path = folder / "output/100/oof_prediction_by_best_metric.npy"
    path.write_bytes(path.read_bytes()[:-8] + b"\0" * 8)
    assert not_done(folder) == {"infer 100", "ensemble 900"}
    (folder / "output/200/best_metric_model_fold1.pth").unlink()
    assert "its snapshot by metric is gone" in states(folder)["train 200 fold 1"]
    run(ProjectFolder.open(folder), TARGET)
    assert not_done(folder) == set()


def test_ensembles_by_several_checkpoints_need_one_training(folder):
    trainings = sorted(folder.glob("output/*/fold?/manifest.json"))
    before = [path.read_bytes() for path in trainings]
    experiment = yaml.safe_load((folder / TARGET).read_text())
    for checkpoint in ("loss", "last"):
        experiment |= {
            "ensemble/checkpoint": checkpoint,
            "globals/output_path": f"output/{checkpoint}",
        }
        (folder / f"exp_config/{checkpoint}.yml").write_text(yaml.safe_dump(experiment))
        run(ProjectFolder.open(folder), f"exp_config/{checkpoint}.yml")
        # An inference by one checkpoint has taken nothing from the others.
        assert not_done(folder) == set()
    assert len(before) == 4 and [path.read_bytes() for path in trainings] == before


def test_other_folds_reach_the_trainings_but_not_the_pretraining(folder):
    path = folder / "project.yml"
    path.write_text(path.read_text().replace("seed: 1", "seed: 4"))
    assert "folds/seed 1 -> 4" in states(folder)["preprocess"]
    run(ProjectFolder.open(folder), TARGET, until="pretrain")
    found = states(folder)
    assert found["pretrain 000"] == "done: "
    assert "fold assignment changed" in found["train 100 fold 0"]


def test_only_refuses_what_it_would_need(folder):
    write_experiment(folder, "000", EXPERIMENTS["000"] | {"globals/seed": 9})
    project = ProjectFolder.open(folder)
    with pytest.raises(
        ConfigError, match="'train 100 fold 0' needs 'pretrain 000', which is stale"
    ):
        run(project, TARGET, only=["100"])
    run(project, TARGET, only=["000", "200"], until="train")
    done = {label for label in states(folder) if label not in not_done(folder)}
    assert {"pretrain 000", *FOLDS} <= done
    assert "train 100 fold 0" not in done


def test_longer_pretraining_at_a_constant_rate_goes_on(folder, capsys):
    run(
        ProjectFolder.open(folder),
        TARGET,
        ["000:globals/max_epoch=4", "000:globals/snapshot_interval=1"],
        until="pretrain",
    )
    assert "continuing after epoch 3 of 4" in capsys.readouterr().out
    assert (folder / "output/000/backbone_epoch_4.pth").is_file()


def test_status_tells_of_every_experiment(folder):
    text = status(ProjectFolder.open(folder))
    assert "train 100 folds 0-1  done" in text
    (folder / "exp_config/300.yml").write_text(
        "import: 100.yml\nglobals/output_root: output/300\nglobals/max_epoch: 7\n"
    )
    text = status(ProjectFolder.open(folder))
    assert "train 300 folds 0-1  to do" in text


def test_times_are_estimated_from_measured_epochs(folder):
    text = dry_run(ProjectFolder.open(folder), TARGET, ["100:globals/max_epoch=3000"])
    row = next(line for line in text.splitlines() if line.startswith("train 100"))
    assert "min" in row or " h " in row, row
    assert "about" in text.splitlines()[-1]


OWN = """
import torch

class {name}(torch.nn.MSELoss):
    pass

TYPES = {{"{name}": {name}}}
"""


EVERY_FOLD_ON = ALL_FOLDS | {"infer 100"} | LAST
EVERYTHING = {"preprocess", "pretrain 000"} | EVERY_FOLD_ON

# What each key of project.yml makes stale at once; what follows from other contents of files shows
# when those have been made anew.
PROJECT_KEYS = {
    "name": ("another", set()),
    "time": ("8h", set()),
    "resources": ({"train": {"cpus": 2}}, set()),
    "python": (["own.py"], set()),
    "auxiliary": ({"size": {"column": "target", "kind": "regression"}}, set()),
    "continuous": (
        {"column": "target", "range": [0, 3], "thresholds": [0.5, 1.5, 2.5]},
        set(),
    ),
    # Folds choose their epochs by it, and it judges all predictions; no image's features.
    "metric": ("MAE", EVERY_FOLD_ON),
    "target_range": ([0, 4], EVERY_FOLD_ON),
    "class_values": ([0, 1, 1.5, 3], EVERY_FOLD_ON),
    "sample_submission": ("sample.csv", {"infer 100"} | LAST),
    "group_column": (None, EVERYTHING),
    "folds": ({"method": "GroupKFold", "n_splits": 2, "seed": 4}, EVERYTHING),
}


def set_project(folder: Path, **values) -> None:
    content = yaml.safe_load((folder / "project.yml").read_text())
    (folder / "project.yml").write_text(yaml.safe_dump(content | values, sort_keys=False))


@pytest.mark.parametrize("key", PROJECT_KEYS)
def test_a_key_of_the_project_reaches_what_depends_on_it(folder, key):
    (folder / "own.py").write_text("class Unused:\n    pass\n\nTYPES = {'Unused': Unused}\n")
    table = pd.read_csv(folder / "input/test.csv")
    sample = table[["object_id"]].assign(target=0)
    sample.to_csv(folder / "input/sample.csv", index=False)
    value, stale = PROJECT_KEYS[key]
    set_project(folder, **{key: value})
    if key == "group_column":
        set_project(folder, folds={"method": "KFold", "n_splits": 2, "seed": 1})
    assert not_done(folder) == stale


# What each key of an experiment makes stale: the trainings, the inference, or nothing.
OF_200, INFER = FOLDS | LAST, LAST


@pytest.mark.parametrize(
    ("key", "value", "stale"),
    [
        *((f"globals/{key}", value, OF_200) for key, value in {
            "seed": 7, "max_epoch": 3, "grad_accum": 1, "freeze_backbone": True, "head_epochs": 1,
            "head_init": "ridge", "ema_decay": 0.9, "n_bins": 8, "label_sigma": 0.5,
            "enable_amp": False, "amp_dtype": "bf16", "deterministic": False, "augment_on": "cpu",
            "threads": 3, "validations": 1,
        }.items()),
        *((f"globals/{key}", value, set()) for key, value in {
            "device": "cpu", "channels_last": False, "compile": "off", "cudnn_benchmark": False,
            "image_store": False, "loggers": "[]", "resources": "{cpus: 2}", "val_fold": 1,
            "snapshot_interval": 2, "snapshot_epochs": "all", "resume_interval": 2,
            "stop_on_collapse": True, "meta_file": "train_gkf-2fold.csv",
        }.items()),
        ("globals/tta", "hflip", INFER),
        ("loader/train/batch_size", 5, OF_200),
        ("loader/train/num_workers", 1, set()),
        ("loader/val/batch_size", 5, OF_200),
        ("loader/test/batch_size", 5, INFER),
        ("dataset/train/transforms/flip/p", 0.3, OF_200),
        ("dataset/img_size", 48, OF_200),
        ("optimizer/weight_decay", 0.1, OF_200),
        ("loss/type", "L1Loss", OF_200),
        ("model/drop_rate", 0.1, OF_200),
        ("extensions/loss_curve/filename", "other.png", set()),
        ("extensions/best_metric/keep", 2, OF_200),
        ("dataset/train/transforms/flip", "null", OF_200),
    ],
)  # fmt: skip
def test_a_key_of_an_experiment_reaches_what_depends_on_it(finished, key, value, stale):
    if key.endswith("meta_file"):
        value = finished / "input" / value
    assert not_done(finished, f"200:{key}={value}") == stale


def test_what_a_training_refers_to_is_read_by_it(folder):
    """Sections of the test images are not read by trainings, but where others refer to them."""
    steps = EXPERIMENTS["200"] | {
        "dataset/test/transforms": [
            {"type": "LongestMaxSize", "max_size": 32},
            {"type": "PadIfNeeded", "min_height": 32, "min_width": 32},
            {"type": "Normalize", "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
        ],
        "dataset/val/transforms": "@/dataset/test/transforms",
    }
    write_experiment(folder, "200", steps)
    project = ProjectFolder.open(folder)
    first, second = (
        plan_of(project, TARGET, overrides).steps[-4].experiment
        for overrides in ([], ["200:dataset/test/transforms/2/std=[0.3, 0.3, 0.3]"])
    )
    hashes = FileHashes(project.hash_store)
    one, other = (train_inputs(e, 0, types_of(project), hashes) for e in (first, second))
    assert differences(one, other) == ["dataset/test/transforms/2/std/0 0.2 -> 0.3"] or any(
        "dataset/test/transforms/2/std" in text for text in differences(one, other)
    )


@pytest.mark.parametrize(
    ("pick", "key", "value", "stale"),
    [
        # The backbones of epochs are the same whatever judges them.
        ("last", "metric", "MAE", False),
        ("last", "target_range", [0, 4], False),
        ("best_probe", "metric", "MAE", True),
        ("best_probe", "metric", "LogLoss", False),  # the probe goes by the RMSE all the same
        ("best_probe", "time", "8h", False),
    ],
)
def test_the_metric_reaches_a_pretraining_whose_pick_depends_on_it(
    small_project, pick, key, value, stale
):
    base = EXPERIMENTS["000"] | {"import": "foldsmith:simsiam_cosine.yml"}
    write_experiment(small_project, "000", base)
    pretrained = {"model/pretrained": {"from": "000", "pick": pick}}
    for name, task in (("100", {}), ("200", {})):
        write_experiment(small_project, name, EXPERIMENTS[name] | task | pretrained)
    experiments = ["output/100"]
    content = EXPERIMENTS["900"] | {"ensemble/experiments": experiments}
    write_experiment(small_project, "900", content)
    run(ProjectFolder.open(small_project), TARGET, until="preprocess")

    def state() -> str:
        return states(small_project)["pretrain 000"]

    # As if it had been run: its files are of no matter here.
    project = ProjectFolder.open(small_project)
    hashes = FileHashes(project.hash_store)
    plan = plan_of(project, TARGET)
    step = next(step for step in plan.steps if step.kind.name == "pretrain")
    files = [step.folder / name for name in ("backbone_epoch_3.pth", "backbone_best_probe.pth")]
    step.folder.mkdir(parents=True)
    for file in files:
        file.touch()
    inputs = step.kind.inputs(step, plan, hashes)
    write_manifest(step.folder / "manifest.json", step.label, inputs, files, hashes)
    assert state() == "done: "
    set_project(small_project, **{key: value})
    assert state().startswith("stale" if stale else "done"), state()
    assert not stale or "probe: metric" in state()


def test_own_python_reaches_the_experiments_that_name_its_types(folder):
    text = (folder / "project.yml").read_text()
    (folder / "project.yml").write_text(text + "python: [own_loss.py, other.py]\n")
    for file, name in (("own_loss.py", "OwnLoss"), ("other.py", "Other")):
        (folder / file).write_text(OWN.format(name=name))
    # Two files of Python that nothing names are of no matter.
    assert not_done(folder) == set()
    write_experiment(folder, "200", EXPERIMENTS["200"] | {"loss": {"type": "OwnLoss"}})
    assert not_done(folder) == FOLDS | LAST
    run(ProjectFolder.open(folder), TARGET)
    assert not_done(folder) == set()
    (folder / "other.py").write_text(OWN.format(name="Other") + "# edited\n")
    assert not_done(folder) == set()
    (folder / "own_loss.py").write_text(OWN.format(name="OwnLoss") + "# edited\n")
    assert not_done(folder) == FOLDS | LAST
    assert "own_loss.py" in states(folder)["train 200 fold 0"]
