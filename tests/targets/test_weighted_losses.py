"""Losses with weights: every loss, against its own values row by row."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foldsmith.errors import ConfigError
from foldsmith.targets import losses
from foldsmith.targets.weighted_losses import with_weights

N = 6
RNG = torch.Generator().manual_seed(0)
LOGITS = torch.randn(N, 4, generator=RNG)
CLASSES = torch.tensor([0, 1, 2, 3, 1, 2])
SOFT = torch.softmax(torch.randn(N, 4, generator=RNG), dim=1)
LABELS = (torch.randn(N, 4, generator=RNG) > 0).float()
NUMBERS = torch.randn(N, 1, generator=RNG)
SEVERAL = torch.randn(N, 4, generator=RNG)
SEVERAL[0, 1] = SEVERAL[3, 2] = torch.nan

CASES = {
    "cross-entropy": (losses.CrossEntropyLoss(), LOGITS, CLASSES),
    "label smoothing": (losses.CrossEntropyLoss(label_smoothing=0.1), LOGITS, CLASSES),
    "bins": (losses.CrossEntropyLoss(), LOGITS, SOFT),
    "corn": (losses.CornLoss(), LOGITS[:, :3], CLASSES),
    "mse": (losses.MSELoss(), LOGITS[:, :1], NUMBERS),
    "l1": (losses.L1Loss(), LOGITS[:, :1], NUMBERS),
    "huber": (losses.HuberLoss(delta=0.5), LOGITS[:, :1], NUMBERS),
    "smooth l1": (losses.SmoothL1Loss(), LOGITS[:, :1], NUMBERS),
    "quantile": (losses.QuantileLoss(0.9), LOGITS[:, :1], NUMBERS),
    "binary": (losses.BCEWithLogitsLoss(), LOGITS, LABELS),
    "binary, smoothed": (losses.BCEWithLogitsLoss(label_smoothing=0.1), LOGITS, LABELS),
    "focal, smoothed": (losses.FocalLoss(label_smoothing=0.1), LOGITS, LABELS),
    "asymmetric, smoothed": (losses.AsymmetricLoss(label_smoothing=0.1), LOGITS, LABELS),
    "corn, smoothed": (losses.CornLoss(label_smoothing=0.1), LOGITS[:, :3], CLASSES),
    "focal": (losses.FocalLoss(), LOGITS, LABELS),
    "asymmetric": (losses.AsymmetricLoss(), LOGITS, LABELS),
    "masked mse": (losses.MaskedMSELoss(), LOGITS, SEVERAL),
    "masked l1": (losses.MaskedL1Loss(), LOGITS, SEVERAL),
    "masked huber": (losses.MaskedHuberLoss(), LOGITS, SEVERAL),
}
WHOLE = torch.tensor([1, 2, 0, 3, 1, 1])


def counted(name, targets):
    """Return which values a loss without weights is the mean of."""
    if name.startswith("corn"):
        return targets[:, None] >= torch.arange(3)
    return ~torch.isnan(targets) if name.startswith("masked") else torch.ones(N, 1)


@pytest.mark.parametrize("name", CASES)
def test_whole_weights_are_repeated_rows(name):
    loss, outputs, targets = CASES[name]
    again = torch.repeat_interleave(torch.arange(N), WHOLE)
    repeated = loss(outputs[again], targets[again])
    weighted = with_weights(loss, True)
    found = weighted(outputs, targets, WHOLE.float())
    each = counted(name, targets)
    torch.testing.assert_close(found * each.sum() / each[again].sum(), repeated)


@pytest.mark.parametrize("name", CASES)
def test_without_weights_it_is_the_loss_itself(name):
    loss, outputs, targets = CASES[name]
    for needed in (False, True):
        assert with_weights(loss, needed)(outputs, targets, None) == loss(outputs, targets)


@pytest.mark.parametrize("name", ["binary", "focal", "asymmetric"])
def test_labels_may_have_weights_of_their_own(name):
    loss, outputs, targets = CASES[name]
    weights = torch.zeros(N, 4)
    weights[:, 2] = 4.0
    found = with_weights(loss, True)(outputs, targets, weights)
    torch.testing.assert_close(found, loss(outputs[:, 2:3], targets[:, 2:3]))


@given(st.lists(st.floats(0, 5, width=32), min_size=N, max_size=N))
def test_a_loss_that_takes_weights_gets_them(values):
    def own(outputs, targets, weights):
        return None if weights is None else weights.sum()

    weights = torch.tensor(values)
    assert with_weights(own, True)(LOGITS, CLASSES, weights) == weights.sum()
    assert with_weights(own, False)(LOGITS, CLASSES, None) is None


def test_a_loss_that_takes_none_is_named_only_where_there_are_weights():
    def own(outputs, targets):
        return torch.tensor(3.0)

    assert with_weights(own, False)(LOGITS, CLASSES, None) == 3
    with pytest.raises(ConfigError, match="loss: own takes no weights"):
        with_weights(own, True)
    with pytest.raises(ConfigError, match="loss: MSELoss takes no weights"):
        with_weights(losses.MSELoss(reduction="sum"), True)
    assert np.isfinite(float(with_weights(losses.MSELoss(), True)(NUMBERS, -NUMBERS, WHOLE)))


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_the_quantile_loss_is_least_at_the_quantile(quantile):
    targets = torch.arange(101.0)[:, None]
    loss = losses.QuantileLoss(quantile)
    values = [float(loss(torch.full_like(targets, guess), targets)) for guess in range(101)]
    assert int(np.argmin(values)) == round(100 * quantile)
    with pytest.raises(ConfigError, match="quantile: 1 must be above 0 and below 1"):
        losses.QuantileLoss(1)


OF_LABELS = [losses.BCEWithLogitsLoss, losses.FocalLoss, losses.AsymmetricLoss]


@pytest.mark.parametrize("kind", OF_LABELS)
def test_smoothed_labels_are_learned_as_numbers_between_0_and_1(kind):
    found = kind(label_smoothing=0.2)(LOGITS, LABELS)
    torch.testing.assert_close(found, kind()(LOGITS, LABELS * 0.8 + 0.1))
    assert found != kind()(LOGITS, LABELS)


@pytest.mark.parametrize(("target", "best"), [(0, 0.1), (1, 0.9)])
def test_the_best_output_of_smoothed_corn_is_less_than_sure(target, best):
    logits = torch.logit(torch.tensor([[best]])).requires_grad_()
    losses.CornLoss(label_smoothing=0.2)(logits, torch.tensor([target])).backward()
    assert float(logits.grad) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", [*OF_LABELS, losses.CornLoss])
@pytest.mark.parametrize("smoothing", [-0.1, 1, 1.5])
def test_a_wrong_smoothing_is_refused(kind, smoothing):
    with pytest.raises(ConfigError, match=f"label_smoothing: {smoothing} must be at least 0"):
        kind(label_smoothing=smoothing)
