"""The threads of a step are those of its experiment, and the next step has its own again."""

import json
import os
import subprocess
import sys

import pytest
import torch
from small_project import EXPERIMENTS, write_experiment
from threadpoolctl import threadpool_info

from foldsmith.config import Globals
from foldsmith.models import threads
from foldsmith.models.threads import threads_of
from foldsmith.project import ProjectFolder
from foldsmith.run import slots
from foldsmith.run.engine import run
from foldsmith.steps.preprocess import preprocess
from foldsmith.steps.train_command import train
from foldsmith.utils import machine


def libraries():
    return {(found["user_api"], found["num_threads"]) for found in threadpool_info()}


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_torch_and_blas_compute_with_as_many_threads_and_then_as_before(two_threads):
    before = libraries()
    with pytest.raises(ZeroDivisionError), threads_of(Globals(task="regression", threads=3)):
        assert torch.get_num_threads() == 3 and libraries() == {("blas", 3), ("openmp", 3)}
        with threads_of(Globals(task="regression", threads=1)):
            assert torch.get_num_threads() == 1 and libraries() == {("blas", 1), ("openmp", 1)}
        assert torch.get_num_threads() == 3
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2 and libraries() == before
    for others in ({}, {"threads": 3, "device": "cuda"}):
        with threads_of(Globals(task="regression", **others)):
            assert torch.get_num_threads() == 2 and libraries() == before


def test_every_step_that_computes_has_the_threads_of_its_experiment(
    small_project, two_threads, monkeypatch
):
    short = {"globals/max_epoch": 1, "globals/threads": 1}
    write_experiment(small_project, "000", EXPERIMENTS["000"] | short)
    backbone = {"model/pretrained": "output/000/backbone_epoch_1.pth"}
    write_experiment(small_project, "200", EXPERIMENTS["200"] | backbone | short)
    frozen = {
        "import": "foldsmith:frozen_features.yml",
        "globals/output_root": "output/300",
        "globals/threads": 1,
        "model/base_name": "test_resnet",
        "dataset/img_size": 32,
        **backbone,
    }
    write_experiment(small_project, "300", frozen)
    members = {"ensemble/experiments": ["output/200", "output/300"]}
    write_experiment(small_project, "900", EXPERIMENTS["900"] | members)
    monkeypatch.setattr(slots, "cores_here", lambda: 1)  # all in this process
    run(ProjectFolder.open(small_project), "exp_config/900.yml", ["*:globals/device=cpu"])
    output = small_project / "output"
    made = {file.parent.name: file for file in output.rglob("manifest*.json")}
    assert sorted(made) == ["000", "200", "300", "900", "fold0", "fold1"]
    cores = {name: json.loads(file.read_text())["facts"]["cores"] for name, file in made.items()}
    assert cores.pop("900") == 2 and set(cores.values()) == {1}
    assert torch.get_num_threads() == 2


STAT = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 {} 0 0 {} 0 0 0 0 0 0\ncpu1 0 0 {} 0 {} 0 0 0 0 0\nintr 5\n"


def test_idle_cores_are_those_of_this_process(tmp_path, monkeypatch):
    file = tmp_path / "stat"
    monkeypatch.setattr(machine, "_STAT", file)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    file.write_text(STAT.format(100, 200, 300, 400))

    def sleep(seconds):
        assert seconds == 0.2
        file.write_text(STAT.format(115, 205, 310, 410))

    monkeypatch.setattr(machine.time, "sleep", sleep)
    assert machine.idle_cores(0.2) == 0.25 + 0.5
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {1})
    file.write_text(STAT.format(100, 200, 300, 400))
    assert machine.idle_cores(0.2) == 0.5
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {1, 7})
    assert machine.idle_cores(0.2) is None
    file.write_text("nothing")
    monkeypatch.setattr(machine.time, "sleep", lambda _: None)
    assert machine.idle_cores(0.2) is None
    file.unlink()
    assert machine.idle_cores(0.2) is None


def test_a_training_beside_busy_processes_names_the_remedy_once(
    small_project, two_threads, monkeypatch, caplog
):
    monkeypatch.setattr(threads, "_advised", False)
    short = {"globals/max_epoch": 1, "model/pretrained": None, "globals/device": "cpu"}
    write_experiment(small_project, "200", EXPERIMENTS["200"] | short)
    project = ProjectFolder.open(small_project)
    preprocess(project)

    def advice(*overrides, folds=None):
        caplog.clear()
        train(project, "exp_config/200.yml", overrides, folds, force=True)
        return [text for text in caplog.messages if "globals/threads: 1" in text]

    # They end with the test, also if it is killed.
    code = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
    loop = [sys.executable, "-c", code]
    busy = [subprocess.Popen(loop) for _ in range(len(os.sched_getaffinity(0)) + 1)]
    try:
        assert advice("globals/threads=1", folds=[0]) == []
        (line,) = advice()  # two folds
        assert "cores busy, and the 2 threads of this training wait for each other" in line
        assert advice(folds=[0]) == []
    finally:
        for process in busy:
            process.kill()
            process.wait()


@pytest.mark.parametrize("idle", [None, 1.7, 4.0])
def test_a_training_on_idle_cores_gives_no_advice(two_threads, monkeypatch, caplog, idle):
    monkeypatch.setattr(threads, "_advised", False)
    monkeypatch.setattr(threads, "idle_cores", lambda seconds: idle)
    threads.advise_if_busy(Globals(task="regression", device="cpu"))
    assert not caplog.messages
    monkeypatch.setattr(threads, "idle_cores", lambda seconds: 1.4)
    threads.advise_if_busy(Globals(task="regression", device="cuda"))
    assert not caplog.messages
    threads.advise_if_busy(Globals(task="regression", device="cpu"))
    assert len(caplog.messages) == 1
