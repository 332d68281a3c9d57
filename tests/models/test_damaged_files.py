"""Files of weights and fitted arrays carry checksums: damage is an error, never other numbers."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from foldsmith.errors import ConfigError, FoldsmithError, OutputError
from foldsmith.models.fitted_arrays import read_arrays, write_arrays
from foldsmith.models.snapshots import load_weights, read_snapshot


def flipped(content: bytes, bit: int) -> bytes:
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def as_bytes(value) -> list:
    """Return everything in plain containers, arrays and tensors as their bytes."""
    if isinstance(value, dict):
        return [[key, as_bytes(item)] for key, item in sorted(value.items())]
    if isinstance(value, list):
        return [as_bytes(item) for item in value]
    array = np.asarray(value)
    return [array.dtype.str, array.shape, array.tobytes()]


def torch_file(path):
    torch.manual_seed(0)
    weights = {f"layer{k}": torch.randn(20, 30) for k in range(3)}
    torch.save({"models": weights, "log": [{"epoch": 1, "loss": 0.5}]}, path)
    return read_snapshot


def arrays_file(path):
    rng = np.random.default_rng(0)
    arrays = {f"part.{k}": rng.normal(size=(20, k)) for k in range(4)}
    write_arrays(path, arrays | {"degree": np.asarray(3), "flags": np.array([True, False])})
    return read_arrays


@pytest.mark.parametrize("write", [torch_file, arrays_file])
def test_a_flipped_bit_anywhere_is_an_error_or_changes_nothing(tmp_path, write):
    path = tmp_path / "file"
    read = write(path)
    content, whole = path.read_bytes(), as_bytes(read(path))
    bits = random.Random(0).sample(range(8 * len(content)), 300)
    # Every bit of the header or of the last records, too.
    bits += [*range(0, 1500, 7), *range(8 * len(content) - 1500, 8 * len(content), 7)]
    noticed = 0
    for bit in bits:
        path.write_bytes(flipped(content, bit))
        try:
            assert as_bytes(read(path)) == whole, f"bit {bit} changes what is read"
        except FoldsmithError as error:
            assert str(path) in str(error)
            assert "\n" not in str(error)
            noticed += 1
    assert noticed > len(bits) / 2


def test_a_lost_page_of_weights_is_noticed(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"weight": torch.ones(100_000)}, path)
    content = bytearray(path.read_bytes())
    content[100_000:104_096] = bytes(4096)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"checksum of .*data/0 does not match: it is damaged"):
        load_weights(nn.Linear(100_000, 1, bias=False), path)


def test_weights_that_others_wrote_without_checksums_are_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"weight": torch.ones(3)}, tmp_path / "new.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    torch.save(
        {"weight": torch.ones(3)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False
    )
    for name in ("new.pth", "old.pth"):
        assert torch.equal(read_snapshot(tmp_path / name)["weight"], torch.ones(3))


def test_arrays_of_another_program_are_no_fitted_arrays(tmp_path):
    from safetensors.numpy import save_file

    save_file({"weights": np.ones(3)}, tmp_path / "blend.safetensors")
    with pytest.raises(OutputError, match="checksum"):
        read_arrays(tmp_path / "blend.safetensors")
