import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from foldsmith.config import Globals
from foldsmith.data.cache.image_store import ImageStore
from foldsmith.data.datasets import ImageDataset
from foldsmith.data.loader import ImageLoader
from foldsmith.data.transforms import Normalize
from foldsmith.errors import ConfigError, FoldsmithError
from foldsmith.models import devices
from foldsmith.models.backbone import create_backbone
from foldsmith.models.runtime import Runtime, create_runtime, seed_everything
from foldsmith.utils.hashing import FileHashes


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
    monkeypatch.setattr(devices, "_cpu_has_bf16", lambda: native)
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
    model = create_runtime(settings(channels_last=wanted)).place(create_backbone("test_resnet"))
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


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_batch_is_normalised_on_its_device(channels_last, write_images):
    rng = np.random.default_rng(0)
    normalize = Normalize([0.5, 0.4, 0.3], [0.2, 0.25, 0.3])
    paths = write_images(5, 6, 7)
    store = ImageStore(None, FileHashes(Path("no such folder") / "hashes.json"))
    data = ImageDataset(store, paths, np.arange(5), None, [normalize], seed=0)
    images = np.stack([data.images[k] for k in range(5)])
    loader = ImageLoader(data, 5)
    (batch,) = loader
    assert batch.views[0].dtype == torch.uint8
    created = create_runtime(settings(channels_last=channels_last))
    for _ in range(2):
        moved = created.transfer(batch, loader.on_device).views[0]
        layout = torch.channels_last if channels_last else torch.contiguous_format
        assert moved.is_contiguous(memory_format=layout)
        # To the last bit what the transform does to one image.
        for image, found in zip(images, moved, strict=True):
            expected = normalize(image, rng)
            np.testing.assert_array_equal(found.permute(1, 2, 0).numpy(), expected)
    plain = ImageLoader(ImageDataset(store, paths, np.arange(5), None, [], seed=0), 5)
    assert torch.equal(created.transfer(batch, plain.on_device).views[0], batch.views[0])


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory",
    ],
)
def test_every_way_to_say_out_of_memory_is_understood(said):
    created = create_runtime(settings())
    with (
        pytest.raises(FoldsmithError, match="cpu: out of memory with a batch"),
        created.memory_errors("a batch"),
    ):
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="sizes"), created.memory_errors("a batch"):
        raise RuntimeError("sizes of tensors must match")


def test_only_batches_for_a_card_are_page_locked(write_images, tmp_path):
    store = ImageStore(None, FileHashes(tmp_path / "h" / "h.json"))
    data = ImageDataset(store, write_images(2, 8, 8), np.arange(2), None, [], seed=0)
    for wanted in (True, False):
        loader = ImageLoader(data, 2, pin_memory=wanted)
        loader.serve(torch.device("cpu"))
        assert not loader._loader.pin_memory
        loader.serve(torch.device("cuda"))
        assert loader._loader.pin_memory is wanted


def test_an_error_of_memory_keeps_none_of_it():
    kept = []

    def compute():
        activations = torch.zeros(4)
        kept.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("CUDA out of memory")

    with (
        pytest.raises(FoldsmithError) as held,
        create_runtime(settings()).memory_errors("a batch"),
    ):
        compute()
    assert held.value.__cause__ is not None and kept[0]() is None


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_a_process_with_a_limit_has_no_more_memory_than_that(monkeypatch, name):
    for function, value in {
        "mem_get_info": (90.0, 100.0),
        "memory_reserved": 30.0,
        "memory_allocated": 20.0,
    }.items():
        monkeypatch.setattr(torch.cuda, function, lambda _, value=value: value)
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    on_card = Runtime(torch.device(name), None, True, scaler)
    shares = {1.0: 70.0 + 10.0, 0.5: 20.0 + 10.0, 0.2: 10.0}
    for fraction, free in shares.items():
        monkeypatch.setattr(
            torch._C, "_cuda_getMemoryFraction", lambda _, f=fraction: f, raising=False
        )
        assert on_card.free_bytes() == pytest.approx(free)
