import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from foldsmith.data.datasets import Batch
from foldsmith.errors import ConfigError
from foldsmith.targets.classification import MultiClass
from foldsmith.targets.regression import Regression
from foldsmith.training.fine_tune_step import FineTuneStep
from foldsmith.training.mixing import CutMix, Mixup, MixupOrCutMix


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


def test_mixup_mixes_what_it_draws():
    images = batch().views[0]
    mixed = Mixup(0.4).mix(images, np.random.default_rng(5))
    share, partner = Mixup(0.4).draw(8, np.random.default_rng(5))
    assert mixed.lam == share and torch.equal(mixed.partner, partner)
    torch.testing.assert_close(mixed.images, share * images + (1 - share) * images[partner])


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 40), st.floats(0.1, 3))
def test_the_share_of_cutmix_is_that_of_the_pixels(seed, height, width, alpha):
    # Image k is all k: the pasted pixels are those of the partner.
    images = torch.arange(5.0)[:, None, None, None].expand(5, 3, height, width)
    mixed = CutMix(alpha).mix(images, np.random.default_rng(seed))
    assert 0 <= mixed.lam <= 1
    for k, partner in enumerate(mixed.partner.tolist()):
        own = mixed.images[k].eq(k).float().mean().item()
        assert mixed.images[k].eq(k).logical_or(mixed.images[k].eq(partner)).all()
        if partner != k:
            assert own == pytest.approx(mixed.lam)


def test_cutmix_pastes_one_box_and_leaves_the_batch_alone():
    images = torch.rand(6, 3, 20, 30)
    before = images.clone()
    mixed = CutMix().mix(images, np.random.default_rng(4))
    assert torch.equal(images, before)
    pasted = (mixed.images != images).any(dim=(0, 1))
    rows, columns = pasted.any(1).nonzero()[:, 0], pasted.any(0).nonzero()[:, 0]
    assert pasted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert pasted.sum().item() / 600 == pytest.approx(1 - mixed.lam)


def test_either_is_drawn_for_each_batch_and_the_same_every_time():
    images = torch.rand(6, 3, 8, 8)
    either = MixupOrCutMix(switch_prob=0.25)

    def draw(k):
        return either.mix(images, np.random.default_rng([9, 1, k]))

    def cut(k):
        # Pixels of CutMix are those of one image or the other.
        mixed = draw(k)
        same = mixed.images.eq(images) | mixed.images.eq(images[mixed.partner])
        return bool(same.all())

    share = np.mean([cut(k) for k in range(400)])
    assert share == pytest.approx(0.25, abs=0.08)
    assert torch.equal(draw(3).images, draw(3).images)
    assert {cut(k) for k in range(20)} == {True, False}


@pytest.mark.parametrize("mixer", [CutMix(), MixupOrCutMix()], ids=["CutMix", "MixupOrCutMix"])
@pytest.mark.parametrize(
    ("loss", "task"),
    [
        (nn.CrossEntropyLoss(label_smoothing=0.1), MultiClass((0.0, 1.0, 2.0, 3.0))),
        (nn.MSELoss(), Regression((0, 3))),
    ],
    ids=["classification", "regression"],
)
def test_every_mixer_serves_both_tasks(mixer, loss, task):
    torch.manual_seed(1)
    model, data = Flat(task.n_outputs), batch()
    step = FineTuneStep(model, loss, task, mixer, max_epoch=3, seed=9)
    mixed = mixer.mix(data.views[0], np.random.default_rng([9, 1, 5]))
    targets = task.encode(data.targets)
    logits = model(mixed.images)
    expected = mixed.lam * loss(logits, targets)
    expected += (1 - mixed.lam) * loss(logits, targets[mixed.partner])
    assert step(data, 1, 5)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    "wrong", [{"mixup_alpha": 0}, {"cutmix_alpha": -1}, {"switch_prob": 1.5}], ids=str
)
def test_what_a_mixer_refuses(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        MixupOrCutMix(**wrong)


@pytest.mark.parametrize("mixing", [Mixup, CutMix, MixupOrCutMix])
def test_a_share_of_the_batches_is_mixed(mixing):
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mixed = [mixing(p=0.25).mix(images, np.random.default_rng(k)) for k in range(400)]
    whole = [one for one in mixed if one.lam == 1.0 and torch.equal(one.images, images)]
    assert 0.68 < len(whole) / 400 < 0.82
    assert all(one.partner.tolist() == [0, 1, 2, 3] for one in whole)


def test_all_batches_are_mixed_without_a_share():
    """The generator is not asked, so that trainings of before have the same numbers."""
    rng, same = np.random.default_rng(0), np.random.default_rng(0)
    mixed = Mixup().mix(torch.rand(4, 3, 2, 2), rng)
    assert (mixed.lam, mixed.partner.tolist()) == (
        (drawn := Mixup().draw(4, same))[0],
        drawn[1].tolist(),
    )


def test_the_share_is_a_probability():
    with pytest.raises(ConfigError, match="p: 2 must be in 0 to 1"):
        CutMix(p=2)
