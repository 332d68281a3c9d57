"""Running models over a loader."""

import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from tqdm.auto import tqdm

from foldsmith.data.loader import PhotoLoader, worker_errors
from foldsmith.models.runtime import Runtime


@worker_errors()
@torch.inference_mode()
def predict_logits(
    models: Sequence[nn.Module],
    loader: PhotoLoader,
    runtime: Runtime,
    label: str | None = None,
) -> npt.NDArray[np.float32]:
    """Return the logits of several models for every photo of a loader.

    Each photo is decoded and transformed once; the models take turns on the same batch. The
    models are left in evaluation mode.

    Args:
        models: Models on the runtime's device.
        loader: Batches in the order of the dataset.
        runtime: Device and precision.
        label: Text of a progress bar on a terminal; no bar if None.

    Returns:
        float32, shape (n_models, n_photos, n_outputs).
    """
    for model in models:
        model.eval()
    batches = []
    watched = label is not None and sys.stderr.isatty()
    for batch in tqdm(loader, desc=label, leave=False, unit="batch", disable=not watched):
        images = runtime.transfer(batch).views[0]
        batch_of = f"batches of {len(images)} photos; lower the batch_size of loader/val and test"
        with runtime.memory_errors(batch_of), runtime.autocast():
            logits = [model(images).float() for model in models]
        batches.append(torch.stack(logits))
    result: npt.NDArray[np.float32] = torch.cat(batches, dim=1).cpu().numpy()
    return result
