"""Snapshots: reading them safely and loading weights into a module."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from foldsmith.errors import ConfigError, one_line


def read_snapshot(path: Path) -> Any:
    """Read a file that ``torch.save`` wrote; only tensors and plain values are accepted.

    Raises:
        ConfigError: The file is missing, damaged, or holds anything else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        raise ConfigError(f"{path}: not a readable snapshot: {one_line(error)[:200]}") from None


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
