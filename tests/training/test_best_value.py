from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_pfn_extras as ppe
import torch
from torch import nn

from foldsmith.targets.metrics import metric_named
from foldsmith.training.extensions.plots import LearningCurve
from foldsmith.training.extensions.snapshots import best_value
from foldsmith.training.manager import create_manager

VALUES = [0.5, 0.7, 0.6, 0.3, 0.9, 0.9]


@pytest.mark.parametrize(
    ("metric", "epochs"), [("RMSE", [1, 4]), ("QWK", [1, 2, 5]), (None, [1, 4])]
)
def test_a_trigger_knows_the_direction(tmp_path, metric, epochs):
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    manager = create_manager(model, optimizer, len(VALUES), 1, str(tmp_path))
    trigger = best_value("val/metric", None if metric is None else metric_named(metric))
    fired = []
    manager.extend(lambda m: fired.append(m.epoch), name="note", trigger=trigger)
    for value in VALUES:
        with manager.run_iteration():
            ppe.reporting.report({"val/metric": value})
    assert fired == epochs


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
