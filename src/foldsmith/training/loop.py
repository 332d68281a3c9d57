"""The training loop: epochs, accumulation windows, precision, reported values."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytorch_pfn_extras as ppe
import torch

from foldsmith.data.loader import ImageLoader, worker_errors
from foldsmith.distributed import process_group
from foldsmith.distributed.collectives import batch_of, sum_gradients
from foldsmith.errors import FoldsmithError, TrainingError, one_line
from foldsmith.models.runtime import Runtime, seed_everything
from foldsmith.training.files import RESUME_FILE
from foldsmith.training.training_step import TrainingStep

# Batches between two looks at the losses: each look waits for the device.
CHECK_INTERVAL = 100


def optimizer_steps(loader: ImageLoader, grad_accum: int, max_epoch: int) -> int:
    """Return the optimizer steps of a whole training, for a scheduler's ``total_steps``.

    Args:
        loader: The training loader.
        grad_accum: Batches per optimizer step.
        max_epoch: Number of epochs.
    """
    return math.ceil(len(loader) / grad_accum) * max_epoch


def scaled_lr(base_lr: float, batch_size: int, grad_accum: int = 1) -> float:
    """Return ``base_lr * (batch_size * grad_accum) / 256`` (Goyal et al. 2017).

    Args:
        base_lr: Learning rate for 256 images per optimizer step.
        batch_size: Images per batch.
        grad_accum: Batches per optimizer step.
    """
    return base_lr * batch_size * grad_accum / 256


def window_weights(sizes: list[int], grad_accum: int) -> list[float]:
    """Return each batch's share in its accumulation window.

    A window has ``grad_accum`` batches; the last one of an epoch has the remaining ones. Batches
    are weighted by their images, so that the accumulated gradient equals that of the window as one
    batch.

    Args:
        sizes: Images of each batch of an epoch.
        grad_accum: Batches per window.

    Returns:
        Weights that sum to 1 in every window, one per batch.
    """
    weights = []
    for start in range(0, len(sizes), grad_accum):
        window = sizes[start : start + grad_accum]
        weights += [size / sum(window) for size in window]
    return weights


@worker_errors()
def run_training(
    manager: ppe.training.ExtensionsManager,
    step: TrainingStep,
    loader: ImageLoader,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None,
    runtime: Runtime,
    grad_accum: int,
    max_epoch: int,
    seed: int,
) -> None:
    """Train until the manager has seen all its epochs.

    Every epoch starts by seeding the global generators from (seed, epoch), so that a run
    which continues at an epoch equals one that never stopped. One manager iteration is one
    batch; the optimizer and the scheduler step once per accumulation window. Reported at the end
    of each epoch: the mean of the step's values (``train/loss``, ...), ``lr``,
    ``images_per_s`` and ``data_wait`` (share of the time spent waiting for the loader).

    Each of several processes computes its share of every batch. Loss, gradients and reported
    values are those of the whole batch, so that the number of processes changes only rounding, and
    random numbers of the network itself (dropout).

    Args:
        manager: Manager with its extensions; its epoch is where to start.
        step: The computation on one batch.
        loader: Training batches.
        optimizer: Optimizer of the step's model.
        scheduler: Per-step schedule, or None.
        runtime: Device and precision.
        grad_accum: Batches per optimizer step.
        max_epoch: Number of epochs of the whole training.
        seed: Seed of dropout and everything else that draws globally.

    Raises:
        TrainingError: The loss is not a number.
        FoldsmithError: The device has too little memory, or a loader process died.
    """
    sizes = loader.sampler.sizes()
    weights = window_weights(sizes, grad_accum)
    last = len(sizes) - 1
    per_epoch = math.ceil(len(sizes) / grad_accum)
    advice = partial(_memory_advice, runtime, loader, grad_accum)
    loader.serve(runtime.device)
    while not manager.stop_trigger:
        epoch = manager.epoch
        # Each process draws its own random numbers for dropout.
        seed_everything(seed, epoch, *([process_group.rank()] if process_group.rank() else []))
        loader.set_epoch(epoch)
        step.start_epoch(epoch)
        step.model.train()
        totals = _EpochTotals(sizes)
        batches = iter(loader)
        for index, weight in enumerate(weights):
            with totals.waiting():
                raw = next(batches)
                with advice():
                    batch = runtime.transfer(raw, loader.on_device)
            with manager.run_iteration(), advice(), batch_of(sizes[index]):
                with runtime.autocast():
                    scalars = step(batch, epoch, index)
                runtime.scaler.scale(scalars["loss"] * weight).backward()  # type: ignore[no-untyped-call]
                totals.add(scalars, sizes[index], optimizer.param_groups[0]["lr"])
                if (index + 1) % grad_accum == 0 or index == last:
                    _update(optimizer, scheduler, runtime)
                    done = epoch * per_epoch + index // grad_accum + 1
                    step.after_update(done / (per_epoch * max_epoch))
                if totals.unchecked == CHECK_INTERVAL or index == last:
                    totals.check(index, epoch, manager.out)
                if index == last:
                    ppe.reporting.report(totals.means())


def _update(
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None,
    runtime: Runtime,
) -> None:
    """Step the optimizer and the scheduler with the gradients of all processes."""
    sum_gradients(p for group in optimizer.param_groups for p in group["params"])
    runtime.scaler.step(optimizer)
    runtime.scaler.update()
    optimizer.zero_grad(set_to_none=True)
    if scheduler is not None:
        scheduler.step()


class _EpochTotals:
    """Values that an epoch reports: the mean of each scalar, the learning rate, the speed.

    The sums stay on the device: reading a loss at each step would stall a GPU.

    Args:
        sizes: Images of each batch of the epoch.
    """

    def __init__(self, sizes: list[int]) -> None:
        self._n_images = sum(sizes)
        self._sums: dict[str, torch.Tensor] = {}
        # Losses and rates of the batches since the last check.
        self._losses: list[torch.Tensor] = []
        self._lrs: list[float] = []
        self._lr = 0.0
        self._waited = 0.0
        self._started = time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of a block as waiting for images."""
        asked = time.perf_counter()
        yield
        self._waited += time.perf_counter() - asked

    def add(self, scalars: dict[str, torch.Tensor], size: int, lr: float) -> None:
        """Add one batch.

        Args:
            scalars: Result of the step; contains ``loss``.
            size: Images of the batch.
            lr: Learning rate at the batch.
        """
        for name, value in scalars.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach() * size
        self._losses.append(scalars["loss"].detach())
        self._lrs.append(lr)
        self._lr = lr

    @property
    def unchecked(self) -> int:
        """Number of batches since the last :meth:`check`."""
        return len(self._losses)

    def check(self, index: int, epoch: int, out: str) -> None:
        """Make sure that the losses since the last check, up to batch ``index``, are finite.

        Args:
            index: Number of the last batch, counted from 0.
            epoch: Counted from 0.
            out: Output folder, for the error.

        Raises:
            TrainingError: One is NaN or infinite.
        """
        finite = torch.isfinite(torch.stack(self._losses)).tolist()
        if not all(finite):
            first = finite.index(False)
            batch = index - len(finite) + first + 2
            raise _loss_error(out, epoch, batch, self._lrs[first])
        self._losses.clear()
        self._lrs.clear()

    def means(self) -> dict[str, float]:
        """Return the values that are logged at the end of the epoch."""
        # Reading the sums waits for the device: its work is part of the time.
        means = {f"train/{name}": float(s) / self._n_images for name, s in self._sums.items()}
        elapsed = time.perf_counter() - self._started
        speed = {"images_per_s": self._n_images / elapsed, "data_wait": self._waited / elapsed}
        return means | {"lr": self._lr} | speed


def _loss_error(out: str, epoch: int, batch: int, lr: float) -> TrainingError:
    """Return the error for a loss that is not finite, at a batch counted from 1."""
    resume = Path(out) / RESUME_FILE
    good = f"the state after epoch {epoch} is in {resume}" if resume.is_file() else "none is kept"
    return TrainingError(
        f"{out}: the loss is NaN or infinite at epoch {epoch + 1}, batch {batch} (learning rate "
        f"{lr:.3g}; last good snapshot: {good}). Lower the learning rate, or set "
        "globals/enable_amp=false"
    )


@contextmanager
def _memory_advice(runtime: Runtime, loader: ImageLoader, grad_accum: int) -> Iterator[None]:
    """Say which batch to try when the memory of the device does not hold this one."""
    batch = loader.sampler.batch_size
    smaller = max(1, batch // 2)
    with (
        _compile_errors(),
        _nondeterministic_errors(),
        runtime.memory_errors(
            f"batches of {batch} images; try loader/train/batch_size={smaller} "
            f"globals/grad_accum={math.ceil(batch * grad_accum / smaller)}, which is as many "
            "images per optimizer step"
        ),
    ):
        yield


@contextmanager
def _nondeterministic_errors() -> Iterator[None]:
    """Turn the error of an operation without a deterministic algorithm into one for people."""
    try:
        yield
    except RuntimeError as error:
        name, found, _ = str(error).partition(" does not have a deterministic implementation")
        if not found:
            raise
        raise FoldsmithError(
            f"globals/deterministic: {one_line(name)[:100]} has no deterministic algorithm on this "
            "device; set globals/deterministic=false, or take another model"
        ) from error


@contextmanager
def _compile_errors() -> Iterator[None]:
    """Turn a failure of ``torch.compile`` into an error for people."""
    try:
        yield
    except RuntimeError as error:
        # Its classes are in modules that take a second to import.
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        raise FoldsmithError(
            f"torch.compile fails: {one_line(error)[:200]}; set globals/compile=off"
        ) from error
