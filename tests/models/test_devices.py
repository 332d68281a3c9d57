"""Which device and precision are chosen, with cards that this machine does not have."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from foldsmith.config import Globals
from foldsmith.data.loader import workers_for
from foldsmith.distributed import process_group
from foldsmith.errors import ConfigError
from foldsmith.models import descriptors, devices
from foldsmith.models import measured_choices as speed
from foldsmith.models import runtime as runtimes
from foldsmith.models.devices import autocast_type, kind_of_device
from foldsmith.models.runtime import Runtime, create_runtime

CUDA, MPS, CPU = (torch.device(kind) for kind in ("cuda", "mps", "cpu"))


@pytest.fixture(autouse=True)
def anew():
    devices.tell_once.cache_clear()
    yield
    devices.tell_once.cache_clear()


def has(monkeypatch, cuda=False, mps=False):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "processes", "kind"),
    [
        (True, True, 1, "cuda"),
        (True, False, 4, "cuda"),
        (False, True, 1, "mps"),
        (False, False, 1, "cpu"),
        (False, True, 2, "cpu"),  # gloo sends no tensors of Apple's GPU
    ],
)
def test_auto_takes_the_fastest_device(monkeypatch, cuda, mps, processes, kind):
    has(monkeypatch, cuda, mps)
    monkeypatch.setattr(process_group, "size", lambda: processes)
    assert kind_of_device("auto") == kind
    assert kind_of_device("cpu") == "cpu" and kind_of_device("cuda:1") == "cuda"


def test_auto_on_apple(monkeypatch):
    has(monkeypatch, mps=True)
    asked = []
    monkeypatch.setattr(torch, "empty", lambda *_, device: asked.append(device))
    assert devices.create_device("auto") == MPS == asked[0]
    monkeypatch.setattr(process_group, "size", lambda: 2)
    with pytest.raises(ConfigError, match="globals/device: mps is for one process"):
        devices.create_device("mps")


def test_a_gpu_of_apple_that_is_not_there_is_said():
    with pytest.raises(ConfigError, match="globals/device: 'mps' cannot be used"):
        devices.create_device("mps")


@pytest.mark.parametrize(
    ("kind", "cores", "workers"),
    [
        ("cuda", 1, 1),
        ("cuda", 2, 2),  # Colab, and each of Kaggle's two cards
        ("cuda", 4, 4),  # Kaggle with one card
        ("cuda", 16, 8),
        ("cpu", 2, 0),
        ("cpu", 64, 0),
        ("mps", 12, 0),
    ],
)
def test_loader_processes_by_cores(kind, cores, workers):
    assert workers_for(kind, cores) == workers


@pytest.mark.parametrize(
    ("capability", "asked", "dtype", "note"),
    [
        ((7, 5), "auto", torch.float16, ""),  # T4: bf16 would be emulated
        ((6, 0), "auto", torch.float16, ""),  # P100
        ((8, 0), "auto", torch.bfloat16, ""),
        ((9, 0), "auto", torch.bfloat16, ""),
        ((7, 5), "bf16", torch.bfloat16, "emulates it, which is slow; auto takes fp16"),
        ((8, 6), "bf16", torch.bfloat16, ""),
        ((8, 6), "off", None, ""),
    ],
)
def test_precision_by_the_card(monkeypatch, capsys, capability, asked, dtype, note):
    # As a T4 says: torch counts emulation as support.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    for _ in range(2):
        assert autocast_type(CUDA, asked) == dtype
    told = capsys.readouterr().err
    assert note in told and told.count("\n") == bool(note)


@pytest.mark.parametrize(
    ("asked", "able", "dtype"),
    [
        ("auto", True, None),
        ("bf16", True, torch.bfloat16),
        ("bf16", False, None),  # before macOS 14
        ("fp16", True, torch.float16),
        ("fp16", False, None),
        ("off", True, None),
    ],
)
def test_precision_on_apple(monkeypatch, capsys, asked, able, dtype):
    monkeypatch.setattr(devices, "_mps_computes_in", lambda _: able)
    assert autocast_type(MPS, asked) == dtype
    told = capsys.readouterr().err
    expected = "" if able else f"warning: globals/amp_dtype: {asked}: not on this GPU of Apple"
    assert told.startswith(expected) and told.count("\n") == (not able)


def test_apple_is_asked_by_trying_it():
    # There is none here: a real attempt, which fails.
    devices._mps_computes_in.cache_clear()
    assert not devices._mps_computes_in(torch.float16)
    devices._mps_computes_in.cache_clear()


def on_apple(monkeypatch, **values):
    monkeypatch.setattr(runtimes, "create_device", lambda _: MPS)
    return create_runtime(Globals(task="regression", **values))


@pytest.mark.parametrize(("value", "lines"), [("auto", 0), (False, 0), (True, 1)])
def test_channels_stay_first_on_apple(monkeypatch, capsys, value, lines):
    assert not on_apple(monkeypatch, channels_last=value).channels_last
    assert capsys.readouterr().err.count("\n") == lines


def test_what_apple_cannot_do_is_left_out_with_a_line(monkeypatch, capsys):
    settings = Globals(task="regression", augment_on="gpu", compile="on")
    created = on_apple(monkeypatch)

    class Loader:
        dataset = type("Dataset", (), {"view": lambda *_: torch.zeros(8, 8, 3), "views": ()})()
        sampler = type("Sampler", (), {"batch_size": 4})()

    monkeypatch.setattr(Runtime, "place", lambda self, model: model)
    monkeypatch.setattr(nn.Module, "compile", lambda self: pytest.fail("compiled"))
    model = nn.Flatten()
    assert speed.tune(model, Loader(), settings, created, None) is model
    told = capsys.readouterr().err.splitlines()
    assert [line.split(";")[0] for line in told] == [
        "warning: globals/compile: on: not on Apple's GPU",
        "warning: globals/augment_on: gpu: not on Apple's GPU",
    ]


def test_colours_are_pooled_on_the_cpu_where_the_device_cannot(monkeypatch, capsys):
    pool, calls = nn.functional.adaptive_avg_pool2d, []

    class OnDevice(torch.Tensor):
        """A tensor that says that it is elsewhere."""

        device = MPS

    def refuse(values, size):
        calls.append(type(values))
        if isinstance(values, OnDevice):
            raise RuntimeError("Adaptive pool MPS: input sizes must be divisible by output sizes")
        return pool(values, size)

    lab = torch.rand(2, 3, 30, 30)
    expected = descriptors._layout(lab)
    monkeypatch.setattr(nn.functional, "adaptive_avg_pool2d", refuse)
    there = lab.as_subclass(OnDevice)
    monkeypatch.setattr(OnDevice, "cpu", lambda self: lab, raising=False)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device: self)
    assert torch.equal(descriptors._layout(there), expected)
    assert calls == [OnDevice, torch.Tensor]
    assert "mean colours of ImageDescriptors are computed on the CPU" in capsys.readouterr().err


@pytest.mark.parametrize(("own", "expected"), [(None, "1"), ("0", "0")])
def test_the_fallback_is_set_before_torch_unless_the_user_has(monkeypatch, own, expected):
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK", raising=False)
    if own is not None:
        monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", own)
    code = (
        "import foldsmith, os, sys; "
        "print(os.environ['PYTORCH_ENABLE_MPS_FALLBACK'], 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == [expected, "False"]
