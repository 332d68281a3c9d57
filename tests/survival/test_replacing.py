"""What is replaced: the old results stay until the new ones begin to be written."""

import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from small_project import EXPERIMENTS, make_project, write_experiment

from foldsmith.config import Experiment
from foldsmith.errors import ConfigError, FoldsmithError, OutputError, TrainingError
from foldsmith.project import ProjectFolder
from foldsmith.run.dry_run import dry_run
from foldsmith.run.engine import run
from foldsmith.run.status import status
from foldsmith.steps import training_run
from foldsmith.steps.ensemble import ensemble
from foldsmith.steps.infer import infer
from foldsmith.steps.output_folder import TO_REPLACE
from foldsmith.steps.preprocess import preprocess
from foldsmith.steps.pretrain import pretrain, pretrain_experiment
from foldsmith.steps.train import train_folds
from foldsmith.steps.train_command import train

QUICK = {"globals/max_epoch": 1, "dataset/img_size": 32}
FINE_TUNING = EXPERIMENTS["200"] | QUICK | {"model/pretrained": None}
OWN = """
import torch

class FailsAtOnce(torch.nn.Module):
    def __init__(self):
        raise ValueError("this loss cannot be built")

class FailsLater(torch.nn.Module):
    def forward(self, logits, targets):
        if len(targets) > 1 and logits.requires_grad:
            raise ValueError("this loss cannot be computed")
        return ((logits[:, 0] - targets) ** 2).mean()

TYPES = {"FailsAtOnce": FailsAtOnce, "FailsLater": FailsLater}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory, small_images):
    """A project with finished trainings of every kind, made once."""
    folder = make_project(tmp_path_factory.mktemp("made") / "project", small_images)
    write_experiment(folder, "000", EXPERIMENTS["000"] | QUICK)
    write_experiment(folder, "200", FINE_TUNING)
    (folder / "exp_config/100.yml").unlink()
    (folder / "exp_config/900.yml").unlink()
    (folder / "own.py").write_text(OWN)
    with (folder / "project.yml").open("a") as file:
        file.write("python: [own.py]\n")
    project = ProjectFolder.open(folder)
    preprocess(project)
    pretrain(project, "exp_config/000.yml")
    train(project, "exp_config/200.yml")
    return folder


@pytest.fixture
def project(made, tmp_path):
    shutil.copytree(made, tmp_path / "project")
    return ProjectFolder.open(tmp_path / "project")


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and not path.name.startswith(".")
        and path.name not in ("progress.json", "foldsmith.json", TO_REPLACE)
    }


@pytest.mark.parametrize(
    "overrides",
    [
        ["loss={type: FailsAtOnce}"],
        ["loss={type: FailsLater}"],
        ["optimizer/lr=1.0e+30", "scheduler=null", "globals/enable_amp=false"],
        ["extensions/loss_curve/metric=3"],
    ],
)
def test_a_training_that_fails_leaves_the_old_one(project, overrides):
    root = project.folder / "output/200"
    infer(project, "output/200", keep_snapshots=True)
    before = files_in(root)
    with pytest.raises(Exception):  # noqa: B017 - of every kind
        train(project, "exp_config/200.yml", overrides, force=True)
    assert files_in(root) == before
    assert "3 of 4 steps done" in dry_run(project, "exp_config/200.yml") or "4 of 4" in dry_run(
        project, "exp_config/200.yml"
    )


def test_a_pretraining_that_fails_leaves_the_old_one(project):
    root = project.folder / "output/000"
    before = torch.load(root / "backbone_epoch_1.pth", weights_only=True)
    with pytest.raises(TrainingError):
        pretrain(project, "exp_config/000.yml", ["optimizer/lr=1.0e+30"], force=True)
    after = torch.load(root / "backbone_epoch_1.pth", weights_only=True)
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert (root / "manifest.json").is_file()


def test_other_folds_stay_until_their_turn(project):
    second = project.folder / "output/200/fold1"
    before, seen = files_in(second), []

    def stop(_):
        seen.append(files_in(second))
        raise TrainingError("stopped")

    experiment = Experiment.load(project, Path("exp_config/200.yml"))
    with pytest.raises(TrainingError, match="stopped"):
        train_folds(experiment, None, "force", stop)
    assert seen == [before]
    # The first one has begun anew.
    assert not (project.folder / "output/200/fold0/manifest.json").exists()


@pytest.mark.parametrize("overrides", [[], ["optimizer/lr=0.002"]])
@pytest.mark.parametrize("task", ["pretrain", "train"])
def test_what_was_stopped_in_its_first_epoch_goes_on(project, monkeypatch, task, overrides):
    file, start = {
        "pretrain": ("exp_config/000.yml", pretrain_experiment),
        "train": ("exp_config/200.yml", partial(train_folds, folds=None)),
    }[task]
    experiment = Experiment.load(project, Path(file), overrides)
    before = files_in(project.folder / "output")
    with monkeypatch.context() as patched:
        patched.setattr(training_run, "run_training", stop)
        with pytest.raises(KeyboardInterrupt):
            start(experiment, start="force")
    assert files_in(project.folder / "output") == before
    # Other inputs than those that -f was given for are refused as ever.
    with pytest.raises(OutputError, match="was run with other inputs"):
        start(Experiment.load(project, Path(file), ["optimizer/lr=0.003"]), start="resume")
    epochs = []
    for _ in range(2):
        start(experiment, start="resume", listener=epochs.append)
        # The second time it has finished already, and nothing is left of the note.
        assert len(epochs) == (2 if task == "train" else 1)
        assert not [*project.folder.rglob(TO_REPLACE)]


def stop(*_):
    raise KeyboardInterrupt


def test_two_experiments_in_one_folder_are_refused_in_planning(project):
    folder = project.folder
    for other in ("output/200", "output/200/inside", "output"):
        write_experiment(folder, "210", FINE_TUNING | {"globals/output_root": other})
        before = files_in(folder / "output")
        for file in ("exp_config/200.yml", "exp_config/210.yml"):
            for call in (dry_run, run, status):
                with pytest.raises(FoldsmithError) as caught:
                    call(project, file)
                text = str(caught.value)
                assert "globals/output_root: " in text
                assert "give one of them another folder" in text or "a folder of its own" in text
        with pytest.raises(FoldsmithError):
            status(project)
        assert files_in(folder / "output") == before
    (folder / "exp_config/210.yml").unlink()
    dry_run(project, "exp_config/200.yml")


def test_the_stages_refuse_the_folder_of_another_experiment(project):
    folder = project.folder
    write_experiment(folder, "210", FINE_TUNING | {"globals/seed": 5})
    for more in ({}, {"resume": True}):
        with pytest.raises(OutputError, match=r"holds the results of another experiment, exp_conf"):
            train(project, "exp_config/210.yml", **more)
    write_experiment(folder, "910", EXPERIMENTS["900"] | {"globals/output_path": "output/200"})
    with pytest.raises(OutputError, match="globals/output_path: .*another experiment"):
        ensemble(project, "exp_config/910.yml")
    inside = FINE_TUNING | {"globals/output_root": "output/200/fold0/more"}
    write_experiment(folder, "210", inside)
    with pytest.raises(OutputError, match="is inside .*the output folder of another experiment"):
        train(project, "exp_config/210.yml", force=True)
    # An experiment that was renamed goes on in its folder.
    (folder / "exp_config/200.yml").rename(folder / "exp_config/220.yml")
    train(project, "exp_config/220.yml", resume=True)


def test_a_loss_that_fails_is_an_error_before_anything_happens(project):
    with pytest.raises(ConfigError, match="this loss cannot be built"):
        train(project, "exp_config/200.yml", ["loss={type: FailsAtOnce}"], force=True)
