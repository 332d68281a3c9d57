import numpy as np
import pytest
import torch

from foldsmith.config import Globals
from foldsmith.errors import ConfigError
from foldsmith.models import runtime
from foldsmith.models.backbone import create_backbone
from foldsmith.models.runtime import create_runtime, seed_everything


def settings(**values):
    return Globals(task="regression", device="cpu", **values)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ({"amp_dtype": "off"}, None),
        ({"enable_amp": False, "amp_dtype": "bf16"}, None),
        ({"amp_dtype": "bf16"}, torch.bfloat16),
    ],
)
def test_precision_is_what_is_asked_for(values, dtype):
    created = create_runtime(settings(**values))
    assert created.dtype == dtype
    with created.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (dtype or torch.float32)
    assert not created.scaler.is_enabled()


@pytest.mark.parametrize("native", [True, False])
def test_auto_follows_the_hardware(monkeypatch, native):
    monkeypatch.setattr(runtime, "_cpu_has_bf16", lambda: native)
    assert create_runtime(settings()).dtype == (torch.bfloat16 if native else None)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"amp_dtype": "fp16"}, "fp16 needs a GPU"), ({"device": "gpu7"}, "globals/device: 'gpu7'")],
)
def test_what_cannot_be_had_is_said(values, message):
    with pytest.raises(ConfigError, match=message):
        create_runtime(Globals(task="regression", **{"device": "cpu", **values}))


@pytest.mark.parametrize("wanted", [True, False])
def test_memory_format(wanted):
    model = create_runtime(settings(channels_last=wanted)).place(create_backbone("resnet10t"))
    weight = model.layer1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == wanted


def test_deterministic_is_switched_on_and_off():
    create_runtime(settings(deterministic=True))
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    create_runtime(settings())
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark


def test_seeding_repeats_and_separates():
    def draw(*seeds):
        seed_everything(*seeds)
        return torch.rand(3).tolist(), np.random.rand(3).tolist()

    assert draw(1, 2) == draw(1, 2)
    assert draw(1, 2) != draw(2, 1)
