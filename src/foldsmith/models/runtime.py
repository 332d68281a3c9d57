"""Where and in which precision a model runs, and how a run is seeded."""

import os
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import nn

from foldsmith.config import Globals
from foldsmith.data.datasets import Batch
from foldsmith.errors import ConfigError, FoldsmithError


@dataclass(frozen=True)
class Runtime:
    """Device, precision and memory format of one run.

    Attributes:
        device: Where the model is.
        dtype: Autocast type, or None for full precision.
        channels_last: NHWC memory format.
        scaler: Gradient scaler; does nothing unless the precision is fp16.
    """

    device: torch.device
    dtype: torch.dtype | None
    channels_last: bool
    scaler: torch.amp.GradScaler

    def place(self, model: nn.Module) -> nn.Module:
        """Move a model to the device, in the run's memory format."""
        if self.channels_last:
            model.to(memory_format=torch.channels_last)
        return model.to(self.device)

    def free_bytes(self) -> float:
        """Return the free memory of a CUDA device; infinite for others, which use the host's."""
        if self.device.type != "cuda":
            return float("inf")
        return float(torch.cuda.mem_get_info(self.device)[0])

    def transfer(self, batch: Batch) -> Batch:
        """Copy a batch to the device; its views in the run's memory format."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        views = tuple(
            view.to(self.device, non_blocking=True).contiguous(memory_format=layout)
            for view in batch.views
        )
        return Batch(views, batch.targets.to(self.device, non_blocking=True), batch.rows)

    @contextmanager
    def memory_errors(self, what: str) -> Iterator[None]:
        """Turn an error of a device without enough memory into one for people.

        Args:
            what: What did not fit, and what to do.

        Raises:
            FoldsmithError: The block ran out of the device's memory.
        """
        try:
            yield
        except RuntimeError as error:
            # CUDA has a class for it, the CPU's allocator has not.
            out_of_memory = isinstance(error, torch.OutOfMemoryError)
            if not out_of_memory and "DefaultCPUAllocator" not in str(error):
                raise
            raise FoldsmithError(f"{self.device}: out of memory with {what}") from error

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which a model computes."""
        return torch.autocast(
            self.device.type, dtype=self.dtype or torch.bfloat16, enabled=self.dtype is not None
        )


def create_runtime(settings: Globals) -> Runtime:
    """Choose device and precision.

    Raises:
        ConfigError: The device does not exist, or fp16 is asked for on a CPU.
    """
    device = _device(settings.device)
    dtype = _dtype(device, settings.amp_dtype) if settings.enable_amp else None
    if settings.deterministic:
        # cuBLAS wants to know before its first call.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(settings.deterministic)
    torch.backends.cudnn.benchmark = settings.cudnn_benchmark and not settings.deterministic
    # Photos are small: OpenCV's own threads cost more than they bring.
    cv2.setNumThreads(1)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    return Runtime(device, dtype, settings.channels_last, scaler)


def seed_everything(*seeds: int) -> None:
    """Seed Python's, numpy's and torch's global generators from a tuple of numbers."""
    seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"globals/device: {name!r} cannot be used: {reason}") from None
    return device


def _dtype(device: torch.device, name: str) -> torch.dtype | None:
    if name == "off":
        return None
    if name == "bf16":
        return torch.bfloat16
    if name == "fp16":
        if device.type == "cpu":
            raise ConfigError("globals/amp_dtype: fp16 needs a GPU; use auto, bf16 or off")
        return torch.float16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
    if device.type == "cpu" and _cpu_has_bf16():
        return torch.bfloat16
    return None


def _cpu_has_bf16() -> bool:
    """Return whether the CPU multiplies bf16 natively; emulated it is slower than fp32."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, probe, lambda: False)()) for probe in probes)
