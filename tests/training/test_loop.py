import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from foldsmith.config import Globals
from foldsmith.data.cache.image_store import ImageStore
from foldsmith.data.datasets import ImageDataset, View
from foldsmith.data.loader import ImageLoader
from foldsmith.data.transforms import Compose, HorizontalFlip, Normalize, VerticalFlip
from foldsmith.errors import FoldsmithError
from foldsmith.models.runtime import create_runtime
from foldsmith.targets.regression import Regression
from foldsmith.training.extensions.log import log_report
from foldsmith.training.fine_tune_step import FineTuneStep
from foldsmith.training.loop import optimizer_steps, run_training, scaled_lr, window_weights
from foldsmith.training.manager import create_manager
from foldsmith.utils.hashing import FileHashes


class TinyModel(nn.Module):
    """No BatchNorm: the gradient of a window is that of its images, however they are batched."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3 * 4 * 4, 1)

    def forward(self, images):
        return self.head(images.flatten(1))


@pytest.fixture
def data(tmp_path, write_images):
    paths = write_images(10, 4, 4)
    targets = np.random.default_rng(1).uniform(0, 3, 10).astype(np.float32)
    transforms = [Normalize([0.5] * 3, [0.25] * 3)]
    return ImageDataset(
        ImageStore(None, FileHashes(tmp_path / "h" / "h.json")),
        paths,
        np.arange(10),
        targets,
        transforms,
        seed=0,
    )


def fit(
    data,
    folder,
    batch_size,
    grad_accum,
    epochs=2,
    loss=None,
    lr=0.01,
    steps=None,
    progress=None,
    prepare=None,
):
    torch.manual_seed(0)
    model = TinyModel()
    loader = ImageLoader(data, batch_size, shuffle=True, seed=3)
    if prepare is not None:
        prepare(loader)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    total = optimizer_steps(loader, grad_accum, epochs)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=total)
    if steps is not None:
        optimizer.register_step_post_hook(lambda *_: steps.append(optimizer.param_groups[0]["lr"]))
    manager = create_manager(model, optimizer, epochs, len(loader), str(folder))
    manager.extend(log_report())
    runtime = create_runtime(Globals(task="regression", device="cpu", amp_dtype="off"))
    step = FineTuneStep(model, loss or nn.MSELoss(), Regression((0, 3)), None, epochs, seed=0)
    if progress is not None:
        step.after_update = progress.append
    run_training(manager, step, loader, optimizer, scheduler, runtime, grad_accum, epochs, seed=0)
    return model, json.loads((folder / "log.json").read_text())


@pytest.mark.parametrize(("batch", "accum", "whole"), [(2, 2, 4), (3, 2, 6), (3, 3, 9), (4, 3, 10)])
def test_accumulated_batches_equal_one_large_batch(data, tmp_path, batch, accum, whole):
    # 10 images: neither the batches nor the windows divide the epoch.
    small, _ = fit(data, tmp_path / "a", batch, accum)
    large, _ = fit(data, tmp_path / "b", whole, 1)
    for a, b in zip(small.parameters(), large.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_the_last_partial_window_steps_too(data, tmp_path):
    steps = []
    fit(data, tmp_path, batch_size=2, grad_accum=2, epochs=3, steps=steps)
    assert len(steps) == 3 * 3  # 5 batches: windows of 2, 2 and 1


def test_the_step_is_told_how_far_the_training_is(data, tmp_path):
    progress = []
    fit(data, tmp_path, batch_size=2, grad_accum=2, epochs=3, progress=progress)
    assert progress == pytest.approx([k / 9 for k in range(1, 10)])


def test_the_scheduler_ends_with_the_training(data, tmp_path):
    steps = []
    fit(data, tmp_path, 3, 2, epochs=4, steps=steps)
    assert len(steps) == 8
    assert steps[0] == pytest.approx(0.01 / 25)
    assert max(steps) == pytest.approx(0.01, rel=0.2)
    assert steps[-1] < 0.01 / 1000


def test_the_reported_loss_is_the_mean_over_images(data, tmp_path):
    # A learning rate of 0: the loss of an epoch is that of the first weights on all images.
    model, log = fit(data, tmp_path, batch_size=4, grad_accum=1, lr=0.0)
    runtime = create_runtime(Globals(task="regression", device="cpu", amp_dtype="off"))
    loader = ImageLoader(data, 10)
    (batch,) = loader
    images = runtime.transfer(batch, loader.on_device).views[0]
    with torch.no_grad():
        expected = nn.functional.mse_loss(model(images)[:, 0], torch.from_numpy(data.targets))
    assert log[0]["train/loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert [entry["epoch"] for entry in log] == [1, 2]
    assert {"lr", "images_per_s", "data_wait", "elapsed_time"} <= log[0].keys()


def test_a_loss_that_is_no_number_stops_with_the_learning_rate(data, tmp_path):
    stopped = r"infinite at epoch 1, batch 1 \(learning rate 0.0004"
    with pytest.raises(FoldsmithError, match=stopped):
        fit(data, tmp_path, 4, 1, loss=lambda logits, targets: logits.sum() * float("nan"))


def test_a_training_whose_images_are_augmented_on_the_device(data, tmp_path):
    data.views = (View(Compose([HorizontalFlip(), VerticalFlip()]), data.views[0].normalize),)
    expected, _ = fit(data, tmp_path / "a", 4, 1)

    def on_device(loader):
        loader.on_device.augment_here(torch.device("cpu"), room_bytes=0)

    found, _ = fit(data, tmp_path / "b", 4, 1, prepare=on_device)
    for a, b in zip(expected.parameters(), found.parameters(), strict=True):
        assert torch.equal(a, b)  # flips are exact


@given(st.lists(st.integers(1, 64), min_size=1, max_size=30), st.integers(1, 8))
def test_windows_weigh_by_images(sizes, accum):
    weights = window_weights(sizes, accum)
    assert len(weights) == len(sizes)
    for start in range(0, len(sizes), accum):
        window = slice(start, start + accum)
        assert sum(weights[window]) == pytest.approx(1)
        shares = [w * sum(sizes[window]) for w in weights[window]]
        assert shares == pytest.approx(sizes[window])


def test_the_published_learning_rates():
    assert scaled_lr(0.05, 512) == pytest.approx(0.1)
    assert scaled_lr(0.05, batch_size=128, grad_accum=4) == pytest.approx(0.1)


def test_what_draws_globally_differs_between_epochs_and_not_between_runs(data, tmp_path):
    def run(folder):
        drawn = []

        def loss(logits, targets):
            drawn.append(float(torch.rand(())))
            return nn.functional.mse_loss(logits, targets)

        fit(data, folder, 5, 1, epochs=3, loss=loss)
        return drawn

    drawn = run(tmp_path / "a")
    assert len(drawn) == len(set(drawn)) == 6
    torch.rand(7)
    assert run(tmp_path / "b") == drawn


def test_an_operation_without_a_deterministic_algorithm_is_named(data, tmp_path):
    def loss(logits, targets):
        raise RuntimeError(
            "upsample_bicubic2d_backward_out_cuda does not have a deterministic implementation, "
            "but you set 'torch.use_deterministic_algorithms(True)'."
        )

    with pytest.raises(FoldsmithError, match="globals/deterministic: upsample_bicubic2d_back") as e:
        fit(data, tmp_path / "out", 5, 1, loss=loss)
    assert "set globals/deterministic=false" in str(e.value)
