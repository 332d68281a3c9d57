"""The training loop: epochs, accumulation windows, precision, what is reported."""

import math
import time

import pytorch_pfn_extras as ppe
import torch

from foldsmith.config import Types
from foldsmith.data.loader import PhotoLoader
from foldsmith.errors import FoldsmithError
from foldsmith.models.runtime import Runtime, seed_everything
from foldsmith.training.steps import Step


def optimizer_steps(loader: PhotoLoader, grad_accum: int, max_epoch: int) -> int:
    """Return the optimizer steps of a whole training, for a scheduler's ``total_steps``."""
    return math.ceil(len(loader) / grad_accum) * max_epoch


def scaled_lr(base_lr: float, batch_size: int, grad_accum: int = 1) -> float:
    """Return ``base_lr * (batch_size * grad_accum) / 256`` (Goyal et al. 2017)."""
    return base_lr * batch_size * grad_accum / 256


def window_weights(sizes: list[int], grad_accum: int) -> list[float]:
    """Return each batch's share in its accumulation window.

    A window is ``grad_accum`` batches, the last one of an epoch what is left. Batches count
    by their photos, so that the accumulated gradient is that of the window as one batch.

    Args:
        sizes: Photos of each batch of an epoch.
        grad_accum: Batches per window.

    Returns:
        Weights that sum to 1 in every window, one per batch.
    """
    weights = []
    for start in range(0, len(sizes), grad_accum):
        window = sizes[start : start + grad_accum]
        weights += [size / sum(window) for size in window]
    return weights


def run_training(
    manager: ppe.training.ExtensionsManager,
    step: Step,
    loader: PhotoLoader,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None,
    runtime: Runtime,
    grad_accum: int,
    seed: int,
) -> None:
    """Train until the manager has seen all its epochs.

    Every epoch starts by seeding the global generators from (seed, epoch), so that a run
    which continues at an epoch equals one that never stopped. One manager iteration is one
    batch; the optimizer and the scheduler step once per accumulation window. Reported at the
    end of each epoch: the mean of what the step returns (``train/loss``, ...), ``lr``,
    ``images_per_s`` and ``data_wait`` (share of the time spent waiting for the loader).

    Args:
        manager: Manager with its extensions; its epoch is where to start.
        step: What happens to one batch.
        loader: Training batches.
        optimizer: Optimizer of the step's model.
        scheduler: Per-step schedule, or None.
        runtime: Device and precision.
        grad_accum: Batches per optimizer step.
        seed: Seed of dropout and everything else that draws globally.

    Raises:
        FoldsmithError: The loss of an epoch is not a number.
    """
    sizes = loader.sampler.sizes()
    weights = window_weights(sizes, grad_accum)
    last = len(sizes) - 1
    while not manager.stop_trigger:
        epoch = manager.epoch
        seed_everything(seed, epoch)
        loader.set_epoch(epoch)
        step.model.train()
        sums: dict[str, torch.Tensor] = {}
        waited, started = 0.0, time.perf_counter()
        batches = iter(loader)
        for index, weight in enumerate(weights):
            asked = time.perf_counter()
            batch = runtime.transfer(next(batches))
            waited += time.perf_counter() - asked
            with manager.run_iteration():
                with runtime.autocast():
                    scalars = step(batch, epoch, index)
                runtime.scaler.scale(scalars["loss"] * weight).backward()  # type: ignore[no-untyped-call]
                # Sums stay on the device: reading a loss each step would stall a GPU.
                for name, value in scalars.items():
                    sums[name] = sums.get(name, 0) + value.detach() * sizes[index]
                if (index + 1) % grad_accum == 0 or index == last:
                    lr = optimizer.param_groups[0]["lr"]
                    runtime.scaler.step(optimizer)
                    runtime.scaler.update()
                    optimizer.zero_grad(set_to_none=True)
                    if scheduler is not None:
                        scheduler.step()
                if index == last:
                    means = {f"train/{name}": float(s) / sum(sizes) for name, s in sums.items()}
                    if not math.isfinite(means["train/loss"]):
                        raise FoldsmithError(
                            f"the loss of epoch {epoch + 1} is {means['train/loss']} (learning "
                            f"rate {lr:.3g}): lower the learning rate, or set "
                            "globals/enable_amp=false"
                        )
                    elapsed = time.perf_counter() - started
                    means |= {
                        "lr": lr,
                        "images_per_s": sum(sizes) / elapsed,
                        "data_wait": waited / elapsed,
                    }
                    ppe.reporting.report(means)


TYPES: Types = {"optimizer_steps": optimizer_steps, "scaled_lr": scaled_lr}
