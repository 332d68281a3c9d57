from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_pfn_extras as ppe
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from foldsmith.targets.metrics import metric_named
from foldsmith.training.extensions.evaluator import validated_epochs
from foldsmith.training.extensions.plots import LearningCurve
from foldsmith.training.extensions.snapshots import best_value
from foldsmith.training.manager import create_manager

VALUES = [0.5, 0.7, 0.6, 0.3, 0.9, 0.9]
# None: an epoch that was not validated.
WITH_GAPS = [None, 0.5, 0.7, None, 0.6, 0.3, 0.9, None, 0.9]


@pytest.mark.parametrize(
    ("metric", "values", "epochs"),
    [
        *[("RMSE", VALUES, [1, 4]), ("QWK", VALUES, [1, 2, 5]), (None, VALUES, [1, 4])],
        *[("RMSE", WITH_GAPS, [2, 6]), ("QWK", WITH_GAPS, [2, 3, 7])],
    ],
)
def test_a_trigger_knows_the_direction(tmp_path, metric, values, epochs):
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    manager = create_manager(model, optimizer, len(values), 1, str(tmp_path))
    trigger = best_value("val/metric", None if metric is None else metric_named(metric))
    fired = []
    manager.extend(lambda m: fired.append(m.epoch), name="note", trigger=trigger)
    for value in values:
        with manager.run_iteration():
            if value is not None:
                ppe.reporting.report({"val/metric": value})
    assert fired == epochs


@given(st.integers(1, 500), st.one_of(st.none(), st.integers(1, 600)))
def test_validations_are_spread_evenly_and_the_last_epoch_has_one(max_epoch, n):
    epochs = validated_epochs(max_epoch, n)
    assert len(epochs) == len(set(epochs)) == min(n or max_epoch, max_epoch)
    assert epochs == sorted(epochs) and epochs[-1] == max_epoch and epochs[0] >= 1
    gaps = np.diff([0, *epochs])
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(
    ("metric", "text"), [("RMSE", "0.3000 (epoch 4)"), ("AUC", "0.9000 (epoch 5)")]
)
def test_a_plot_marks_the_best(tmp_path, monkeypatch, metric, text):
    noted = []
    monkeypatch.setattr(
        "matplotlib.axes.Axes.annotate", lambda self, label, *_, **__: noted.append(label)
    )

    log = [{"epoch": k, "val/metric": v} for k, v in enumerate(VALUES, 1)]
    report = SimpleNamespace(log=log)
    manager = SimpleNamespace(
        epoch=len(VALUES),
        out=str(tmp_path),
        get_extension=lambda name: report,
        writer=lambda name, out, figure, savefun: savefun(figure, Path(out) / name),
    )
    plot = LearningCurve(["val/metric"], "a.png", 6, "val/metric", metric_named(metric))
    plot(manager)
    assert noted == [text]
    assert (tmp_path / "a.png").is_file()
