"""Memory format, compiling and place of augmentation are measured once, and the answer is kept."""

import json

import numpy as np
import pytest
from torch import nn

from foldsmith.config import Globals
from foldsmith.data.cache.image_store import ImageStore
from foldsmith.data.datasets import ImageDataset
from foldsmith.data.loader import ImageLoader
from foldsmith.data.transforms import HorizontalFlip, Normalize, RandomResizedCrop
from foldsmith.models import measured_choices as speed
from foldsmith.models.backbone import create_backbone
from foldsmith.models.measured_choices import (
    Duration,
    Measured,
    augment_seconds,
    choose_layout,
    compile_pays,
    tune,
)
from foldsmith.models.runtime import create_runtime
from foldsmith.utils.hashing import FileHashes

pytestmark = pytest.mark.cuda

SHAPE = (8, 3, 64, 64)


@pytest.fixture
def loader(write_images, tmp_path):
    store = ImageStore(tmp_path / "store", FileHashes(tmp_path / "h" / "h.json"))
    steps = [RandomResizedCrop(64, 64), HorizontalFlip(), Normalize([0.5] * 3, [0.2] * 3)]
    data = ImageDataset(store, write_images(16, 70, 80), np.arange(16), None, steps, seed=0)
    return ImageLoader(data, 8, shuffle=True)


@pytest.fixture
def eager_on_cpu(device, monkeypatch):
    """Compile on a card; on the CPU, where the compiler takes minutes, only trace the model."""
    if device == "cpu":
        real = nn.Module.compile
        monkeypatch.setattr(nn.Module, "compile", lambda self: real(self, backend="eager"))


@pytest.fixture
def once(monkeypatch):
    """Let every later measurement fail."""

    def from_now_on():
        def measured(*_):
            raise AssertionError("measured again")

        monkeypatch.setattr(speed, "pass_seconds", measured)

    return from_now_on


def test_the_memory_format_is_measured_once(backbone, runtime_of, tmp_path, once, record_property):
    measured, model = Measured(tmp_path / "m.json"), create_backbone(backbone)
    chosen = choose_layout(model, SHAPE, runtime_of(), measured)
    (answer,) = json.loads((tmp_path / "m.json").read_text()).values()
    assert set(answer["seconds"]) == {"channels_last", "contiguous"}
    record_property("seconds", answer["seconds"])
    once()
    assert choose_layout(model, SHAPE, runtime_of(), Measured(tmp_path / "m.json")) is chosen


def test_compiling_is_measured_once(
    runtime_of, tmp_path, once, eager_on_cpu, monkeypatch, record_property
):
    monkeypatch.setattr(speed, "_WORTH_COMPILING_S", 0.0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    runtime = runtime_of()
    model = runtime.place(nn.Sequential(*layers, nn.Flatten()))
    pays = compile_pays(model, SHAPE, runtime, 10, Measured(tmp_path / "m.json"))
    (answer,) = json.loads((tmp_path / "m.json").read_text()).values()
    assert set(answer["seconds"]) == {"eager", "compiled"}
    record_property("seconds", answer["seconds"])
    # What decides whether it is asked at all is one pass, every time.
    monkeypatch.setattr(speed, "pass_seconds", lambda *_: 1.0)
    monkeypatch.setattr(nn.Module, "compile", lambda self: pytest.fail("compiled again"))
    assert compile_pays(model, SHAPE, runtime, 10, Measured(tmp_path / "m.json")) is pays


def test_the_place_of_augmentation_is_measured(loader, runtime_of, record_property):
    seconds = augment_seconds(loader, runtime_of(), Duration(1e-6, 0.0))
    assert set(seconds) == {"cpu", "gpu"} and min(seconds.values()) > 0
    record_property("seconds", seconds)


def test_a_training_takes_the_answers_and_keeps_them(backbone, loader, device, tmp_path):
    settings = Globals(task="regression", device=device, compile="auto", max_epoch=2)
    runtime = create_runtime(settings)
    measured = Measured(tmp_path / "m.json")
    model = tune(create_backbone(backbone), loader, settings, runtime, measured)
    chosen = runtime.channels_last, loader.dataset.drawing
    on_card = next(model.parameters()).device.type
    assert on_card == device
    asked = set()
    if (tmp_path / "m.json").exists():
        answers = json.loads((tmp_path / "m.json").read_text()).values()
        asked = {answer["question"]["what"] for answer in answers}
    # A CPU has nothing to choose.
    assert asked == ({"layout", "augment"} if device == "cuda" else set())
    if device == "cuda":
        second = create_runtime(settings)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Measured, "get", _only_known)
            again = ImageLoader(loader.dataset, 8, shuffle=True)
            loader.dataset.drawing, loader.dataset.with_images = False, True
            tune(create_backbone(backbone), again, settings, second, measured)
            assert (second.channels_last, again.dataset.drawing) == chosen
    batch = runtime.transfer(next(iter(loader)), loader.on_device)
    assert batch.views[0].shape == SHAPE and batch.views[0].device.type == device


def _only_known(self, question, measure):
    def measured_again():
        raise AssertionError(f"measured again: {question['what']}")

    return _get(self, question, measured_again)


_get = Measured.get
