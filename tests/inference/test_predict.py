from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from foldsmith.config import Globals
from foldsmith.data.cache.image_store import ImageStore
from foldsmith.data.datasets import ImageDataset
from foldsmith.data.loader import ImageLoader
from foldsmith.data.transforms import Normalize
from foldsmith.inference.predict import models_that_fit, predict_logits
from foldsmith.models.runtime import create_runtime
from foldsmith.utils.hashing import FileHashes


@pytest.fixture
def loader(write_images):
    paths = write_images(7, 6, 6)
    store = ImageStore(None, FileHashes(Path("no such folder") / "hashes.json"))
    transforms = [Normalize([0.5] * 3, [0.25] * 3)]
    return ImageLoader(ImageDataset(store, paths, np.arange(7), None, transforms, seed=0), 3)


class Model(nn.Module):
    """Sees where things are: its logits change when the image is flipped."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.head = nn.Linear(3 * 6 * 6, 2)
        self.drop = nn.Dropout(0.5)

    def forward(self, images):
        return self.head(self.drop(images.flatten(1)))


@pytest.mark.parametrize(("tta", "dims"), [("none", []), ("hflip", [3]), ("flips", [3, 2, (2, 3)])])
def test_logits_are_the_mean_over_the_flips(loader, tta, dims):
    runtime = create_runtime(Globals(task="regression", device="cpu", amp_dtype="off"))
    models = [Model(0), Model(1)]
    found = predict_logits(models, loader, runtime, tta=tta)
    images = torch.cat([runtime.transfer(batch, loader.on_device).views[0] for batch in loader])
    for model, logits in zip(models, found, strict=True):
        views = [images, *(images.flip(dim) for dim in dims)]
        with torch.no_grad():
            expected = sum(model.eval()(view) for view in views) / len(views)
        np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_models_are_grouped_by_what_fits():
    models = [nn.Linear(9, 10) for _ in range(5)]  # 400 bytes each
    assert [len(g) for g in models_that_fit(models, 2400)] == [3, 2]
    assert [len(g) for g in models_that_fit(models, float("inf"))] == [5]
    assert [len(g) for g in models_that_fit(models, 10)] == [1] * 5
    assert [m for group in models_that_fit(models, 1700) for m in group] == models
