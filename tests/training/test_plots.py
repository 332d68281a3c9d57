"""The learning curves of a training, and their cost."""

from types import SimpleNamespace

import pytest

from foldsmith.training.extensions import plots
from foldsmith.training.extensions.plots import LearningCurve


@pytest.mark.parametrize(("seconds", "drawn"), [(0.01, 9), (2.0, 2)])
def test_a_curve_costs_a_hundredth_of_a_training(monkeypatch, seconds, drawn):
    """A training of 300 s and 300 epochs; a drawing may be made after each thirtieth epoch."""
    now, drawings = [0.0], []
    monkeypatch.setattr(plots, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def draw(curve, manager):
        drawings.append(manager.epoch)
        now[0] += seconds

    monkeypatch.setattr(LearningCurve, "_draw", draw)
    curve = LearningCurve(["val/loss"], "loss.png", max_epoch=300)
    for epoch in range(1, 300):
        now[0] += 1
        curve(SimpleNamespace(epoch=epoch))
    assert len(drawings) == drawn
    curve(SimpleNamespace(epoch=300))
    assert drawings[-1] == 300
