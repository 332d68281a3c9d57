from types import SimpleNamespace

import pytest
import torch
from torch import nn

from foldsmith.errors import ConfigError, OutputError, TrainingError
from foldsmith.steps.output_folder import read_resume
from foldsmith.training.extensions.collapse import CollapseWatch, RankWatch
from foldsmith.training.extensions.snapshots import ResumeSnapshot, WeightsSnapshot, restore
from foldsmith.training.manager import create_manager
from foldsmith.utils.owned_files import OwnedFiles

OWNER = {"step": "train output/1 fold 0", "inputs": "a hash"}


@pytest.fixture
def manager(tmp_path):
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    made = create_manager(model, optimizer, 20, 1, str(tmp_path))
    made.start_extensions()
    return made


def names(folder):
    return sorted(path.name for path in folder.glob("*.pth"))


def test_only_the_newest_are_kept(manager, tmp_path):
    snapshot = WeightsSnapshot(nn.Linear(1, 1), "by_metric_{.epoch}.pth", keep=2)
    (tmp_path / "by_metric_best.pth").touch()
    for epoch in (2, 9, 10):
        manager.iteration = epoch
        snapshot(manager)
    # Nothing goes until the training's own state is safe.
    assert len(names(tmp_path)) == 4
    snapshot.remove_superseded(tmp_path)
    assert names(tmp_path) == ["by_metric_10.pth", "by_metric_9.pth", "by_metric_best.pth"]
    snapshot.remove_after(tmp_path, 9)
    assert names(tmp_path) == ["by_metric_9.pth", "by_metric_best.pth"]


def test_a_restored_training_has_no_files_of_later_epochs(tmp_path):
    def create():
        model = nn.Linear(1, 1)
        made = create_manager(
            model, torch.optim.SGD(model.parameters(), lr=0.1), 9, 1, str(tmp_path)
        )
        made.extend(WeightsSnapshot(model, "best_{.epoch}.pth", keep=1), trigger=(1, "epoch"))
        made.extend(ResumeSnapshot(OWNER), trigger=(1, "epoch"))
        return made

    killed = create()
    for _ in range(2):
        with killed.run_iteration():
            pass
    # Killed between the weights of epoch 3 and the state of the training.
    OwnedFiles(tmp_path).path("best_3.pth", "training").touch()
    # Of somebody else.
    (tmp_path / "best_4.pth").touch()
    restored = create()
    restore(restored, read_resume(tmp_path, OWNER))
    assert restored.epoch == 2
    assert names(tmp_path) == ["best_2.pth", "best_4.pth", "resume.pth"]


def test_a_resume_snapshot_continues_no_other_training(tmp_path):
    torch.save({"iteration": 1, "belongs_to": OWNER}, tmp_path / "resume.pth")
    assert read_resume(tmp_path, OWNER) == {"iteration": 1}
    with pytest.raises(
        OutputError, match=r"resume.pth: belongs to another training \('train output"
    ):
        read_resume(tmp_path, {"step": "train output/1 fold 1", "inputs": "another"})
    torch.save({"weight": torch.ones(1)}, tmp_path / "resume.pth")
    with pytest.raises(OutputError, match="no file to continue a training from; delete it"):
        read_resume(tmp_path, OWNER)


def test_without_a_limit_all_are_kept(manager, tmp_path):
    snapshot = WeightsSnapshot(nn.Linear(1, 1), "a_{.epoch}.pth")
    for epoch in (1, 2, 3):
        manager.iteration = epoch
        snapshot(manager)
    snapshot.remove_superseded(tmp_path)
    assert len(names(tmp_path)) == 3


def watch(values, **options):
    extension = CollapseWatch("std", dim=100, fraction=0.1, epochs=3, **options)
    for epoch, value in enumerate(values, 1):
        extension(SimpleNamespace(observation={"std": value}, out="x", epoch=epoch))


def test_collapse_is_said_once_after_some_epochs_on_end(capsys):
    watch([0.1, 0.009, 0.009, 0.02, 0.009, 0.009])
    assert capsys.readouterr().err == ""
    watch([0.1, 0.009, 0.008, 0.007, 0.006])
    warned = capsys.readouterr().err
    assert warned.count("warning") == 1
    assert "std is 0.007, below 0.01 for 3 epochs, at epoch 4" in warned


def test_collapse_stops_if_asked():
    with pytest.raises(TrainingError, match="features have collapsed"):
        watch([0.001] * 3, stop=True)


def test_collapse_state_survives_a_restart():
    first = CollapseWatch("std", dim=100, epochs=3, stop=True)
    for _ in range(2):
        first(SimpleNamespace(observation={"std": 0.0}, out="x", epoch=1))
    second = CollapseWatch("std", dim=100, epochs=3, stop=True)
    second.load_state_dict(first.state_dict())
    with pytest.raises(TrainingError):
        second(SimpleNamespace(observation={"std": 0.0}, out="x", epoch=3))


def test_bad_limits_are_refused():
    with pytest.raises(ConfigError, match="fraction"):
        CollapseWatch("std", dim=100, fraction=2)


def watch_rank(values, **options):
    extension = RankWatch(**options)
    for epoch, value in enumerate(values, 1):
        observation = {} if value is None else {"probe/rank": value}
        extension(SimpleNamespace(observation=observation, out="x", epoch=epoch))


def test_a_collapse_in_rank_is_said_once(capsys):
    watch_rank([30.0, None, 2.5])
    assert capsys.readouterr().err == ""
    watch_rank([30.0, None, 1.5, None, 1.2])
    warned = capsys.readouterr().err
    assert warned.count("warning") == 1
    assert "collapsed in rank: probe/rank is 1.5, below 2, at epoch 3" in warned
    with pytest.raises(TrainingError, match="collapsed in rank"):
        watch_rank([1.0], stop=True)


def test_what_was_said_of_the_rank_survives_a_restart(capsys):
    first, second = RankWatch(), RankWatch()
    first(SimpleNamespace(observation={"probe/rank": 1.0}, out="x", epoch=1))
    second.load_state_dict(first.state_dict())
    second(SimpleNamespace(observation={"probe/rank": 1.0}, out="x", epoch=2))
    assert capsys.readouterr().err.count("warning") == 1
