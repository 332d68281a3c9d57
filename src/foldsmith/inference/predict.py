"""Running models over a loader."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from foldsmith.config.settings import TestTimeAugmentation
from foldsmith.data.datasets import Batch, DrawnBatch
from foldsmith.data.loader import ImageLoader, worker_errors
from foldsmith.distributed import process_group
from foldsmith.distributed.collectives import gathered
from foldsmith.models.runtime import Runtime
from foldsmith.utils.progress_bars import progress_bar

# Dimensions to reverse for each further view of images of shape (n, 3, H, W).
FLIPS: dict[TestTimeAugmentation, tuple[tuple[int, ...], ...]] = {
    "none": (),
    "hflip": ((3,),),
    "flips": ((3,), (2,), (2, 3)),
}

# Fraction of a device's free memory for weights; the rest is for batches.
_WEIGHTS_SHARE = 0.5


@worker_errors()
@torch.inference_mode()
def predict_logits(
    models: Sequence[nn.Module],
    loader: ImageLoader,
    runtime: Runtime,
    label: str | None = None,
    tta: TestTimeAugmentation = "none",
) -> npt.NDArray[np.float32]:
    """Return the logits of several models for every image of a loader.

    Of several processes each computes its share of every batch, and gets the logits of all.

    Each image is transformed once; its flips are made on the device, and the models take
    turns on the same batch (as one model of stacked weights, ``torch.func``, they take more
    than four times as long on a CPU). The models are left in evaluation mode.

    Args:
        models: Models on the runtime's device.
        loader: Batches in the order of the dataset.
        runtime: Device and precision.
        label: Text of a progress bar; no bar if None.
        tta: Flips to average the logits over.

    Returns:
        float32, shape (n_models, n_images, n_outputs).
    """
    for model in models:
        model.eval()
    loader.serve(runtime.device)

    def logits_of(batch: Batch | DrawnBatch) -> torch.Tensor:
        batch_of = (
            f"batches of {len(batch.rows)} images; lower the batch_size of loader/val and test"
        )
        with runtime.memory_errors(batch_of), runtime.autocast():
            images = runtime.transfer(batch, loader.on_device).views[0]
            views = [images, *(images.flip(dims) for dims in FLIPS[tta])]
            logits = [torch.stack([model(v).float() for v in views]).mean(0) for model in models]
        return torch.stack(logits)

    watched = loader if label is None else progress_bar(loader, label=label, unit="batch")
    batches = [logits_of(batch) for batch in watched if len(batch.rows)]
    if not batches:  # this process has none: fewer images than processes
        batches = [logits_of(loader.dataset[0, 0])[:, :0]]
    result: npt.NDArray[np.float32] = _of_all(torch.cat(batches, dim=1), loader).cpu().numpy()
    return result


def _of_all(logits: torch.Tensor, loader: ImageLoader) -> torch.Tensor:
    """Return the logits of all processes' images in the order of the dataset.

    Args:
        logits: Shape (n_models, n_own, n_outputs).
        loader: Where the images came from.
    """
    if process_group.alone():
        return logits
    places = [loader.sampler.places(of) for of in range(process_group.size())]
    rows = gathered(logits.transpose(0, 1).contiguous(), [len(each) for each in places])
    ordered = torch.empty_like(rows)
    ordered[torch.from_numpy(np.concatenate(places)).to(rows.device)] = rows
    return ordered.transpose(0, 1)


def image_batches(
    loader: ImageLoader, runtime: Runtime, label: str | None = None
) -> Iterator[torch.Tensor]:
    """Yield the images of a loader on the device, normalised, each batch of shape (n, 3, H, W).

    Args:
        loader: Batches in the order of the dataset.
        runtime: Device and precision.
        label: Text of a progress bar; no bar if None.
    """
    loader.serve(runtime.device)
    watched = loader if label is None else progress_bar(loader, label=label, unit="batch")
    with worker_errors():
        for batch in watched:
            yield runtime.transfer(batch, loader.on_device).views[0]


@torch.no_grad()
def measure_norms(model: nn.Module, loader: ImageLoader, runtime: Runtime) -> None:
    """Let the running statistics of BatchNorm be those of a loader's images (precise BatchNorm).

    A head that is fitted to features of other statistics meets other features as soon as the
    training begins: those of random weights differ a hundredfold. Each of several processes does
    the same with all images (Wu and Johnson, "Rethinking Batch in BatchNorm", 2021).

    Args:
        model: On the runtime's device; left in evaluation mode.
        loader: The images; their batches are mixed anew.
        runtime: Device and precision.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    model.eval()
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    n = len(loader.dataset)
    order = np.random.default_rng(0).permutation(n)
    for rows in np.array_split(order, max(1, n // loader.sampler.batch_size)):
        raw = loader.dataset.__getitems__([(0, int(row)) for row in rows])
        with runtime.autocast():
            model(runtime.transfer(raw, loader.on_device).views[0])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def predict_in_turn(
    models: Sequence[nn.Module],
    loader: ImageLoader,
    runtime: Runtime,
    label: str | None = None,
    tta: TestTimeAugmentation = "none",
) -> npt.NDArray[np.float32]:
    """Return the logits of several models, as many at a time as the device holds.

    Args:
        models: Models on the CPU, where they are again afterwards.
        loader: As for :func:`predict_logits`.
        runtime: Device and precision.
        label: As for :func:`predict_logits`.
        tta: As for :func:`predict_logits`.

    Returns:
        float32, shape (n_models, n_images, n_outputs).
    """
    logits = []
    for group in models_that_fit(models, runtime.free_bytes()):
        placed = [runtime.place(model) for model in group]
        logits.append(predict_logits(placed, loader, runtime, label, tta))
        for model in group:
            model.cpu()
    return np.concatenate(logits)


def models_that_fit(models: Sequence[nn.Module], free_bytes: float) -> list[list[nn.Module]]:
    """Return models in groups that fit a device's memory together.

    Args:
        models: The models, of any size.
        free_bytes: Free memory of the device.

    Returns:
        At least one model per group, in their order.
    """
    groups: list[list[nn.Module]] = []
    used = 0.0
    for model in models:
        tensors = [*model.parameters(), *model.buffers()]
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        if not groups or used + size > _WEIGHTS_SHARE * free_bytes:
            groups.append([])
            used = 0.0
        groups[-1].append(model)
        used += size
    return groups
