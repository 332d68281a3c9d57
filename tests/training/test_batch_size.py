"""Which batch a device holds is found by training on such batches."""

import numpy as np
import pytest
import torch
from torch import nn

from foldsmith.config import Globals
from foldsmith.data.cache.image_store import ImageStore
from foldsmith.data.datasets import ImageDataset
from foldsmith.data.loader import ImageLoader
from foldsmith.data.transforms import Normalize
from foldsmith.errors import FoldsmithError
from foldsmith.models.runtime import create_runtime
from foldsmith.targets.regression import Regression
from foldsmith.training.batch_size import fitting_batch
from foldsmith.training.fine_tune_step import FineTuneStep
from foldsmith.utils.hashing import FileHashes


class Short(nn.Module):
    """A stand-in for a network on a device that holds so many images and no more."""

    def __init__(self, most):
        super().__init__()
        self.head = nn.Linear(3, 1)
        self.most = most

    def forward(self, images):
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return self.head(images.mean(dim=(2, 3)))


@pytest.fixture
def data(write_images, tmp_path):
    store = ImageStore(None, FileHashes(tmp_path / "h" / "h.json"))
    targets = np.arange(64, dtype=np.float32)
    paths = write_images(2, 4, 4) * 32
    return ImageDataset(store, paths, np.arange(64), targets, [Normalize([0.5] * 3, [0.2] * 3)], 0)


def fitting(data, most, batch_size, grad_accum):
    model = Short(most)
    step = FineTuneStep(model, nn.MSELoss(), Regression((0, 64)), None, 1, 0)
    runtime = create_runtime(Globals(task="regression", device="cpu", amp_dtype="off"))
    optimizer = torch.optim.AdamW(model.parameters())
    return fitting_batch(step, ImageLoader(data, batch_size), optimizer, runtime, grad_accum)


@pytest.mark.parametrize(
    ("most", "batch_size", "grad_accum", "fits"),
    [
        (64, 24, 1, 24),
        (23, 24, 1, 12),
        (11, 24, 1, 8),
        (5, 24, 2, 4),
        (10, 15, 2, 10),
        (2, 24, 1, 2),
        (23, 24, 3, 18),
    ],
)
def test_the_largest_batch_that_divides_a_step_is_found(data, most, batch_size, grad_accum, fits):
    assert fitting(data, most, batch_size, grad_accum) == fits


def test_a_device_that_holds_no_batch_is_called_too_small(data):
    with pytest.raises(FoldsmithError, match="out of memory with a batch of 2 images; take a sm"):
        fitting(data, 1, 24, 1)
