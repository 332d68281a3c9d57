"""Snapshots: reading them safely and loading weights into a module."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foldsmith.errors import ConfigError, one_line

# Bytes that are checked at a time.
_CHUNK = 2**20


def read_snapshot(path: Path) -> Any:
    """Read a file that ``torch.save`` wrote; only tensors and plain values are accepted.

    The checksums that ``torch.save`` writes, and ``torch.load`` ignores, are verified: a flipped
    bit of a weight is an error.

    Raises:
        ConfigError: The file is missing, damaged, or holds anything else.
    """
    try:
        _verify_records(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        raise ConfigError(f"{path}: not a readable snapshot: {one_line(error)[:200]}") from None


def _verify_records(path: Path) -> None:
    """Compare each record of a snapshot with its CRC-32.

    Files of torch before 1.6 have no records and no checksums, and torch can be told to write
    none, in which case no record fits: both are left to ``torch.load``.

    Raises:
        zipfile.BadZipFile: The file is damaged.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        damaged = [record.filename for record in records if not _is_whole(archive, record)]
    if damaged and len(damaged) < len(records):
        raise zipfile.BadZipFile(f"the checksum of {damaged[0]} does not match: it is damaged")


def _is_whole(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(record) as content:
            while content.read(_CHUNK):
                pass
    except zipfile.BadZipFile:
        return False
    return True


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a snapshot into a module; every key and shape must match.

    What the module says is for training only (``training_only``, how such keys begin) is left
    out.

    Raises:
        ConfigError: The file is no snapshot of weights, or keys are missing, left over or of
            another shape; the message lists them.
    """
    state = read_snapshot(path)
    if not isinstance(state, dict) or not all(torch.is_tensor(value) for value in state.values()):
        raise ConfigError(f"{path}: does not hold the weights of a model (tensors by name)")
    left_out = getattr(module, "training_only", None)
    if left_out is not None:
        state = {key: value for key, value in state.items() if not key.startswith(left_out)}
    own = module.state_dict()
    missing = sorted(own.keys() - state.keys())
    unexpected = sorted(state.keys() - own.keys())
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in sorted(own.keys() & state.keys())
        if own[key].shape != state[key].shape
    ]
    problems = [
        f"{len(keys)} {what}: {', '.join(keys[:8])}{', ...' if len(keys) > 8 else ''}"
        for what, keys in (
            ("keys missing in the file", missing),
            ("keys unknown to the model", unexpected),
            ("keys of another shape", shapes),
        )
        if keys
    ]
    if problems:
        raise ConfigError(f"{path}: these are weights of another model: {'; '.join(problems)}")
    module.load_state_dict(state)
