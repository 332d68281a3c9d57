"""The threads of a step are those of its experiment, and the next step has its own again."""

import json

import pytest
import torch
from small_project import EXPERIMENTS, write_experiment
from threadpoolctl import threadpool_info

from foldsmith.config import Globals
from foldsmith.models.threads import threads_of
from foldsmith.project import ProjectFolder
from foldsmith.run import slots
from foldsmith.run.engine import run


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
        "model/base_name": "resnet10t",
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
