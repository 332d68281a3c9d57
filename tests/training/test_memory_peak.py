import json
import mmap
import multiprocessing
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from foldsmith.training.extensions.log import log_report
from foldsmith.training.extensions.memory import MemoryPeak
from foldsmith.training.manager import create_manager

MIB = 2**20
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no peak of resident memory")


def taken(n_bytes):
    """Take memory that the system has to give, and gives back when it is closed."""
    memory = mmap.mmap(-1, n_bytes)
    memory[:: mmap.PAGESIZE] = b"x" * (n_bytes // mmap.PAGESIZE)
    return memory


def hold(pipe):
    memory = taken(150 * MIB)
    pipe.send(len(memory))
    pipe.recv()


@pytest.fixture
def epochs(tmp_path):
    """Run epochs; each takes memory while it lasts. Returns what the log says of each."""

    def run(*n_bytes):
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        manager = create_manager(model, optimizer, len(n_bytes), 1, str(tmp_path))
        manager.extend(log_report())
        manager.extend(MemoryPeak(torch.device("cpu")))
        for size in n_bytes:
            with manager.run_iteration():
                if size:
                    taken(size).close()
        log = json.loads((tmp_path / "log.json").read_text())
        assert all("cuda_mib" not in entry for entry in log)
        return [entry["host_mib"] for entry in log]

    return run


def test_the_peak_is_that_of_the_largest_epoch_so_far(epochs):
    first, second, third = epochs(0, 200 * MIB, 0)
    assert second - first == pytest.approx(200, abs=40)
    assert third == pytest.approx(second, abs=20)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc")
def test_what_was_before_the_training_is_forgotten(epochs):
    (before,) = epochs(300 * MIB)
    (after,) = epochs(0)
    assert before - after > 200


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_loader_processes_count(epochs):
    (alone,) = epochs(0)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=hold, args=(theirs,))
    child.start()
    assert ours.recv() == 150 * MIB
    (with_child,) = epochs(0)
    ours.send(None)
    child.join()
    assert with_child - alone > 140
