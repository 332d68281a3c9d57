"""Snapshots: reading them safely and loading weights into a module."""

import argparse
import pickle
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foldsmith.errors import ConfigError, one_line
from foldsmith.targets.scale_buffer import take_scale

# Bytes that are checked at a time.
_CHUNK = 2**20

# Where timm's, Lightning's and others' files have the weights, the first that is there.
_STATE_DICTS = (
    *("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "backbone"),
    *("net", "weights"),
)

# How the names of a classifier begin, where timm's configuration of a model does not say.
_CLASSIFIERS = ("fc", "head", "head_dist", "heads", "classifier", "last_linear")


def read_snapshot(path: Path) -> Any:
    """Read a file that ``torch.save`` wrote; only tensors and plain values are accepted.

    The checksums that ``torch.save`` writes, and ``torch.load`` ignores, are verified: a flipped
    bit of a weight is an error.

    Raises:
        ConfigError: The file is missing, damaged, or holds anything else.
    """
    try:
        _verify_records(path)
        # The arguments of a training, which timm's own script keeps beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # problems of a file are reported below
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        raise ConfigError(f"{path}: not a readable snapshot: {_reason(path, error)}") from None


def _reason(path: Path, error: Exception) -> str:
    """Return why torch does not read a file, without its advice to run the file's code."""
    text = one_line(error)
    if "weights_only" not in text and not isinstance(error, pickle.UnpicklingError):
        return text[:200]
    try:
        objects = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # of a damaged or foreign file again
        objects = []
    if not objects:
        return "it is damaged, or was not written by torch.save"
    return (
        f"it holds more than tensors and plain values ({', '.join(sorted(objects)[:3])}), which "
        "would run code; save the tensors alone: torch.save(model.state_dict(), FILE)"
    )


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
    """Load a snapshot of foldsmith into a module; every key and shape must match.

    A target scale in the file becomes a buffer of the module (see
    :mod:`foldsmith.targets.scale_buffer`). Keys that begin with the module's ``training_only`` are
    left out.

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
    take_scale(module, state)
    _load(module, state, path)


def load_backbone(backbone: nn.Module, path: Path) -> None:
    """Load weights that were trained here or elsewhere into a backbone.

    A file of ``torch.save`` or safetensors: a state dict, or a dict with one in it
    (``state_dict``, ``model``, ... as timm and Lightning write). The names may have something
    before them (``module.``, ``backbone.``), and a classifier is left out.

    Args:
        backbone: A model of timm without its classifier.
        path: The file.

    Raises:
        ConfigError: The file is missing or not a snapshot, has weights of another model or of
            several, or numbers that are not finite.
    """
    state = _state_dict(path)
    own = backbone.state_dict()
    prefix = _prefix_of(own, state, path)
    inside = {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
    # Counters of BatchNorm, which older files lack.
    kept = {k: v for k, v in own.items() if k.endswith("num_batches_tracked") and k not in inside}
    classifiers = _classifiers_of(backbone)
    inside = {
        key: value for key, value in inside.items() if key in own or not key.startswith(classifiers)
    }
    channels = [
        int(inside[key].shape[1])
        for key, value in own.items()
        if key in inside and value.ndim == 4 and _other_channels(value, inside[key])
    ]
    if len(channels) == 1 and inside.keys() | kept.keys() == own.keys():
        raise ConfigError(
            f"{path}: these are weights for images of {channels[0]} channels; here they have 3"
        )
    _load(backbone, kept | inside, path)


def _state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file by name."""
    found = _read_safetensors(path) if _is_safetensors(path) else read_snapshot(path)
    for name in _STATE_DICTS if isinstance(found, dict) else ():
        # As timm: the moving average first.
        if isinstance(found.get(name), dict) and found[name]:
            found = found[name]
            break
    if not isinstance(found, dict) or not found or not all(map(torch.is_tensor, found.values())):
        raise ConfigError(
            f"{path}: does not hold the weights of a model: tensors by name, alone or as one of "
            f"{', '.join(_STATE_DICTS)}"
        )
    return {str(key): value for key, value in found.items()}


def _is_safetensors(path: Path) -> bool:
    """Return whether a file begins as safetensors do: eight bytes of length, then JSON."""
    try:
        with path.open("rb") as file:
            return file.read(9)[8:] == b"{"
    except OSError:
        return False


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: not a readable safetensors file: {one_line(error)}") from None


def _prefix_of(
    own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], path: Path
) -> str:
    """Return the prefix of the backbone's names in a file: the one that most of them have."""
    counts: Counter[str] = Counter()
    by_last: dict[str, list[str]] = {}
    for key in own:
        by_last.setdefault(key.rsplit(".", 1)[-1], []).append(key)
    for key in state:
        for name in by_last.get(key.rsplit(".", 1)[-1], ()):
            if key == name or key.endswith(f".{name}"):
                counts[key.removesuffix(name)] += 1
    if not counts:
        return ""
    most = max(counts.values())
    best = sorted((prefix for prefix in counts if counts[prefix] == most), key=len)
    if most >= len(own) / 2 and len(best) > 1:
        names = ", ".join(prefix or "none" for prefix in best[:4])
        raise ConfigError(
            f"{path}: holds several such models (their names begin with {names}); keep one"
        )
    return best[0]


def _classifiers_of(backbone: nn.Module) -> tuple[str, ...]:
    """Return how the names of a classifier begin, which foldsmith's backbones are without."""
    known = (getattr(backbone, "pretrained_cfg", None) or {}).get("classifier") or ()
    names = {known} if isinstance(known, str) else set(known)
    return tuple(f"{name}." for name in (*sorted(names), *_CLASSIFIERS))


def _other_channels(own: torch.Tensor, found: torch.Tensor) -> bool:
    """Return whether a convolution differs in the channels that come in, and in nothing else."""
    return (
        found.ndim == 4
        and own.shape[1] == 3 != found.shape[1]
        and own.shape[:1] + own.shape[2:] == found.shape[:1] + found.shape[2:]
    )


def _load(module: nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
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
    for key, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ConfigError(f"{path}: {key} holds numbers that are NaN or infinite")
    module.load_state_dict(state)
