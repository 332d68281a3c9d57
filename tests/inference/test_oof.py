import numpy as np
import pytest
from torch import nn

from foldsmith.inference.oof import FoldLogits, collect_oof, score_table
from foldsmith.targets.metrics import RMSE
from foldsmith.targets.regression import Regression


def parts():
    logits = np.arange(6, dtype=np.float32)[:, None]
    order = np.array([4, 0, 5, 2, 1, 3])
    task = Regression((0.0, 9.0))
    split = enumerate(np.split(order, 3))
    return [FoldLogits(k, 7 + k, rows, logits[rows], task) for k, rows in split]


def test_every_row_gets_its_own_logits():
    np.testing.assert_array_equal(collect_oof(parts(), 6)[:, 0], np.arange(6))


@pytest.mark.parametrize("wrong", [parts()[:2], [parts()[0], parts()[0], parts()[2]]])
def test_rows_missing_or_twice_are_an_error(wrong):
    with pytest.raises(ValueError, match="each must be there once"):
        collect_oof(wrong, 6)


def test_the_last_row_scores_all_rows_together():
    targets = np.array([0, 1, 2, 3, 4, 8], np.float32)  # row 5 is off by 3
    table = score_table(parts(), targets, nn.MSELoss(), RMSE)
    assert table["fold"].tolist() == [0, 1, 2, "oof"]
    assert table["epoch"].tolist()[:3] == [7, 8, 9]
    assert table["metric"].tolist() == pytest.approx([0, 4.5**0.5, 0, 1.5**0.5])
    assert table["loss"].tolist() == pytest.approx([0, 4.5, 0, 1.5])
