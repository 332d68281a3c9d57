"""Device and precision; unsupported features of Apple's GPU are replaced with a printed line."""

import logging
from functools import cache

import torch
from torch import nn

from foldsmith.distributed import process_group
from foldsmith.errors import ConfigError

logger = logging.getLogger(__name__)


def kind_of_device(name: str) -> str:
    """Return the kind of device that ``globals/device`` means here: ``cpu``, ``cuda`` or ``mps``.

    ``auto`` is a CUDA device if there is one, else Apple's GPU, else the CPU. Several processes of
    one training do not use Apple's GPU, which does not support collective operations.
    """
    if name != "auto":
        return name.partition(":")[0]
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available() and process_group.size() == 1:
        return "mps"
    return "cpu"


def create_device(name: str) -> torch.device:
    """Return the device that ``globals/device`` names.

    Raises:
        ConfigError: There is none, or it is not for several processes.
    """
    if name == "auto":
        name = kind_of_device(name)
    if name.startswith("cuda") and process_group.size() > 1:
        name = _card_of_process(name)
    if name.startswith("mps") and process_group.size() > 1:
        raise ConfigError(
            "globals/device: mps is for one process; set it to auto, or do without torchrun"
        )
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if device.type == "cuda" and device.index is not None:
            # Page-locked memory uses the current card: otherwise the first one would get a context
            # of several hundred MiB, whichever card trains.
            torch.cuda.set_device(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"globals/device: {name!r} cannot be used: {reason}") from None
    return device


def _card_of_process(name: str) -> str:
    """Return the card of this process, one of several on its machine."""
    if name != "cuda" and process_group.local_size() > 1:
        raise ConfigError(
            f"globals/device: {name} is one card, but {process_group.local_size()} processes of "
            "this training are on this machine; set it to auto"
        )
    if torch.cuda.device_count() < process_group.local_size():
        raise ConfigError(
            f"{process_group.local_size()} processes on a machine with "
            f"{torch.cuda.device_count()} GPUs; set torchrun's --nproc-per-node to the "
            "number of GPUs, or globals/device=cpu"
        )
    card = name if name != "cuda" else f"cuda:{process_group.local_rank()}"
    # Where NCCL finds it.
    torch.cuda.set_device(card)
    return card


def autocast_type(device: torch.device, asked: str) -> torch.dtype | None:
    """Return the type in which a device multiplies; None for full precision.

    Args:
        device: The device.
        asked: As in ``globals/amp_dtype``.

    Raises:
        ConfigError: fp16 is asked for on a CPU.
    """
    if asked == "off":
        return None
    if asked == "fp16" and device.type == "cpu":
        raise ConfigError("globals/amp_dtype: fp16 needs a GPU; use auto, bf16 or off")
    if asked != "auto":
        dtype = torch.bfloat16 if asked == "bf16" else torch.float16
        if device.type == "mps" and not _mps_computes_in(dtype):
            tell_once(f"globals/amp_dtype: {asked}: not on this GPU of Apple; float32 is taken")
            return None
        if device.type == "cuda" and dtype == torch.bfloat16 and not has_bf16(device):
            tell_once(
                f"globals/amp_dtype: bf16: {torch.cuda.get_device_name(device)} has no bf16 and "
                "emulates it, which is slow; auto takes fp16"
            )
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if has_bf16(device) else torch.float16
    if device.type == "cpu" and _cpu_has_bf16():
        return torch.bfloat16
    # On Apple's GPU half precision was not tried.
    return None


def has_bf16(device: torch.device | int) -> bool:
    """Return whether a CUDA device computes in bf16 itself: a T4, say, only emulates it."""
    if torch.version.hip:
        return True
    return torch.cuda.get_device_capability(device) >= (8, 0)


def instead_on_apple(key: str, value: object, instead: str) -> None:
    """Print that Apple's GPU does not support a setting, and the setting used instead."""
    tell_once(f"{key}: {value}: not on Apple's GPU; {instead}")


@cache
def tell_once(text: str) -> None:
    """Log a warning, once per process."""
    if process_group.is_main():
        logger.warning(text)


def _cpu_has_bf16() -> bool:
    """Return whether the CPU multiplies bf16 natively; emulated it is slower than fp32."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, probe, lambda: False)()) for probe in probes)


@cache
def _mps_computes_in(dtype: torch.dtype) -> bool:
    """Return whether Apple's GPU trains in a type: that depends on macOS and on torch's version."""
    device = torch.device("mps")
    try:
        model = nn.Linear(2, 2).to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("mps", enabled=dtype == torch.float16)
        with torch.autocast("mps", dtype=dtype):
            output = model(torch.ones(1, 2, device=device))
        scaler.scale(output.float().sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    except (RuntimeError, TypeError, NotImplementedError):
        return False
    return bool(output.dtype == dtype)
