"""A group of one process computes what a process without a group does: NCCL on a single card."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist
from small_project import EXPERIMENTS, write_experiment

from foldsmith.distributed import process_group
from foldsmith.steps.pretrain import pretrain
from foldsmith.steps.train_command import train

pytestmark = pytest.mark.cuda

# The same training with its tensors in another memory format ends as far from itself.
LOSS, WAY = 1e-4, 1e-3


@pytest.fixture
def torchrun(monkeypatch):
    """Set the variables that torchrun sets for one process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    values = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": 0, "WORLD_SIZE": 1}
    values |= {"LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "GLOO_SOCKET_IFNAME": "lo"}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize("kind", ["pretrain", "train"])
def test_a_group_of_one_trains_as_no_group(ready, backbone, device, torchrun, kind, exact, request):
    if kind == "train":
        request.getfixturevalue("on_card_only")
    run, name, folder = {
        "pretrain": (pretrain, "000", "output/000"),
        "train": (train, "100", "output/100/fold0"),
    }[kind]
    content = EXPERIMENTS[name] | {"globals/device": device, "globals/enable_amp": False}
    content |= {"globals/max_epoch": 2, "loader/train/num_workers": 0}
    if kind == "train":
        content |= {"model/pretrained": None, "model/base_name": backbone, "globals/val_fold": 0}
    else:
        content |= {"model/backbone/model_name": backbone}
    write_experiment(ready.folder, name, content)
    run(ready, f"exp_config/{name}.yml")
    key = "output_path" if kind == "pretrain" else "output_root"
    with process_group.joined(even_alone=True):
        assert not process_group.alone() and process_group.size() == 1
        backends = str(dist.get_backend_config())
        assert ("cuda:nccl" if device == "cuda" else "cpu:gloo") in backends
        run(ready, f"exp_config/{name}.yml", [f"globals/{key}=output/grouped"])
    assert process_group.alone()
    one = ready.folder / folder
    other = ready.folder / "output/grouped" / ("fold0" if kind == "train" else "")
    logs = [json.loads((each / "log.json").read_text()) for each in (one, other)]
    assert len(logs[0]) == len(logs[1]) == 2
    losses = [[entry["train/loss"] for entry in log] for log in logs]
    np.testing.assert_allclose(*losses, atol=LOSS)
    pattern = "backbone_epoch_2.pth" if kind == "pretrain" else "snapshot_last_epoch_2.pth"
    first, second = (torch.load(each / pattern, weights_only=True) for each in (one, other))
    assert list(first) == list(second)
    apart = sum(float((first[k] - second[k]).double().square().sum()) for k in first) ** 0.5
    size = sum(float(first[k].double().square().sum()) for k in first) ** 0.5
    assert apart < WAY * size


def test_torchrun_starts_a_training(ready, device, on_card_only):
    content = EXPERIMENTS["200"] | {"globals/device": device, "model/pretrained": None}
    write_experiment(ready.folder, "200", content | {"globals/max_epoch": 1})
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
    command += ["-m", "foldsmith", "train", "-cfg", "exp_config/200.yml", "-v", "0"]
    result = subprocess.run(
        command, cwd=ready.folder, capture_output=True, text=True, timeout=100, env=os.environ
    )
    assert result.returncode == 0, result.stderr
    assert (ready.folder / "output/200/fold0/manifest.json").is_file()
