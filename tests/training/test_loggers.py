"""Trainings that are watched in TensorBoard, MLflow and Weights & Biases."""

import json
import shutil
import signal
import sys
from collections import Counter

import pytest
import torch
from die_at_write import die_at_write
from small_project import EXPERIMENTS, make_project, write_experiment
from warm import Command

import foldsmith
from foldsmith.config import Experiment
from foldsmith.config.check import check_experiment
from foldsmith.config.loggers import loggers_at_hand
from foldsmith.errors import ConfigError
from foldsmith.steps.preprocess import preprocess
from foldsmith.steps.registry import types_of
from foldsmith.training.extensions.epoch_logger import EpochLogger, LoggedRun
from foldsmith.training.extensions.log import log_report
from foldsmith.training.manager import create_manager
from foldsmith.utils.owned_files import OwnedFiles

TRAIN = ["train", "-cfg", "exp_config/200.yml", "-v", "0"]
FOLD = "output/200/fold0"


@pytest.fixture(scope="module")
def preprocessed(tmp_path_factory, small_images):
    folder = make_project(tmp_path_factory.mktemp("loggers") / "project", small_images)
    values = {"model/pretrained": None, "globals/max_epoch": 3}
    write_experiment(folder, "200", EXPERIMENTS["200"] | values)
    preprocess(foldsmith.Project.open(folder))
    return folder


@pytest.fixture
def folder(preprocessed, tmp_path):
    return shutil.copytree(preprocessed, tmp_path / "project")


def logged(folder):
    return json.loads((folder / FOLD / "log.json").read_text())


def curves(folder):
    """Return tag -> values that TensorBoard shows, by step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / FOLD / "tensorboard"))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def written(folder):
    """Return how often each step of the loss was written."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return Counter(
        event.step
        for path in sorted((folder / FOLD / "tensorboard").iterdir())
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.tag == "train/loss"
    )


def test_tensorboard_is_on_by_default(folder, cli):
    result = cli(folder, *TRAIN)
    assert result.stderr == ""
    log, shown = logged(folder), curves(folder)
    assert len(log) == 3
    for key in ("train/loss", "val/metric", "lr", "epoch"):
        expected = [(entry["iteration"], pytest.approx(entry[key])) for entry in log]
        assert shown[key] == expected, key
    # Neither what they show nor that they are there matters to what was made.
    project = foldsmith.Project.open(folder)
    steps = project.status("200").set_index("step")["status"]
    assert steps["train 200 fold 0"] == "done"
    shutil.rmtree(folder / FOLD / "tensorboard")
    assert project.status("200").set_index("step")["status"].tolist() == steps.tolist()
    manifest = json.loads((folder / FOLD / "manifest.json").read_text())
    assert not any("tensorboard" in name for name in manifest["outputs"])


def test_none_is_none_and_a_new_training_begins_new_curves(folder, cli):
    cli(folder, *TRAIN)
    cli(folder, *TRAIN, "-f", "globals/max_epoch=1")
    assert len(curves(folder)["train/loss"]) == 1
    cli(folder, *TRAIN, "-f", "globals/loggers=[]")
    assert not (folder / FOLD / "tensorboard").exists()


def test_a_killed_training_goes_on_in_the_same_curves(folder, cli, monkeypatch):
    pytest.importorskip("mlflow")
    pytest.importorskip("wandb")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    train = [*TRAIN, "globals/loggers=[tensorboard,mlflow,wandb]"]
    # Killed when the third epoch was logged, and its state not yet kept.
    killed = Command(folder, *train, before=(die_at_write, "snapshot_last_epoch_3.pth", "before"))
    assert killed.finish().returncode == -signal.SIGKILL
    assert len(curves(folder)["train/loss"]) == 3
    names = json.loads((folder / FOLD / "logged_runs.json").read_text())

    result = cli(folder, *train, "--resume")
    assert "continuing after epoch 2 of 3" in result.stdout
    assert "warning" not in result.stderr
    assert json.loads((folder / FOLD / "logged_runs.json").read_text()) == names
    log = logged(folder)
    last = log[-1]["iteration"]
    assert written(folder)[last] == 2
    losses = [(entry["iteration"], pytest.approx(entry["train/loss"])) for entry in log]
    assert curves(folder)["train/loss"] == losses

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("small")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == names["mlflow"] and run.info.run_name == "200 fold0"
    assert run.info.status == "FINISHED"
    params = run.data.params
    assert (params["globals/max_epoch"], params["globals/val_fold"]) == ("3", "0")
    history = client.get_metric_history(run.info.run_id, "val/metric")
    values = [(point.step, point.value) for point in sorted(history, key=lambda p: p.step)]
    assert values == [(e["epoch"], pytest.approx(e["val/metric"])) for e in log]

    # Two parts of one run for `wandb sync`, of which the last holds it whole.
    parts = sorted((folder / "wandb").glob("offline-run-*"))
    assert len(parts) == 2 and all(part.name.endswith(names["wandb"]) for part in parts)
    (file,) = parts[-1].glob("*.wandb")
    sent = file.read_bytes()
    assert b"200 fold0" in sent and sent.count(b"train/loss") >= 3


def test_a_logger_that_fails_is_told_of_once_and_kills_nothing(folder, cli, monkeypatch):
    pytest.importorskip("mlflow")
    # A file where the events should be, and a server that does not answer.
    (folder / FOLD).mkdir(parents=True)
    for owned in (folder / FOLD, (folder / FOLD).parent):
        OwnedFiles(owned).record(["resolved_config.yml"], "train")
    (folder / FOLD / "tensorboard").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    result = cli(folder, *TRAIN, "-f", "globals/loggers=[tensorboard,mlflow]")
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert [line.split()[1] for line in warnings] == ["tensorboard:", "mlflow:"]
    assert all("200 fold0 is logged no further" in line for line in warnings)
    assert len(logged(folder)) == 3 and (folder / FOLD / "manifest.json").is_file()


class Failing:
    """A logger whose network goes down at an epoch."""

    def __init__(self, run, log, at):
        self.last_epoch = 0
        self.at = at
        self.seen = []

    def log(self, epoch, values):
        if epoch == self.at:
            raise ConnectionError("the network\nis down")
        self.seen.append((epoch, values["epoch"]))

    def close(self):
        self.seen.append("closed")


def watched(tmp_path, logger, epochs):
    """Run a manager with nothing to train."""
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    manager = create_manager(model, optimizer, epochs, 2, str(tmp_path))
    run = LoggedRun("100 fold0", "mine", tmp_path, tmp_path, {})
    manager.extend(log_report())
    extension = EpochLogger("wandb", lambda run, log: logger, run)
    manager.extend(extension)
    extension.open(manager)
    while not manager.stop_trigger:
        with manager.run_iteration():
            pass


def test_one_warning_in_the_middle(tmp_path, capsys):
    logger = Failing(None, [], at=2)
    watched(tmp_path, logger, 4)
    assert logger.seen == [(1, 1)]
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "warning: wandb: 100 fold0 is logged no further (the network is down); the training goes on"
    )


def test_what_a_logger_lacks_is_sent_first_and_what_it_has_is_not(tmp_path):
    logger = Failing(None, [], at=None)
    logger.last_epoch = 2
    watched(tmp_path, logger, 4)
    assert logger.seen == [(3, 3), (4, 4), "closed"]


def check(folder, *overrides):
    project = foldsmith.Project.open(folder)
    experiment = Experiment.load(project, folder / "exp_config/200.yml", overrides)
    check_experiment(experiment, types_of(project))


def test_a_package_that_is_missing_is_named_before_anything_starts(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    line = r"^\S*200.yml: globals/loggers: wandb is not installed; .*pip install 'wandb>=[\d.]+'$"
    with pytest.raises(ConfigError, match=line):
        check(folder, "globals/loggers=[tensorboard,wandb]")
    with pytest.raises(ConfigError, match=line):
        foldsmith.Project.open(folder).status("200", {"globals/loggers": ["wandb"]})
    check(folder, "globals/loggers=[tensorboard]")


def test_without_tensorboard_nothing_is_said(folder, monkeypatch):
    assert loggers_at_hand(None) == ["tensorboard"]
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert loggers_at_hand(None) == []
    check(folder)
    with pytest.raises(ConfigError, match="tensorboard is not installed"):
        check(folder, "globals/loggers=[tensorboard]")


def test_a_folder_of_that_name_is_no_package(tmp_path, monkeypatch):
    # As wandb leaves one in the folder it runs in.
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path_importer_cache", {})
    from foldsmith.config.loggers import logger_problems

    assert list(logger_problems(["wandb"]))


@pytest.mark.parametrize("value", ["[tensorbord]", "wandb", "{mlflow: true}"])
def test_other_values_are_refused(folder, value):
    with pytest.raises(ConfigError, match=r"globals: loggers"):
        check(folder, f"globals/loggers={value}")


def test_a_training_without_a_log_is_not_ended_by_its_loggers(tmp_path, capsys):
    model = torch.nn.Linear(1, 1)
    manager = create_manager(model, torch.optim.SGD(model.parameters()), 1, 1, str(tmp_path))
    run = LoggedRun("100 fold0", "tiny", tmp_path, tmp_path, {})
    EpochLogger("tensorboard", lambda *_: None, run).open(manager)
    assert "tensorboard: 100 fold0 is logged no further" in capsys.readouterr().err
