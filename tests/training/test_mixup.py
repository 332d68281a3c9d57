import numpy as np
import pytest
import torch
from torch import nn

from foldsmith.data.datasets import Batch
from foldsmith.errors import ConfigError
from foldsmith.tasks.task import MultiClass, Regression
from foldsmith.training.mixup import Mixup
from foldsmith.training.steps import FineTuneStep


def test_the_published_epochs():
    mixup = Mixup(alpha=1.0, start_epoch=15, end_epoch=-5)
    active = [epoch for epoch in range(150) if mixup.active(epoch, 150)]
    assert active == list(range(15, 145))


def test_a_short_training_may_never_mix():
    assert not any(Mixup(1.0, 15, -5).active(epoch, 10) for epoch in range(10))


def test_alpha_must_be_positive():
    with pytest.raises(ConfigError, match="alpha"):
        Mixup(alpha=0)


def test_shares_follow_the_beta_distribution():
    shares = [Mixup(0.4).draw(4, np.random.default_rng(k))[0] for k in range(4000)]
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)).
    assert np.mean(shares) == pytest.approx(0.5, abs=0.02)
    assert np.var(shares) == pytest.approx(1 / (4 * 1.8), rel=0.05)


def batch(n=8):
    torch.manual_seed(0)
    return Batch((torch.randn(n, 3, 2, 2),), torch.arange(n).float() % 4, torch.arange(n))


class Flat(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.layer = nn.Linear(12, outputs)

    def forward(self, images):
        return self.layer(images.flatten(1))


def test_classification_equals_soft_targets():
    torch.manual_seed(1)
    model, mixup, data = Flat(4), Mixup(), batch()
    task = MultiClass((0.0, 1.0, 2.0, 3.0))
    step = FineTuneStep(model, nn.CrossEntropyLoss(), task, mixup, max_epoch=3, seed=9)
    share, partner = mixup.draw(8, np.random.default_rng([9, 1, 5]))
    images = share * data.views[0] + (1 - share) * data.views[0][partner]
    hot = nn.functional.one_hot(data.targets.long(), 4).float()
    soft = share * hot + (1 - share) * hot[partner]
    expected = nn.functional.cross_entropy(model(images), soft)
    assert step(data, 1, 5)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_outside_its_epochs_nothing_is_mixed():
    torch.manual_seed(1)
    model, data = Flat(1), batch()
    step = FineTuneStep(model, nn.MSELoss(), Regression((0, 3)), Mixup(1.0, 2), 5, seed=9)
    plain = nn.functional.mse_loss(model(data.views[0])[:, 0], data.targets).item()
    assert step(data, 1, 0)["loss"].item() == pytest.approx(plain, rel=1e-6)
    assert step(data, 2, 0)["loss"].item() != pytest.approx(plain, rel=1e-3)
