"""Where and in which precision a model runs, and how a run is seeded."""

import ctypes
import importlib
import logging
import os
import random
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import torch
from torch import nn

from foldsmith.config.settings import Globals
from foldsmith.data.datasets import Batch, DrawnBatch
from foldsmith.data.on_device import OnDevice
from foldsmith.errors import FoldsmithError
from foldsmith.models.devices import autocast_type, create_device, instead_on_apple

logger = logging.getLogger(__name__)

# Out of memory in other words than those of torch's own allocator for CUDA, which has a class for
# it: of the allocators of the CPU and of Apple's GPU, of the driver (torch 2.8 and later raise an
# AcceleratorError), and of libraries that ask the driver themselves.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "MPS backend out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


@dataclass
class Runtime:
    """Device, precision and memory format of one run.

    Attributes:
        device: Where the model is.
        dtype: Autocast type, or None for full precision.
        channels_last: NHWC memory format.
        scaler: Gradient scaler; does nothing unless the precision is fp16.
        copying: CUDA stream of copies to the device, beside the computing stream; None on other
            devices.
    """

    device: torch.device
    dtype: torch.dtype | None
    channels_last: bool
    scaler: torch.amp.GradScaler
    copying: torch.cuda.Stream | None = None

    def place(self, model: nn.Module) -> nn.Module:
        """Move a model to the device, in the run's memory format."""
        if self.channels_last:
            model.to(memory_format=torch.channels_last)
        return model.to(self.device)

    @property
    def name(self) -> str:
        """Name of the GPU, or the kind of device."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return self.device.type

    def wait(self) -> None:
        """Wait until the device has done all that was asked of it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def free_bytes(self) -> float:
        """Return the free memory of a CUDA device; infinite for others, which use the host's."""
        if self.device.type != "cuda":
            return float("inf")
        free, total = torch.cuda.mem_get_info(self.device)
        reserved = torch.cuda.memory_reserved(self.device)
        # Memory limit of the process, if one was set; torch 2.6 cannot return it.
        fraction = getattr(torch.cuda, "get_per_process_memory_fraction", None)
        # By number: it refuses a device without one.
        allowed = total if fraction is None else fraction(self.device.index) * total
        # Freed memory in torch's cache is free too.
        kept = reserved - torch.cuda.memory_allocated(self.device)
        return float(max(0.0, min(free, allowed - reserved)) + kept)

    def forget_peak(self) -> None:
        """Measure the peak of the device's memory anew from now on."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_bytes(self) -> int:
        """Return the most that torch held of a CUDA device's memory; 0 for others."""
        if self.device.type != "cuda":
            return 0
        return torch.cuda.max_memory_allocated(self.device)

    def held_bytes(self) -> int:
        """Return how much torch holds of a CUDA device's memory now; 0 for others."""
        return torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else 0

    def transfer(self, batch: Batch | DrawnBatch, on_device: OnDevice) -> Batch:
        """Bring a batch to the device, normalised, its views in the run's memory format.

        Args:
            batch: A loader's.
            on_device: Transforms of the batch on the device.
        """
        if self.copying is None:
            return self._transfer(batch, on_device)
        computing = torch.cuda.current_stream(self.device)
        # Beside the computation of the batch before, which may still be going on.
        with torch.cuda.stream(self.copying):
            moved = self._transfer(batch, on_device)
        computing.wait_stream(self.copying)
        for tensor in (*moved.views, moved.targets):
            # Its memory must not be given away while it is computed with.
            tensor.record_stream(computing)
        return moved

    def _transfer(self, batch: Batch | DrawnBatch, on_device: OnDevice) -> Batch:
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        views = on_device.views(batch, self.device)
        targets = batch.targets
        if targets.dtype == torch.float64:
            # No task has made codes of them, so that nothing is computed from them; Apple's GPU has
            # no double precision.
            targets = targets.float()
        targets = targets.to(self.device, non_blocking=self.device.type == "cuda")
        return Batch(tuple(v.contiguous(memory_format=layout) for v in views), targets, batch.rows)

    @contextmanager
    def memory_errors(self, what: str) -> Iterator[None]:
        """Turn an error of a device without enough memory into one for people.

        Args:
            what: Description of the memory error and its remedy.

        Raises:
            FoldsmithError: The block ran out of the device's memory.
        """
        try:
            yield
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            # An error that a notebook shows is kept, and with it everything that was computed: free
            # that, so that the next try has the memory.
            traceback.clear_frames(error.__traceback__)
            raise FoldsmithError(f"{self.device}: out of memory with {what}") from error

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which a model computes."""
        return torch.autocast(
            self.device.type, dtype=self.dtype or torch.bfloat16, enabled=self.dtype is not None
        )


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error of torch means that a device has too little memory."""
    return isinstance(error, torch.OutOfMemoryError) or any(
        text in str(error) for text in _OUT_OF_MEMORY
    )


def create_runtime(settings: Globals) -> Runtime:
    """Choose device and precision.

    Raises:
        ConfigError: The device does not exist, or fp16 is asked for on a CPU.
    """
    device = create_device(settings.device)
    dtype = autocast_type(device, settings.amp_dtype) if settings.enable_amp else None
    channels_last = settings.channels_last is not False
    if channels_last and device.type == "mps":
        # Some of its operations have been wrong in this format, without an error.
        channels_last = False
        if settings.channels_last is True:
            instead_on_apple("globals/channels_last", "true", "the model keeps its channels first")
    if device.type == "cuda" or settings.deterministic:
        # cuBLAS reads it once, before its first call, and may choose other algorithms by it. So
        # it is set for every training: a deterministic one computes the same whether another
        # training came before it in this process or not.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if torch.are_deterministic_algorithms_enabled() != settings.deterministic:
        # Only if it changes: the call imports torch's compiler, which takes seconds.
        torch.use_deterministic_algorithms(settings.deterministic)
    torch.backends.cudnn.benchmark = settings.cudnn_benchmark and not settings.deterministic
    # Images are small: OpenCV's own threads cost more than they bring.
    cv2.setNumThreads(1)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    if device.type == "cpu":
        _keep_freed_memory()
    copying = None
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        copying = _copying_stream(index)
    layout = "channels_last" if channels_last else "channels first"
    logger.debug(f"device {device}, precision {dtype or torch.float32}, {layout}")
    return Runtime(device, dtype, channels_last, scaler, copying)


def seed_everything(*seeds: int) -> None:
    """Seed Python's, numpy's and torch's global generators from a tuple of numbers."""
    seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Leave the global generators of Python, numpy and torch's CPU as they were before."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@cache
def _copying_stream(card: int) -> torch.cuda.Stream:
    """Return the stream of copies to a card, one for all runs of this process.

    Torch keeps freed memory for each stream: a service would otherwise keep as much again for
    every request, up to torch's number of streams.
    """
    return torch.cuda.Stream(card)  # type: ignore[no-untyped-call]


@cache
def _keep_freed_memory() -> None:
    """Configure glibc's allocator to keep freed memory instead of returning it to the system.

    Every batch frees large blocks and asks for the same ones again; having the system clear
    them each time takes 10 to 20 percent of a training on a CPU. Other C libraries have no
    such switch, and are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    # From malloc.h: no mmap for large blocks, no trimming, growth in steps of 256 MiB.
    for parameter, value in ((-4, 0), (-1, 2**31 - 1), (-2, 256 * 2**20)):
        mallopt(parameter, value)


def weights_on(device: str) -> torch.device:
    """Return the device to build a model in (``with``); ``meta`` is for one without memory."""
    # Torch 2.6 may import this while it builds a model, which fails within meta.
    if device == "meta" and torch.__version__ < "2.7":
        importlib.import_module("torch._dynamo")
    return torch.device(device)
