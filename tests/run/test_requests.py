"""What steps ask of a cluster, and what is said where it cannot be met."""

import pytest
from small_project import EXPERIMENTS, write_experiment

from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.run.node import Node
from foldsmith.run.plan import plan_of
from foldsmith.run.resources import Request, requests_of

LAPTOP = Node(cpus=2, gpus=0, memory_gib=8)
BIG = Node(cpus=64, gpus=0, memory_gib=500)
CARDS = Node(cpus=8, gpus=2, memory_gib=100)


def requests(folder, nodes, resources="", **values):
    with (folder / "project.yml").open("a") as file:
        file.write(resources)
    write_experiment(folder, "100", EXPERIMENTS["100"] | {"model/pretrained": None} | values)
    project = ProjectFolder.open(folder)
    return requests_of(plan_of(project, "exp_config/100.yml").steps, project, nodes)


def test_what_is_chosen_where_nobody_says(small_project):
    found = requests(small_project, [LAPTOP, BIG, CARDS], **{"loader/train/num_workers": 20})
    assert found["preprocess"] == Request(1, 0)
    # The share of the nodes with a card, not of the largest of all; and each card gets its step.
    assert found["train 100 fold 0"] == Request(4, 1)
    found = requests(small_project, [LAPTOP, BIG], **{"loader/train/num_workers": 3})
    assert found["train 100 fold 1"] == Request(4, 0)
    values = {"globals/device": "cpu", "loader/train/num_workers": 0}
    found = requests(small_project, [LAPTOP, CARDS], **values)
    assert found["train 100 fold 1"] == Request(1, 0)
    found = requests(small_project, [LAPTOP, CARDS], **values, **{"globals/threads": 2})
    assert found["train 100 fold 1"] == Request(2, 0)


@pytest.mark.parametrize(
    ("node", "cpus", "gpus"),
    [
        (Node(cpus=4, gpus=2, memory_gib=30), 2, 1),  # Kaggle: both cards are busy
        (Node(cpus=2, gpus=1, memory_gib=12), 2, 1),  # Colab
        (Node(cpus=1, gpus=1, memory_gib=12), 1, 1),
        (Node(cpus=96, gpus=8, memory_gib=500), 9, 1),  # more than 8 loaders bring little
        (Node(cpus=4, gpus=0, memory_gib=30), 1, 0),  # the model computes on the CPU
    ],
)
def test_cores_are_shared_by_the_cards(small_project, node, cpus, gpus):
    found = requests(small_project, [node], **{"loader/train/num_workers": "auto"})
    assert found["train 100 fold 0"] == Request(cpus, gpus)


def test_what_is_said_is_taken(small_project):
    found = requests(
        small_project,
        [LAPTOP, CARDS],
        "resources: {train: {cpus: 0.5, gpus: 0.25, memory_gib: 2}}\n",
        **{"globals/resources": {"gpus": 0.5}},
    )
    assert found["train 100 fold 0"] == Request(0.5, 0.5, 2)
    assert found["train 100 fold 0"].threads == 1


@pytest.mark.parametrize(
    ("resources", "values", "message"),
    [
        ("{train: {gpus: 2}}", {}, r"train/gpus: 2: a step computes on one GPU; .* torchrun"),
        ("{infer: {gpus: 1.5}}", {}, r"project.yml: resources/infer/gpus: 1.5: a step computes"),
        (
            "{}",
            {"globals/resources": {"cpus": 65}},
            r"100.yml: globals/resources/cpus: 65: no node",
        ),
        # Each is there, but on different nodes.
        ("{train: {cpus: 60, gpus: 1}}", {}, r"cpus: 60; .*gpus: 1: no node"),
        (
            "{}",
            {"globals/device": "cuda:1"},
            r"device: cuda:1: on Ray a step sees its own GPU alone",
        ),
        ("{train: {gpus: 0}}", {"globals/device": "cuda"}, "'train 100 fold 0' gets no GPU"),
    ],
)
def test_what_cannot_be_met_names_its_key(small_project, resources, values, message):
    with pytest.raises(ConfigError, match=message):
        requests(small_project, [LAPTOP, BIG, CARDS], f"resources: {resources}\n", **values)
