"""Tests of what is computed on a GPU; the same tests run on the CPU in a rehearsal.

``python benchmarks/gpu_check`` runs them. The variable ``FOLDSMITH_CHECK_DEVICE`` names the device,
``cuda`` or ``cpu``; without it and without a card they are not collected. Whatever needs a card
differs in the fixtures of this file alone, so that the rehearsal runs the tests' own lines.
"""

import gc
import multiprocessing
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import warm
from small_project import make_project

from foldsmith.config import Globals
from foldsmith.models.runtime import create_runtime
from foldsmith.project import ProjectFolder

DEVICE = os.environ.get("FOLDSMITH_CHECK_DEVICE", "cuda")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))

if "FOLDSMITH_CHECK_DEVICE" not in os.environ and not torch.cuda.is_available():
    collect_ignore_glob = ["test_*.py"]


def pytest_configure(config):
    """Register the marker of these tests."""
    config.addinivalue_line("markers", "cuda: what is computed on a GPU; see docs/gpu.md")


if DEVICE == "cpu":
    # This process has imported everything, and has no card that a fork could not use: no need to
    # start a server that imports it again.
    warm._SERVER = multiprocessing.get_context("fork")


@pytest.fixture(scope="session")
def device() -> str:
    """Where the tests compute."""
    return DEVICE


@pytest.fixture(autouse=True)
def _clean():
    """Leave memory and torch's settings to the next test as they were."""
    yield
    torch.use_deterministic_algorithms(False)
    if DEVICE == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


@pytest.fixture
def exact():
    """Have float32 computed in float32: convolutions would take TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def runtime_of(device):
    """Return the runtime of settings on the device."""

    def make(**values):
        return create_runtime(Globals(task="regression", device=device, **values))

    return make


@pytest.fixture(scope="session")
def preprocessed(tmp_path_factory, small_images) -> Path:
    """A small project after its preprocessing; no test changes it."""
    from foldsmith.steps.preprocess import preprocess

    folder = make_project(tmp_path_factory.mktemp("session-preprocessed") / "project", small_images)
    preprocess(ProjectFolder.open(folder))
    return folder


@pytest.fixture
def ready(tmp_path, preprocessed) -> ProjectFolder:
    """A copy of it."""
    return ProjectFolder.open(shutil.copytree(preprocessed, tmp_path / "project"))


@pytest.fixture(scope="session")
def backbone(device) -> str:
    """A small backbone; on a CPU the smallest."""
    return "test_resnet" if device == "cpu" else "resnet10t"


@pytest.fixture
def on_card_only(device):
    """Skip what a rehearsal has no time for: the same lines run with other parameters."""
    if device == "cpu":
        pytest.skip("for a card: a rehearsal runs its sister")


@pytest.fixture
def limited(monkeypatch):
    """Limit the device's memory to what fits fewer images than a batch.

    Returns a context manager: on a card, a share of the memory of the process; on the CPU, whose
    memory cannot be limited so, a network that refuses larger batches.
    """

    @contextmanager
    def limit(needed_bytes: int, share: float, batch: int):
        if DEVICE == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(share * needed_bytes / total)
            try:
                yield
            finally:
                torch.cuda.set_per_process_memory_fraction(1.0)
            return
        from foldsmith.models.classifier import ImageModel

        real = ImageModel.forward

        def short(self, images, *arguments, **named):
            if self.training and len(images) > share * batch:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            return real(self, images, *arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(ImageModel, "forward", short)
            yield

    return limit
