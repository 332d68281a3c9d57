"""Trainings in several processes are those of one: the same losses, the same weights."""

import json
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import warm
from hypothesis import given
from hypothesis import strategies as st
from small_project import make_project
from torch import nn
from warm import Command

from foldsmith.data.loader import EpochBatchSampler
from foldsmith.distributed import process_group
from foldsmith.distributed.collectives import batch_of, own, sum_gradients, synchronised
from foldsmith.errors import OutputError
from foldsmith.steps.registry import LIBRARY_TYPES, METHODS

# Float32 sums in another order differ in the last bit, and training multiplies the difference. The
# same training with its tensors in another memory format ends as far from itself (docs/scaling.md:
# 5e-6 in the loss, 7e-5 in the largest weight's difference); these limits are some times that.
LOSS, WAY = 1e-4, 1e-3

EXACT = ["globals/enable_amp=false", "dataset/img_size=64", "loader/train/num_workers=0"]
PRETRAIN = [
    *("pretrain", "-cfg", "exp_config/000.yml", *EXACT, "globals/grad_accum=2"),
    *("loader/train/batch_size=11", "globals/snapshot_interval=1"),
]


@pytest.fixture
def project(tmp_path, small_images, cli):
    folder = make_project(tmp_path / "one", small_images)
    cli(folder, "preprocess")
    return folder


def environment(n: int) -> list[dict[str, str]]:
    """Return what torchrun sets for each of n processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(n)}
    common |= {"LOCAL_WORLD_SIZE": str(n), "GLOO_SOCKET_IFNAME": "lo"}
    return [common | {"RANK": str(k), "LOCAL_RANK": str(k)} for k in range(n)]


def short_grace() -> None:
    """Wait for a peer's message for a moment: no torchrun is there to be told first."""
    process_group._GRACE_S = 0.5


def together(n: int, folder: Path, *arguments: str) -> list[Command]:
    return [
        Command(folder, *arguments, environment=each, before=(short_grace,))
        for each in environment(n)
    ]


def finished(commands: list[Command], code: int = 0) -> list[subprocess.CompletedProcess]:
    results = [command.finish(120) for command in commands]
    assert [r.returncode for r in results] == [code] * len(results), [
        r.stdout + r.stderr for r in results
    ]
    return results


def assert_same_training(one: Path, other: Path, first: str, last: str, losses: list[str]) -> None:
    """Compare logs, and how far apart weights end, as a share of the way they went."""
    logs = [json.loads((folder / "log.json").read_text()) for folder in (one, other)]
    assert len(logs[0]) == len(logs[1]) > 1
    for key in losses:
        np.testing.assert_allclose(*[[entry[key] for entry in log] for log in logs], atol=LOSS)
    began, ended, others = (
        torch.load(path, weights_only=True) for path in (one / first, one / last, other / last)
    )
    assert list(ended) == list(others)
    way = sum((ended[key] - began[key]).double().square().sum() for key in ended) ** 0.5
    apart = sum((ended[key] - others[key]).double().square().sum() for key in ended) ** 0.5
    assert way > 0.1
    assert apart < WAY * way, (apart, way)


def test_pretraining_of_two_is_that_of_one(project, tmp_path, cli):
    other = shutil.copytree(project, tmp_path / "two")
    cli(project, *PRETRAIN)
    main, second = finished(together(2, other, *PRETRAIN))
    assert "pretraining on 32 images" in main.stdout and second.stdout == ""
    assert_same_training(
        *(folder / "output/000" for folder in (project, other)),
        *("backbone_epoch_1.pth", "backbone_epoch_3.pth", ["train/loss", "train/std", "lr"]),
    )
    # The same inputs: neither is out of date for the other.
    inputs, others = (
        json.loads((folder / "output/000/manifest.json").read_text())["inputs"]
        for folder in (project, other)
    )
    assert inputs == others


def test_fine_tuning_of_three_is_that_of_one(project, tmp_path, cli):
    # 12 images in batches of 7 and 5, which three cannot share evenly; and for the validation of 5,
    # 5 and 2: of the last one a process has nothing.
    train = [
        *("train", "-cfg", "exp_config/100.yml", "-v", "0", *EXACT, "loader/train/batch_size=7"),
        *(
            "loader/val/batch_size=5",
            "globals/grad_accum=2",
            "globals/ema_decay=0.9",
            "model/pretrained=null",
        ),
        *("globals/auxiliary={again: 0.5}", "globals/snapshot_epochs=all"),
    ]
    settings = (project / "project.yml").read_text()
    (project / "project.yml").write_text(
        settings + "auxiliary: {again: {column: target, kind: regression}}\n"
    )
    other = shutil.copytree(project, tmp_path / "three")
    cli(project, *train)
    finished(together(3, other, *train))
    keys = ["train/loss", "train/loss_again", "val/loss", "val/metric", "lr"]
    assert_same_training(
        *(folder / "output/100/fold0" for folder in (project, other)),
        *("snapshot_epoch_1.pth", "snapshot_epoch_3.pth", keys),
    )


class _Backbone(nn.Sequential):
    """Convolution, BatchNorm, features."""

    num_features = 8

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
            nn.Flatten(),
        )


def _gradients(method: str, n: int) -> dict[str, torch.Tensor]:
    """Return loss, gradients and statistics of a batch, as the processes that there are see it."""
    torch.manual_seed(0)
    small = {"proj_hidden_dim": 16} | ({"out_dim": 12} if method == "DINO" else {})
    model = synchronised(LIBRARY_TYPES[method](_Backbone(), **small)).train()
    views = tuple(torch.randn(n, 3, 12, 12) for _ in range(2))
    with batch_of(n):
        scalars = model(tuple(own(view) for view in views))
        scalars["loss"].backward()
        sum_gradients(model.parameters())
    gradients = {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return {
        **{k: v.detach() for k, v in scalars.items()},
        **gradients,
        **dict(model.named_buffers()),
    }


def _save_gradients(environment: dict[str, str], n: int, file: Path) -> None:
    torch.set_num_threads(1)
    os.environ.update(environment)
    with process_group.joined():
        found = {method: _gradients(method, n) for method in METHODS}
        if process_group.is_main():
            torch.save(found, file)


def test_every_method_compares_across_processes(tmp_path):
    n, file = 7, tmp_path / "gradients.pth"
    processes = [warm.process(_save_gradients, each, n, file) for each in environment(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    of_two = torch.load(file, weights_only=True)
    assert len(of_two) == len(METHODS) > 6
    for method, found in of_two.items():
        alone = _gradients(method, n)
        assert found.keys() == alone.keys()
        largest = max(v.abs().max() for v in alone.values() if v.ndim > 1)
        for name, value in alone.items():
            if "memory_bank" in name:
                continue  # lightly's, not used, of random memory
            # Of what is nought but for rounding (a bias before BatchNorm), the largest counts.
            apart = (found[name].double() - value.double()).abs().max()
            assert apart < 1e-4 * largest, (method, name, apart, largest)


def pid_of_rank(parent: int, number: int) -> int | None:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"PPid:\t{parent}\n" not in (folder / "status").read_text():
                continue
            if f"RANK={number}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                return int(folder.name)
        except OSError:
            continue
    return None


@pytest.mark.slow
def test_torchrun_on_two_nodes_goes_on_after_a_death_and_names_it(project, tmp_path):
    longer = [*PRETRAIN, "globals/max_epoch=4"]
    whole = shutil.copytree(project, tmp_path / "whole")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    launch = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", "test"),
        *("--local-addr", "127.0.0.1", "--max-restarts", "1", "-m", "foldsmith", *longer),
    ]
    texts = [(tmp_path / f"node{k}").open("w+") for k in range(2)]
    nodes = [
        subprocess.Popen(
            launch,
            cwd=project,
            stdout=text,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        )
        for text in texts
    ]
    try:
        folder = project / "output/000"
        until = time.monotonic() + 90
        while not (folder / "resume.pth").exists():
            assert time.monotonic() < until and all(node.poll() is None for node in nodes)
            time.sleep(0.02)
        pids = [pid_of_rank(node.pid, 1) for node in nodes]
        (victim,) = [pid for pid in pids if pid is not None]
        os.kill(victim, signal.SIGKILL)
        finished(together(2, whole, *longer))
        codes = [node.wait(90) for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    said = []
    for text in texts:
        text.seek(0)
        said.append(text.read())
    assert codes == [0, 0], said
    # torchrun says which process has died, and the training where it goes on.
    assert any(re.search(rf"exitcode: -9\) local_rank: 0 \(pid: {victim}\)", text) for text in said)
    assert any("continuing after epoch" in text for text in said), said
    for name in ("backbone_epoch_4.pth", "resume.pth"):
        one, other = (
            torch.load(path / name, weights_only=True, map_location="cpu")
            for path in (folder, whole / "output/000")
        )
        weights, others = (each.get("models", {"main": each})["main"] for each in (one, other))
        assert all(torch.equal(weights[key], others[key]) for key in weights)


def test_who_is_left_says_so(project):
    alive, victim = together(2, project, *PRETRAIN, "globals/max_epoch=500")
    alive.wait_for_output("    1/500 ")
    victim.kill()
    result = alive.finish(60)
    assert result.returncode == 2
    (line,) = [line for line in result.stderr.splitlines() if "foldsmith" in line]
    assert "rank 0 on" in line and "the other processes of this training do not answer" in line
    assert "Traceback" not in result.stderr


def test_what_another_job_has_made_is_not_replaced(project, cli):
    cli(project, *PRETRAIN, "globals/max_epoch=1")
    made = {
        path: path.read_bytes() for path in (project / "output/000").glob("*") if path.is_file()
    }
    for restarts in ("0", "1"):  # torchrun starts anew whatever has failed
        both = [
            Command(
                project,
                *PRETRAIN,
                environment=each | {"TORCHELASTIC_RESTART_COUNT": restarts},
                before=(short_grace,),
            )
            for each in environment(2)
        ]
        first, second = finished(both, 2)
        assert "exists already" in first.stderr and second.stderr == ""
    assert {path: path.read_bytes() for path in made} == made


def test_a_batch_is_for_all_processes(project):
    both = together(2, project, *PRETRAIN, "loader/train/batch_size=1")
    message = "a batch of an epoch has 1 images, for 2 processes"
    first, second = finished(both, 2)
    assert message in first.stderr and second.stderr == ""
    assert not (project / "output/000").exists()


def test_what_is_wrong_is_said_once(project, cli):
    wrong = together(2, project, *PRETRAIN, "optimizer/momentun=0.9")
    first, second = finished(wrong, 2)
    assert "momentun" in first.stderr and second.stderr == ""
    # The folder was claimed in the meantime.
    (project / "output/000").mkdir(parents=True)
    (project / "output/000/notes.txt").touch()
    first, second = finished(together(2, project, *PRETRAIN), 2)
    assert "exists already" in first.stderr and second.stderr == ""
    # A command that is not made for it.
    result = Command(project, "status", environment=environment(2)[1]).finish()
    assert result.returncode == 2 and "start other commands without it" in result.stderr


def test_where_one_process_fails_it_says_who_it_is(project):
    table = (project / "input/train.csv").read_text().splitlines()
    image = project / "input/photos" / f"{table[-1].split(',')[0]}.jpg"
    assert image.is_file()
    arguments = [*PRETRAIN, "globals/image_store=false", "globals/max_epoch=50"]
    both = together(2, project, *arguments)
    both[0].wait_for_output("    1/50 ")
    image.write_bytes(b"no image")
    results = [command.finish(60) for command in both]
    assert [result.returncode for result in results] == [2, 2]
    told = [result.stderr for result in results if image.name in result.stderr]
    assert told and all("Traceback" not in result.stderr for result in results)
    if image.name in results[1].stderr:
        assert "rank 1 on" in results[1].stderr


class _Planted:
    """A pickle that runs a command when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("word", [None, b"5", b'{"error": "SystemExit"}'])
def test_what_is_planted_in_the_store_is_not_executed(project, tmp_path, word):
    """The test is rank 0, whose place in the store anybody who reaches the port can take."""
    mark = tmp_path / "executed"
    planted = pickle.dumps(_Planted(mark)) if word is None else word
    first, second = environment(2)
    store = dist.TCPStore(
        "127.0.0.1", int(first["MASTER_PORT"]), 2, is_master=True, wait_for_workers=False
    )
    victim = Command(project, *PRETRAIN, environment=second)
    place = dist.PrefixStore(process_group._meet(store, 0, 2)[0], store)
    dist.PrefixStore("words", place).set("word1", planted)
    group = {"store": dist.PrefixStore("group", place), "rank": 0, "world_size": 2}
    dist.init_process_group("gloo", timeout=timedelta(seconds=60), **group)
    try:
        result = victim.finish(60)
    finally:
        dist.destroy_process_group()
    assert not mark.exists()
    assert result.returncode == 2 and "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if "foldsmith" in line]
    assert line.startswith("foldsmith: error: rank 1 on ")
    assert "'word1' in the store of this training's processes was not written by them" in line


def test_words_are_plain_data(monkeypatch):
    """What arrives is what the main process has, and errors are of the same kind."""
    store = dist.HashStore()
    for rank in (0, 1):
        monkeypatch.setattr(
            process_group, "_world", process_group._World(rank, 2, rank, 2, [], store)
        )
        assert process_group.from_main(lambda: ({"a": [1, 0.1, None, "é"]}, "done")) == [
            {"a": [1, 0.1, None, "é"]},
            "done",
        ]
    store = dist.HashStore()
    for rank in (0, 1):
        monkeypatch.setattr(
            process_group, "_world", process_group._World(rank, 2, rank, 2, [], store)
        )
        monkeypatch.setattr(process_group, "_GRACE_S", 0.01)
        with (
            pytest.raises(OutputError, match="is in the way") as raised,
            process_group.main_first(),
        ):
            raise OutputError("output: is in the way")
        assert raised.value.told == (rank == 1)


@given(n=st.integers(2, 200), batch=st.integers(2, 64), size=st.integers(1, 9), drop=st.booleans())
def test_shares_are_all_of_a_batch_and_no_image_twice(n, batch, size, drop):
    sampler = EpochBatchSampler(n, batch, shuffle=True, drop_last=drop, seed=1)
    alone = [list(keys) for keys in sampler]
    try:
        of_ranks = []
        for number in range(size):
            process_group._world = process_group._World(number, size, number, size, [], None)
            of_ranks.append(list(sampler))
        places = np.concatenate([sampler.places(of) for of in range(size)])
    finally:
        process_group._world = None
    assert [list(chain(*parts)) for parts in zip(*of_ranks, strict=True)] == alone
    assert all(
        max(map(len, parts)) - min(map(len, parts)) <= 1 for parts in zip(*of_ranks, strict=True)
    )
    assert sorted(places) == list(range(sum(sampler.sizes())))
    whole = list(chain(*alone))
    assert [whole[place] for place in places] == list(chain(*chain(*of_ranks)))
