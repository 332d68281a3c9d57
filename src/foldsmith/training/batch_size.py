"""The largest batch that fits into the memory of the device."""

import torch

from foldsmith.data.datasets import Batch
from foldsmith.data.loader import ImageLoader
from foldsmith.errors import FoldsmithError
from foldsmith.models.runtime import Runtime, is_out_of_memory
from foldsmith.training.training_step import TrainingStep
from foldsmith.utils.formatting import counted

# Fraction of a GPU's free memory that a batch may fill.
_FILL = 0.9


def propose_batch(batch_size: int, grad_accum: int, fits: int) -> tuple[int, int]:
    """Return a batch size and accumulation with the same number of images per optimizer step.

    Args:
        batch_size: Batch size of the experiment.
        grad_accum: Its batches per optimizer step.
        fits: Largest batch that the device holds, at least 1.

    Returns:
        The largest fitting divisor of ``batch_size * grad_accum``, and the number of batches per
        step; the experiment's own values if they fit.
    """
    if batch_size <= fits:
        return batch_size, grad_accum
    images = batch_size * grad_accum
    batch = max(size for size in range(1, fits + 1) if images % size == 0)
    return batch, images // batch


def train_one_batch(
    step: TrainingStep,
    loader: ImageLoader,
    optimizer: torch.optim.Optimizer,
    runtime: Runtime,
    images: int,
) -> float:
    """Train on one batch.

    Args:
        step: The step; its model is trained, so that its weights change.
        loader: The training batches.
        optimizer: Optimizer of the step's model.
        runtime: Device and precision.
        images: Images of the batch.

    Returns:
        The loss.
    """
    return _train_on(_batch_of(loader, runtime, images), step, optimizer, runtime)


def _batch_of(loader: ImageLoader, runtime: Runtime, images: int) -> Batch:
    keys = [(0, index % len(loader.dataset)) for index in range(images)]
    return runtime.transfer(loader.dataset.__getitems__(keys), loader.on_device)


def _train_on(
    batch: Batch, step: TrainingStep, optimizer: torch.optim.Optimizer, runtime: Runtime
) -> float:
    step.model.train()
    with runtime.autocast():
        loss = step(batch, 0, 0)["loss"]
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def fitting_batch(
    step: TrainingStep,
    loader: ImageLoader,
    optimizer: torch.optim.Optimizer,
    runtime: Runtime,
    grad_accum: int,
) -> int:
    """Return the largest batch size that fits the device, found by training on such batches.

    An estimate from small batches would be wrong: with few images the memory peaks in the
    optimizer, with many in the network.

    Args:
        step: The step; its model is trained, so that its weights change.
        loader: The training batches.
        optimizer: Optimizer of the step's model.
        runtime: Device and precision.
        grad_accum: Batches per optimizer step.

    Returns:
        The batch size of the loader if it fits; else the largest fitting divisor of the number of
        images per optimizer step.

    Raises:
        FoldsmithError: The smallest divisor does not fit either.
    """
    batch_size = loader.sampler.batch_size
    images = batch_size * grad_accum
    sizes = [n for n in range(1, batch_size) if images % n == 0] + [batch_size]
    # BatchNorm cannot train on a single image.
    sizes = [n for n in sizes if n > 1] or sizes
    if _fits(sizes[-1], step, loader, optimizer, runtime):
        return sizes[-1]
    # sizes[low - 1] fits, sizes[high] does not.
    low, high = 0, len(sizes) - 1
    while low < high:
        middle = (low + high) // 2
        if _fits(sizes[middle], step, loader, optimizer, runtime):
            low = middle + 1
        else:
            high = middle
    if low == 0:
        raise FoldsmithError(
            f"{runtime.device}: out of memory with a batch of {counted(sizes[0], 'image')}; take a "
            "smaller model (model/base_name, model/backbone/model_name) or dataset/img_size"
        )
    return sizes[low - 1]


def _fits(
    images: int,
    step: TrainingStep,
    loader: ImageLoader,
    optimizer: torch.optim.Optimizer,
    runtime: Runtime,
) -> bool:
    """Return whether a batch can be trained on, with some memory left."""
    room = runtime.free_bytes() + runtime.held_bytes()
    runtime.forget_peak()
    try:
        batch = _batch_of(loader, runtime, images)
        # The optimizer makes its state at the end of the first step.
        for _ in range(2):
            _train_on(batch, step, optimizer, runtime)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        fits = False
    else:
        fits = runtime.peak_bytes() <= _FILL * room
    optimizer.zero_grad(set_to_none=True)
    if runtime.device.type == "cuda":
        # The pieces of a batch that was too large are of no use to a smaller one.
        torch.cuda.empty_cache()
    return fits
