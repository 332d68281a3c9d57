"""Heat maps light up where the prediction comes from."""

import numpy as np
import pytest
import torch
from torch import nn

from foldsmith.errors import ConfigError
from foldsmith.inference.saliency import grad_cam
from foldsmith.models.classifier import ImageModel
from foldsmith.targets.classification import MultiClass
from foldsmith.targets.corn import Corn
from foldsmith.targets.hl_gauss import HLGauss
from foldsmith.targets.regression import Regression

VALUES = (0.0, 1.0, 2.0, 3.0)
REGRESSION, CLASSES = Regression((0.0, 3.0)), MultiClass(VALUES)
SIDE, HALF = 48, 6
# Cells of 8 px: maps of 6 x 6.
CNN = ("test_resnet", {"options": {"output_stride": 8}}, 60)
VIT = ("test_vit", {"img_size": SIDE, "options": {"patch_size": 8, "depth": 3}}, 150)
COLOURS = torch.tensor([[2.0, 0, 0], [0, 2, 0], [0, 0, 2], [2, 2, 0]])


def squares(n, seed):
    """Noise with a square each, whose colour is the target; images, targets, centres."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(n, 3, SIDE, SIDE, generator=generator)
    targets = torch.randint(0, 4, (n,), generator=generator)
    centres = torch.randint(HALF, SIDE - HALF, (n, 2), generator=generator)
    for image, target, (row, column) in zip(images, targets, centres, strict=True):
        place = image[:, row - HALF : row + HALF, column - HALF : column + HALF]
        place += COLOURS[target, :, None, None]
    return images, targets, centres.numpy()


def learned(backbone, task):
    """A model that has learned to tell the colours, wherever the square is."""
    name, options, steps = backbone
    torch.manual_seed(0)
    model = ImageModel(name, [None, task.n_outputs], backbone_options=options)
    images, targets, _ = squares(256, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    encoded = task.encode(torch.from_numpy(task.codes(targets.double().numpy())))
    for _ in range(steps):
        chosen = torch.randint(0, len(images), (32,))
        logits = model(images[chosen])
        loss = (
            nn.functional.mse_loss(logits, encoded[chosen])
            if task.name == "regression"
            else nn.functional.cross_entropy(logits, encoded[chosen])
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.zero_grad()
    return model.eval()


def peaks(maps):
    """Return the centre of the strongest cell of each map, px."""
    cells = np.stack(np.unravel_index(maps.reshape(len(maps), -1).argmax(axis=1), maps.shape[1:]))
    return (cells.T + 0.5) * SIDE / maps.shape[1]


@pytest.mark.parametrize("task", [REGRESSION, CLASSES], ids=lambda task: task.name)
@pytest.mark.parametrize("backbone", [CNN, VIT], ids=lambda backbone: backbone[0])
def test_it_lights_up_where_the_object_is_and_follows_it(backbone, task):
    model = learned(backbone, task)
    images, _, centres = squares(96, seed=1)
    maps = grad_cam(model, images, task.explained())
    assert maps.shape == (96, 6, 6) and maps.dtype == np.float32
    assert maps.min() >= 0 and (maps.max(axis=(1, 2)) == 1).all()
    # A square that reaches over a cell's edge lights up either side.
    near = (np.abs(peaks(maps) - centres) <= 12).all(axis=1)
    # By chance about one in four; attention has mixed the tokens by then.
    enough = 0.65 if backbone is CNN else 0.5
    assert near.mean() > enough
    # The same image, moved by three cells: so does the map.
    moved = torch.roll(images, (24, 24), dims=(2, 3))
    there = (centres + 24) % SIDE
    whole = ((there >= HALF) & (there <= SIDE - HALF)).all(axis=1)
    distance = np.abs(peaks(grad_cam(model, moved, task.explained())) - there)[whole]
    assert (distance <= 12).all(axis=1).mean() > enough
    assert all(parameter.grad is None for parameter in model.parameters())


def by_hand(head):
    """A backbone of one convolution, whose map is the image, and a head: all is known."""

    class Pixels(nn.Module):
        num_features = 3

        def forward_features(self, images):
            return images

        def forward_head(self, features):
            return features.mean(dim=(2, 3))

    model = ImageModel("test_resnet", [None, head.shape[0]])
    model.backbone = Pixels()
    layer = nn.Linear(3, head.shape[0], bias=False)
    layer.weight.data = head
    model.head = nn.Sequential(layer)
    return model.eval()


def test_it_is_the_formula_of_the_paper():
    images = torch.rand(2, 3, 4, 5)
    weights = torch.tensor([[1.0, -2.0, 0.5], [-1.0, 2.0, 1.0]])
    logits = images.mean(dim=(2, 3)) @ weights.T
    of_class = torch.einsum("nc,nchw->nhw", weights[logits.argmax(dim=1)], images)
    expected = of_class.clamp_min(0)
    maps = grad_cam(by_hand(weights), images, MultiClass((0.0, 1.0)).explained())
    np.testing.assert_allclose(maps, expected / expected.amax((1, 2), keepdim=True), atol=1e-5)


def test_what_pulls_a_value_down_counts_too():
    images = torch.zeros(1, 3, 4, 4)
    images[0, 0, 1, 1] = 1  # raises
    images[0, 1, 3, 0] = 1  # lowers, twice as much
    maps = grad_cam(by_hand(torch.tensor([[1.0, -2.0, 0.0]])), images, REGRESSION.explained())
    assert maps[0, 1, 1] == pytest.approx(0.5) and maps[0, 3, 0] == 1
    assert np.count_nonzero(maps) == 2


def test_nothing_lights_up_where_nothing_counts():
    maps = grad_cam(by_hand(torch.zeros(1, 3)), torch.rand(1, 3, 4, 4), REGRESSION.explained())
    assert (maps == 0).all()


@pytest.mark.parametrize(
    "task",
    [REGRESSION, HLGauss((0.0, 3.0), 6, 1.0, (0.0, 3.0)), Corn(VALUES)],
    ids=lambda task: task.name,
)
def test_what_is_explained_is_the_prediction(task):
    logits = torch.randn(5, task.n_outputs)
    values = task.explained().of(logits).numpy().clip(0, 3)
    np.testing.assert_allclose(values, task.predict(logits.numpy()), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "grid"),
    [
        ("vit_tiny_patch16_224", {"img_size": 64, "options": {"depth": 2}}, (4, 4)),
        ("swin_tiny_patch4_window7_224", {"img_size": 64, "options": {"depths": [1, 1, 1, 1]}}, 4),
        ("eva02_tiny_patch14_224", {"img_size": 56, "options": {"depth": 2}}, (4, 4)),
        ("mobilenetv3_small_050", {}, (4, 4)),
    ],
)
def test_backbones_of_every_layout(name, options, grid):
    model = ImageModel(name, [None, 1], backbone_options=options).eval()
    side = options.get("img_size", 64)
    maps = grad_cam(model, torch.rand(2, 3, side, side), REGRESSION.explained())
    assert torch.is_grad_enabled()
    assert maps.shape == (2, *(grid if isinstance(grid, tuple) else (grid, grid)))
    assert np.isfinite(maps).all() and maps.min() >= 0 and maps.max() == 1


@pytest.mark.parametrize("name", ["levit_128s", "hiera_tiny_224"])
def test_a_backbone_that_cannot_be_read_says_so(name):
    model = ImageModel(name, [None, 1]).eval()
    with pytest.raises(ConfigError, match=name.split("_")[0].title()):
        grad_cam(model, torch.rand(1, 3, 224, 224), REGRESSION.explained())
