import json

import pytest
import torch
from torch import nn

from foldsmith.config import Globals
from foldsmith.models import speed
from foldsmith.models.backbone import create_backbone
from foldsmith.models.runtime import create_runtime
from foldsmith.models.speed import Measured, choose_layout, compile_pays, pass_seconds


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
    model = create_backbone("resnet10t")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    chosen = choose_layout(model, (2, 3, 32, 32), runtime_of(), Measured(tmp_path / "m.json"))
    assert chosen == (slower is torch.contiguous_format)
    # Measuring leaves the model as it was.
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_pass_takes_time():
    model = create_backbone("resnet10t")
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


@pytest.mark.parametrize(("value", "meant"), [(True, "on"), (False, "off"), ("auto", "auto")])
def test_yaml_switches(value, meant):
    assert Globals(task="regression", compile=value).compile == meant
