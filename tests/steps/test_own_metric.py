"""A metric of the project's own judges all that the package's judge, through the command line."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import f1_score
from small_project import write_experiment
from warm import foldsmith

from foldsmith.api import Project
from foldsmith.config import Experiment
from foldsmith.config.check import check_experiment
from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.report.finished_run import read_finished
from foldsmith.report.run_comparison import compare_runs
from foldsmith.steps.manifest import MANIFEST, read_manifest
from foldsmith.steps.registry import types_of
from foldsmith.targets.decisions import THRESHOLDS
from foldsmith.training.files import entries_of

# All that it takes to add macro F1: a function, and its line in TYPES.
METRIC = '''
import numpy as np

from foldsmith.targets.metrics import Metric


def macro_f1(predicted, classes, n_classes):
    """Return the mean over the classes of the F1 score."""
    hits = np.bincount(classes[predicted == classes], minlength=n_classes)
    named = np.bincount(predicted, minlength=n_classes)
    there = np.bincount(classes, minlength=n_classes)
    return float(np.mean(2 * hits / np.maximum(named + there, 1)))


TYPES = {"MacroF1": Metric("MacroF1", macro_f1, needs="classes", greater_is_better=True)}
'''

# A member that dares nothing (a low squared error, and few classes), and one that names the right
# class of most images and is far off for the others.
HEADS = """
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from foldsmith.models.ridge_head import RidgeHead
from foldsmith.models.fitted_heads import ArrayFields


class TimidHead(RidgeHead):
    def fit(self, features, targets, groups, seed):
        line = super().fit(features, targets, groups, seed)
        mean = targets.mean()
        return replace(line, weights=line.weights / 4, bias=mean + (line.bias - mean) / 4)


@dataclass(frozen=True)
class Daring(ArrayFields):
    mean: Any
    scale: Any
    weights: Any
    bias: Any

    def predict(self, features):
        values = (features - self.mean) / self.scale @ self.weights + self.bias
        classes = np.clip(np.round(values), 0, 3)
        return np.where(np.floor(np.abs(values) * 1e3) % 4 == 0, 3 - classes, classes)


class DaringHead(RidgeHead):
    def fit(self, features, targets, groups, seed):
        line = super().fit(features, targets, groups, seed)
        return Daring(line.mean, line.scale, line.weights, line.bias)

    def restore(self, arrays):
        return Daring(**arrays)


TYPES = {"TimidHead": TimidHead, "DaringHead": DaringHead}
"""

PROJECT = {
    **{"name": "own", "image_path": "images/{id}.png", "id_column": "id", "data_dir": "input"},
    **{"target_column": "target", "target_range": [0, 3], "n_classes": 4},
    "folds": {"method": "StratifiedKFold", "n_splits": 2, "seed": 1},
    "python": ["own_metric.py", "own_heads.py"],
}
SMALL = {"model/base_name": "test_resnet", "dataset/img_size": 32, "loader/train/batch_size": 8}
HEAD = {"import": "foldsmith:image_descriptors.yml", "globals/target_scale": "none"}
EXPERIMENTS = {
    "100": {
        "import": "foldsmith:multi_class.yml",
        "globals/output_root": "output/100",
        "globals/max_epoch": 4,
        "model/pretrained": None,
        **SMALL,
    },
    "200": HEAD | {"globals/output_root": "output/200", "head": {"type": "TimidHead"}},
    "300": HEAD | {"globals/output_root": "output/300", "head": {"type": "DaringHead"}},
    "900": {
        "import": "foldsmith:ensemble.yml",
        "globals/output_path": "output/900",
        "ensemble/experiments": ["output/100", "output/200", "output/300"],
        "ensemble/methods": ["mean", "best"],
    },
}
ENSEMBLE = ("-cfg", "exp_config/900.yml")


def classes_of(predictions) -> np.ndarray:
    return np.ceil(np.clip(predictions, 0, 3) - 0.5)  # halves down


def f1(targets, predictions) -> float:
    predicted = classes_of(predictions)
    return f1_score(targets, predicted, labels=[0, 1, 2, 3], average="macro", zero_division=0)


def judge_by(folder, metric: str) -> None:
    (folder / "project.yml").write_text(yaml.safe_dump(PROJECT | {"metric": metric}))


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A finished run of images that are as bright as their class is high, judged by macro F1."""
    folder, rng = tmp_path_factory.mktemp("own") / "project", np.random.default_rng(0)
    (folder / "input/images").mkdir(parents=True)
    (folder / "exp_config").mkdir()
    targets = np.arange(48) % 4
    for k in range(52):
        pixels = 40 + 50 * (k % 4) + rng.integers(-30, 30, (24, 24, 3))
        cv2.imwrite(str(folder / f"input/images/p{k}.png"), pixels.astype(np.uint8))
    ids = [f"p{k}" for k in range(52)]
    train = pd.DataFrame({"id": ids[:48], "target": targets})
    train.to_csv(folder / "input/train.csv", index=False)
    pd.DataFrame({"id": ids[48:]}).to_csv(folder / "input/test.csv", index=False)
    (folder / "own_metric.py").write_text(METRIC)
    (folder / "own_heads.py").write_text(HEADS)
    for name, content in EXPERIMENTS.items():
        write_experiment(folder, name, content)
    judge_by(folder, "MacroF1")
    result = foldsmith(folder, "run", "--no-report", *ENSEMBLE)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def oof_of(folder, name: str, label: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"output/{name}/oof_prediction_by_{label}.csv")


def test_epochs_are_chosen_by_it(judged, tmp_path):
    folder = shutil.copytree(judged, tmp_path / "project")
    # So fast that the metric changes from epoch to epoch.
    fast = {"optimizer/lr": 0.01, "scheduler/max_lr": 0.01, "globals/output_root": "output/110"}
    write_experiment(folder, "110", EXPERIMENTS["100"] | fast)
    for command in (("train", "-cfg", "exp_config/110.yml"), ("infer", "-e", "output/110")):
        result = foldsmith(folder, *command)
        assert result.returncode == 0, result.stderr
    scores = pd.read_csv(folder / "output/110/score_by_best_metric.csv").set_index("fold")
    for fold in ("0", "1"):
        trained = folder / f"output/110/fold{fold}"
        values = [entry["val/metric"] for entry in entries_of(trained)]
        assert max(values) > min(values)  # otherwise every choice would pass
        assert scores.loc[fold, "epoch"] == 1 + int(np.argmax(values))
        facts = read_manifest(trained / MANIFEST).facts
        assert (facts["metric"], facts["greater_is_better"]) == ("MacroF1", True)


@pytest.mark.parametrize(("name", "label"), [("100", "best_metric"), ("300", "last")])
def test_out_of_fold_scores_are_its_values(judged, name, label):
    oof = oof_of(judged, name, label)
    scores = pd.read_csv(judged / f"output/{name}/score_by_{label}.csv").set_index("fold")["metric"]
    assert scores["oof"] == pytest.approx(f1(oof["target"], oof["prediction"]))
    first = oof[oof["fold"] == 0]
    assert scores["0"] == pytest.approx(f1(first["target"], first["prediction"]))


def test_boundaries_between_classes_are_moved_for_it(judged):
    project = ProjectFolder.open(judged)
    oof = oof_of(judged, "100", "best_metric")
    folds, targets = oof["fold"].to_numpy(), oof["target"].to_numpy(np.float64)
    moved = THRESHOLDS.cross_fitted(oof["prediction"].to_numpy(), targets, folds, project.metric)
    scores = pd.read_csv(judged / "output/100/score_by_best_metric.csv").set_index("fold")
    assert scores.loc["thresholds", "metric"] == pytest.approx(f1(targets, moved), abs=1e-6)


def test_blends_are_scored_and_recommended_by_it(judged, tmp_path):
    def scores_of(folder):
        return pd.read_csv(folder / "output/900/ensemble_scores.csv").set_index("name")

    scores = scores_of(judged)
    held_out = pd.read_csv(judged / "output/900/cross_fitted_predictions.csv")
    for name in ("avg-all", "best"):
        assert scores.loc[name, "cross_fitted"] == pytest.approx(
            f1(held_out["target"], held_out[name])
        )
    assert scores.columns[0] == "macrof1"
    assert scores.loc["best", "gain"] == pytest.approx(
        scores.loc["best", "cross_fitted"] - scores.loc["avg-all", "cross_fitted"]
    )
    assert scores.loc["best", "low"] < scores.loc["best", "cross_fitted"] < 1
    # The daring member leads, and what is submitted follows it.
    (submitted,) = scores.index[scores["submit"]]
    assert scores.loc[submitted, "gain"] > scores.loc["best", "gain"] / 2 > 0
    assert (
        "best" in json.loads((judged / "output/900/manifest.json").read_text())["facts"]["reason"]
    )
    # The same members by the RMSE: the daring one is not what is submitted.
    other = tmp_path / "by_rmse"
    shutil.copytree(judged, other)
    judge_by(other, "RMSE")
    result = foldsmith(other, "ensemble", *ENSEMBLE, "-f")
    assert result.returncode == 0, result.stderr
    by_rmse = scores_of(other)
    assert by_rmse.columns[0] == "rmse" and not by_rmse.loc["best", "submit"]
    weights = pd.read_csv(other / "output/900/weights.csv").set_index("experiment")
    assert weights.loc[300, "best"] == 0


def test_report_comparison_and_api_go_by_it(judged, cli):
    cli(judged, "report", *ENSEMBLE, "-o", "report.html")
    assert "MacroF1" in (judged / "report.html").read_text()
    said = cli(judged, "compare", "output/200", "output/300").stdout
    timid, daring = (oof_of(judged, name, "last") for name in ("200", "300"))
    gain = f1(daring["target"], daring["prediction"]) - f1(timid["target"], timid["prediction"])
    assert f"MacroF1: gain of B over A {gain:+.4f}" in said
    assert "B is better than A by more than noise" in said
    results = Project.open(judged, trust=True).results("exp_config/300.yml")
    member = results.scores.iloc[-1]
    assert member["cross_fitted"] == pytest.approx(f1(daring["target"], daring["prediction"]))
    assert member["low"] < member["cross_fitted"] < member["high"]


def test_what_it_has_judged_is_stale_once_it_is_edited(judged, cli, tmp_path):
    folder = tmp_path / "edited"
    shutil.copytree(judged, folder)
    assert "stale" not in cli(folder, "status", *ENSEMBLE).stdout
    text = (folder / "own_metric.py").read_text()
    (folder / "own_metric.py").write_text(text.replace("np.mean(2", "np.min(2"))
    said = cli(folder, "status", *ENSEMBLE).stdout
    for step in ("train 100", "fit 300"):
        (line,) = [line for line in said.splitlines() if line.startswith(step)]
        assert "stale" in line and "files: own_metric.py" in line, said


@pytest.mark.parametrize(
    ("metric", "change", "message"),
    [
        ("MacroF2", ("", ""), r"project.yml: metric: there is no metric MacroF2 \(did you mean"),
        ("TimidHead", ("", ""), "metric: TimidHead is not a Metric; write it into TYPES"),
        ("MacroF1", ('c("MacroF1"', 'c("F1"'), "TYPES: MacroF1: the metric is called F1"),
        ("MacroF1", ('"classes"', '"labels"'), "needs labels, but the target is one column"),
    ],
)
def test_a_wrong_one_is_refused_when_the_project_is_opened(
    judged, tmp_path, metric, change, message
):
    for name in ("own_metric.py", "own_heads.py"):
        (tmp_path / name).write_text((judged / name).read_text().replace(*change))
    judge_by(tmp_path, metric)
    with pytest.raises(ConfigError, match=message):
        ProjectFolder.open(tmp_path)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("float('nan')", "MacroF1: returned nan for 12 rows"),
        ("1 / 0", r"MacroF1: ZeroDivisionError: .*own_metric\.py, line \d+"),
        ("np.ones(2)", "MacroF1: TypeError"),
    ],
)
def test_one_that_fails_is_named_with_its_line(judged, tmp_path, result, message):
    (tmp_path / "own_metric.py").write_text(
        METRIC.replace(
            "return float(np.mean(2 * hits / np.maximum(named + there, 1)))", f"return {result}"
        )
    )
    (tmp_path / "own_heads.py").write_text(HEADS)
    judge_by(tmp_path, "MacroF1")
    metric = ProjectFolder.open(tmp_path).metric
    with pytest.raises(ConfigError, match=message):
        metric(np.zeros(12), np.arange(12) % 4.0)


def test_classes_without_an_order_are_judged_by_the_most_probable(judged, tmp_path):
    for name in ("own_metric.py", "own_heads.py"):
        (tmp_path / name).write_text((judged / name).read_text())
    names = ["cat", "dog", "horse"]
    content = {k: v for k, v in PROJECT.items() if k not in ("target_range", "n_classes")}
    (tmp_path / "project.yml").write_text(
        yaml.safe_dump(content | {"class_names": names, "metric": "MacroF1"})
    )
    metric = ProjectFolder.open(tmp_path).metric
    assert metric.takes_probabilities and metric.for_points() == metric
    rng = np.random.default_rng(0)
    classes, probabilities = rng.integers(0, 3, 60), rng.dirichlet(np.ones(3), 60)
    expected = f1_score(classes, probabilities.argmax(axis=1), average="macro")
    assert metric(probabilities, classes.astype(float)) == pytest.approx(expected)


def test_a_comparison_of_projects_names_a_metric_that_differs(judged, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(judged, other)
    a = read_finished(judged / "output/300")
    text = (other / "own_metric.py").read_text()
    (other / "own_metric.py").write_text(text.replace("np.mean(2", "np.min(2"))
    compared = compare_runs(a, read_finished(other / "output/300"))
    assert "the code of MacroF1 differs between the projects; A's judges both" in compared.notes
    assert compared.scores[0].score == compared.scores[1].score
    (other / "own_metric.py").write_text(text.replace("better=True", "better=False"))
    with pytest.raises(ConfigError, match="MacroF1 is another metric in each"):
        compare_runs(a, read_finished(other / "output/300"))


@pytest.mark.parametrize("name", ["MacroF1", "QWK", "RMSE"])
def test_an_experiment_takes_a_metric_by_its_name_alone(judged, name):
    project = ProjectFolder.open(judged)
    override = f"eval/metric={{type: {name}}}"
    experiment = Experiment.load(project, Path("exp_config/100.yml"), [override])
    check_experiment(experiment, types_of(project))
    metric = experiment.build(types_of(project))["eval/metric"]
    assert metric == project.metrics[name].for_classes(project.class_values)
