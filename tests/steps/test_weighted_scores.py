"""Weights of rows in the metric, from the table to scores, blends, comparisons and reports."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from small_project import write_experiment

HEAD = {
    "import": "foldsmith:image_descriptors.yml",
    "globals/output_root": "output/300",
    "dataset/img_size": 16,
    "head": {"type": "KernelHead"},
}
BLEND = {
    "import": "foldsmith:ensemble.yml",
    "globals/output_path": "output/900",
    "ensemble/experiments": ["output/300", "output/301"],
    "ensemble/methods": ["mean", "box"],
    "ensemble/calibrate": "isotonic",
}
RUN = ("run", "-cfg", "exp_config/900.yml")


@pytest.fixture
def judged(small_project):
    """A project whose train table has the weights 0, 1, 2, 3 in turn, and equal ones."""
    path = small_project / "input/train.csv"
    table = pd.read_csv(path)
    table["w"], table["same"] = np.arange(len(table)) % 4, 0.3
    table.to_csv(path, index=False)
    write_experiment(small_project, "300", HEAD)
    ridge = {"globals/output_root": "output/301", "head": {"type": "RidgeHead"}}
    write_experiment(small_project, "301", HEAD | ridge)
    write_experiment(small_project, "900", BLEND)
    return small_project


def change(folder, **values):
    path = folder / "project.yml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values))


def results(folder):
    """Return the bytes of what a run predicts and scores, by file."""
    names = ("submission.csv", "ensemble_scores.csv", "weights.csv", "blends.safetensors")
    found = {name: (folder / "output/900" / name).read_bytes() for name in names}
    score = (folder / "output/300/score_by_last.csv").read_bytes()
    return found | {"score": score}


def rmse(folder, name, weights):
    """Return the weighted RMSE of the cross-fitted predictions of a blend."""
    table = pd.read_csv(folder / "output/900/cross_fitted_predictions.csv")
    squares = (table[name] - table["target"]) ** 2
    return float(np.sqrt(np.average(squares, weights=weights)))


def test_scores_blends_and_reports_have_the_weights_and_equal_ones_change_no_byte(cli, judged):
    cli(judged, *RUN)
    plain = results(judged)
    change(judged, metric_weight_column="same")
    # The column is an input, whatever is in it.
    assert "metric_weight_column" in cli(judged, *RUN, "--dry-run").stdout
    cli(judged, *RUN)
    assert results(judged) == plain
    logits = judged / "output/300/oof_logit_by_last.npy"
    before = logits.read_bytes() if logits.exists() else None
    change(judged, metric_weight_column="w")
    cli(judged, *RUN)
    found = results(judged)
    assert all(found[name] != plain[name] for name in plain)
    # What the heads learn stays.
    assert (logits.read_bytes() if logits.exists() else None) == before
    weights = pd.read_csv(judged / "input/train.csv")["w"].to_numpy(float)
    scores = pd.read_csv(judged / "output/900/ensemble_scores.csv").set_index("name")
    for name in ("avg-all", "wopt-all", "box"):
        if name in scores.index:
            expected = rmse(judged, name, weights)
            assert scores.loc[name, "cross_fitted"] == pytest.approx(expected, abs=1e-6)
            assert scores.loc[name, "low"] <= expected <= scores.loc[name, "high"]
    facts = json.loads((judged / "output/900/manifest.json").read_text())["facts"]
    truth = pd.read_csv(judged / "input/train.csv")["target"].to_numpy(float)
    mean = np.average(truth, weights=weights)
    constant = np.sqrt(np.average((truth - mean) ** 2, weights=weights))
    assert facts["constant"] == pytest.approx(constant)
    cli(judged, "report", "-cfg", "exp_config/900.yml", "-o", "r.html")
    assert "metric weighs rows by the column w" in (judged / "r.html").read_text()
    shown = cli(judged, "compare", "output/300", "output/301").stdout
    oof = pd.read_csv(judged / "output/300/oof_prediction_by_last.csv")["prediction"]
    of_head = np.sqrt(np.average((oof - truth) ** 2, weights=weights))
    assert f"{of_head:.4f}" in shown and "the metric weighs rows by the column w" in shown
    table = pd.read_csv(judged / "output/300/score_by_last.csv").set_index("fold")
    assert table.loc["oof", "metric"] == pytest.approx(of_head, abs=1e-6)


def test_epochs_are_chosen_by_the_weighted_metric(cli, judged):
    file = judged / "exp_config/100.yml"
    network = {"globals/max_epoch": 1, "model/pretrained": None, "loader/train/num_workers": 0}
    write_experiment(judged, "100", yaml.safe_load(file.read_text()) | network)
    change(judged, metric_weight_column="w")
    cli(judged, "run", "-cfg", "exp_config/100.yml")
    (scores,) = (judged / "output/100").glob("score_by_*.csv")
    scores = pd.read_csv(scores).set_index("fold")
    (table,) = (judged / "output/100").glob("oof_prediction_by_*.csv")
    table = pd.read_csv(table)
    weights = pd.read_csv(judged / "input/train.csv")["w"].to_numpy(float)
    for fold in (0, 1):
        held = (table["fold"] == fold).to_numpy()
        off = (table["prediction"] - table["target"]).to_numpy()[held]
        expected = np.sqrt(np.average(off**2, weights=weights[held]))
        logged = json.loads((judged / f"output/100/fold{fold}/log.json").read_text())[-1]
        assert logged["val/metric"] == pytest.approx(expected, rel=1e-4)
        assert scores.loc[str(fold), "metric"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "change_table", "message"),
    [
        ({"metric_weight_column": "weigt"}, None, "no column 'weigt'"),
        ({"metric_weight_column": "target"}, None, "must be different columns"),
        ({"metric_weight_column": "w"}, ("w", -1), "column w: 24 weights are missing, negative"),
        (
            {"metric_weight_column": "w", "metric": "Own", "python": ["own.py"]},
            None,
            "metric_weight_column: Own cannot weigh rows; give its function",
        ),
    ],
)
def test_wrong_weights_of_the_metric_are_one_line(cli, judged, settings, change_table, message):
    (judged / "own.py").write_text(
        "from foldsmith.targets.metrics import Metric\n"
        'TYPES = {"Own": Metric("Own", lambda p, y: abs(p - y).max(), greater_is_better=False)}\n'
    )
    if change_table is not None:
        path = judged / "input/train.csv"
        pd.read_csv(path).assign(**dict([change_table])).to_csv(path, index=False)
    change(judged, **settings)
    result = cli(judged, "preprocess", code=2)
    assert message in result.stderr and "Traceback" not in result.stderr


def test_a_fold_without_a_judged_row_is_one_line(cli, judged):
    cli(judged, "preprocess")
    (folds,) = (judged / "input").glob("train_*fold.csv")
    first = set(pd.read_csv(folds).query("fold == 1")["object_id"])
    path = judged / "input/train.csv"
    table = pd.read_csv(path)
    table.assign(w=~table["object_id"].isin(first) * 1).to_csv(path, index=False)
    change(judged, metric_weight_column="w")
    result = cli(judged, *RUN, code=2)
    assert "column w: every row of fold 1 has the weight 0" in result.stderr
    # One column may be both.
    change(judged, sample_weight_column="w", metric_weight_column="w")
    assert "every row of fold 1 has the weight 0" in cli(judged, *RUN, code=2).stderr
