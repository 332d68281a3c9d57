import json

import numpy as np
import pytest
import torch
from torch import nn

from foldsmith.config import Globals
from foldsmith.data.cache.image_store import ImageStore
from foldsmith.data.datasets import ImageDataset
from foldsmith.data.loader import ImageLoader
from foldsmith.data.transforms import HorizontalFlip, RandomResizedCrop
from foldsmith.errors import ConfigError
from foldsmith.models import measured_choices as speed
from foldsmith.models.backbone import create_backbone
from foldsmith.models.measured_choices import (
    Duration,
    Measured,
    augment_seconds,
    batch_seconds,
    choose_layout,
    compile_pays,
    pass_seconds,
    tune,
)
from foldsmith.models.runtime import create_runtime
from foldsmith.utils.hashing import FileHashes


def runtime_of(**values):
    return create_runtime(Globals(task="regression", device="cpu", amp_dtype="off", **values))


def test_the_fastest_wins_and_is_measured_once(tmp_path):
    path = tmp_path / ".foldsmith" / "measurements.json"
    calls = []

    def measure():
        calls.append(1)
        return {"a": 0.3, "b": 0.1, "c": 0.2}

    assert Measured(path).get({"what": 1}, measure) == "b"
    assert Measured(path).get({"what": 1}, measure) == "b"
    assert len(calls) == 1
    Measured(path).get({"what": 2}, measure)
    assert len(calls) == 2
    assert len(json.loads(path.read_text())) == 2
    path.write_text("no json")
    Measured(path).get({"what": 1}, measure)
    assert len(calls) == 3


@pytest.mark.parametrize("slower", [torch.channels_last, torch.contiguous_format])
def test_the_layout_is_the_measured_one(tmp_path, monkeypatch, slower):
    def seconds(model, images, runtime):
        weight = model.layer1[0].conv1.weight
        assert images.is_contiguous(memory_format=torch.channels_last) == (
            weight.is_contiguous(memory_format=torch.channels_last)
        )
        return 2.0 if weight.is_contiguous(memory_format=slower) else 1.0

    monkeypatch.setattr(speed, "pass_seconds", seconds)
    model = create_backbone("test_resnet")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    chosen = choose_layout(model, (2, 3, 32, 32), runtime_of(), Measured(tmp_path / "m.json"))
    assert chosen == (slower is torch.contiguous_format)
    # Measuring leaves the model as it was.
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_pass_takes_time():
    model = create_backbone("test_resnet")
    small = pass_seconds(model, torch.zeros(2, 3, 32, 32), runtime_of())
    large = pass_seconds(model, torch.zeros(16, 3, 96, 96), runtime_of())
    assert 0 < small < large
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_short_training_is_not_compiled(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    seconds = iter([0.1, 1.0, 0.8])
    monkeypatch.setattr(speed, "pass_seconds", lambda *_: next(seconds))
    options = (nn.Linear(1, 1), (1, 1, 1, 1), runtime_of())
    measured = Measured(tmp_path / "m.json")
    assert not compile_pays(*options, 100, measured)
    assert not compiled
    assert compile_pays(*options, 10_000, measured)
    assert len(compiled) == 1


@pytest.fixture
def loader(write_images, tmp_path):
    store = ImageStore(tmp_path / "store", FileHashes(tmp_path / "h" / "h.json"))
    steps = [RandomResizedCrop(32, 32), HorizontalFlip()]
    data = ImageDataset(store, write_images(6, 40, 48), np.arange(6), None, steps, seed=0)
    return ImageLoader(data, 4, shuffle=True)


def test_where_to_augment_is_measured_without_a_trace(loader):
    before = [batch.views[0].clone() for batch in loader]
    seconds = augment_seconds(loader, runtime_of(), Duration(1e-6, 0.0))
    assert set(seconds) == {"cpu", "gpu"}
    assert all(1e-6 < value < 1 for value in seconds.values())
    # With a slow model the loader hides behind it, and the GPU's own augmentation does not.
    slow = augment_seconds(loader, runtime_of(), Duration(10.0, 0.0))
    assert slow["cpu"] == 10.0 < slow["gpu"]
    assert all(torch.equal(a, b.views[0]) for a, b in zip(before, loader, strict=True))


@pytest.mark.parametrize(
    ("cores", "workers", "seconds"),
    [
        (16, 8, 0.05),  # the card is what takes the time
        (4, 4, 0.06),  # 0.2 of loading, 0.04 of asking, on four cores
        (2, 2, 0.12),  # and on two: two loader processes are not two more cores
        (2, 1, 0.2),  # one loader process has one core
        (1, 1, 0.24),
        (2, 0, 0.24),  # all in this process
    ],
)
def test_a_batch_takes_what_the_slowest_part_takes(cores, workers, seconds):
    card = Duration(0.05, 0.04)
    assert batch_seconds(0.2, card, workers, cores) == pytest.approx(seconds)


@pytest.mark.parametrize(("cores", "best"), [(2, "gpu"), (4, "cpu"), (16, "cpu")])
def test_few_cores_leave_augmentation_to_the_card(monkeypatch, loader, cores, best):
    # A loader of 29 ms a batch, 2 of them drawing, and a model of 6 ms, 5 of them asking for it.
    monkeypatch.setattr(speed, "cores_here", lambda: cores)
    loader.num_workers = min(8, cores)
    made, sent, changed, drawn = (Duration(s, s / 2) for s in (0.029, 0.001, 0.004, 0.002))
    times = iter([made, sent, changed, drawn])
    monkeypatch.setattr(speed, "_duration", lambda *_: next(times))
    found = augment_seconds(loader, runtime_of(), Duration(0.006, 0.005))
    assert min(found, key=found.get) == best


def test_images_that_the_card_will_hold_are_not_loaded_to_measure(loader, monkeypatch):
    sent = []
    take = type(loader.dataset).__getitems__

    def look(self, keys):
        batch = take(self, keys)
        sent.append(getattr(batch, "images", "made"))
        return batch

    monkeypatch.setattr(type(loader.dataset), "__getitems__", look)
    model = Duration(1e-6, 0.0)
    augment_seconds(loader, runtime_of(), model, room_bytes=6 * 40 * 48 * 3)
    assert sent[-1] is None
    augment_seconds(loader, runtime_of(), model, room_bytes=6 * 40 * 48 * 3 - 1)
    assert sent[-1] is not None
    assert not loader.dataset.drawing and loader.dataset.with_images


def test_a_loader_leaves_augmentation_to_the_device_if_that_is_faster(
    loader, monkeypatch, tmp_path
):
    settings = Globals(task="regression", device="cpu", amp_dtype="off")
    measured = Measured(tmp_path / "m.json")
    tune(create_backbone("test_resnet"), loader, settings, runtime_of(), measured)
    assert not loader.dataset.drawing
    monkeypatch.setattr(speed, "_augment_on_gpu", lambda *_: True)
    tune(create_backbone("test_resnet"), loader, settings, runtime_of(), measured)
    assert loader.dataset.drawing and loader.on_device.resident


def test_a_gpu_that_is_not_there_cannot_augment(loader, tmp_path):
    settings = Globals(task="regression", device="cpu", amp_dtype="off", augment_on="gpu")
    with pytest.raises(ConfigError, match="globals/augment_on: gpu, but the device is cpu"):
        tune(nn.Flatten(), loader, settings, runtime_of(), Measured(tmp_path / "m.json"))


@pytest.mark.parametrize(("value", "meant"), [(True, "on"), (False, "off"), ("auto", "auto")])
def test_yaml_switches(value, meant):
    assert Globals(task="regression", compile=value).compile == meant
