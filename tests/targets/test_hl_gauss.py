import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foldsmith.errors import DataError
from foldsmith.targets.hl_gauss import HLGauss

CENTURIES = HLGauss(
    (1400.0, 1950.0), 55, 1.0, (0.0, 3.0), (1600.5, 1700.5, 1800.5), (0.0, 1.0, 2.0, 3.0), "year"
)


def encode(task, *labels):
    return task.encode(torch.from_numpy(task.codes(np.array(labels))))


@given(st.floats(0, 3, width=32), st.integers(2, 80), st.floats(0.5, 4))
def test_soft_labels_sum_to_one_and_their_expectation_is_the_target(target, n_bins, sigma):
    task = HLGauss((0.0, 3.0), n_bins, sigma, (0.0, 3.0))
    soft = encode(task, target)
    assert soft.shape == (1, task.n_outputs)
    assert (soft >= 0).all()
    assert soft.sum().item() == pytest.approx(1, abs=1e-5)
    width = 3 / n_bins
    logits = soft.clamp(min=1e-12).log().numpy()
    assert task.predict(logits)[0] == pytest.approx(target, abs=0.03 * width + 1e-4)


def test_bins_cover_the_range_and_what_the_gaussian_needs_beyond():
    task = HLGauss((0.0, 3.0), 30, 1.0, (0.0, 3.0))
    assert task.n_outputs == 30 + 2 * 4
    assert task.edges[0] == pytest.approx(-0.4) and task.edges[-1] == pytest.approx(3.4)
    assert task.bin_targets[4] == pytest.approx(0.05)


def test_a_continuous_label_is_integrated_to_the_target():
    # A bin with a threshold in it has so much of either side: 1600..1610 is 5 % before 1600.5.
    centre = (CENTURIES.edges[:-1] + CENTURIES.edges[1:]) / 2
    by_year = dict(zip(centre.round().tolist(), CENTURIES.bin_targets.tolist(), strict=True))
    assert by_year[1505] == 0 and by_year[1655] == 1 and by_year[1905] == 3
    assert by_year[1605] == pytest.approx(0.95)
    # A year in the midst of a century is that century; one on a border is between two.
    soft = encode(CENTURIES, 1750.0, 1700.5, 1445.0)
    predicted = CENTURIES.predict(soft.clamp(min=1e-12).log().numpy())
    np.testing.assert_allclose(predicted, [2.0, 1.5, 0.0], atol=0.02)


def test_labels_lead_to_their_targets():
    years = np.array([1440, 1600, 1601, 1700, 1701, 1801, 1900], np.float32)
    assert CENTURIES.targets(years).tolist() == [0, 0, 1, 1, 2, 3, 3]
    plain = HLGauss((0.0, 3.0), 8, 0.75, (0.0, 3.0))
    assert plain.targets(np.array([1.5], np.float32)).tolist() == [1.5]


def test_what_is_outside_is_named():
    with pytest.raises(DataError, match="column year: 2 values .* the first in row 2"):
        CENTURIES.check(np.array([1500, np.nan, 1990], np.float32))
    CENTURIES.check(np.array([1400, 1950], np.float32))


def test_a_constant_predicts_the_mean():
    task = HLGauss((0.0, 3.0), 24, 0.75, (0.0, 3.0))
    targets = np.array([0, 1, 1, 2, 3, 3], np.float32)
    assert task.predict(task.constant_logits(targets)) == pytest.approx(targets.mean(), abs=0.01)


def test_the_loss_is_least_at_the_soft_label():
    task = HLGauss((0.0, 3.0), 24, 0.75, (0.0, 3.0))
    soft = encode(task, 1.2, 2.9)
    loss = torch.nn.CrossEntropyLoss()
    right = loss(soft.clamp(min=1e-12).log(), soft)
    assert right < loss(torch.zeros_like(soft), soft)
    assert right < loss(soft.flip(0).clamp(min=1e-12).log(), soft)
