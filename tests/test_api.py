"""foldsmith from Python: what a run has found, as frames and figures."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from small_project import EXPERIMENTS, make_project, write_experiment

import foldsmith
from foldsmith.api import override_texts
from foldsmith.errors import ConfigError, DataError, OutputError
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import read_test
from foldsmith.utils.yaml_io import parse_yaml

FROZEN = {
    "import": "foldsmith:frozen_features.yml",
    "globals/output_root": "output/300",
    "model/base_name": "test_resnet",
    "model/pretrained": "output/000/backbone_epoch_3.pth",
    "dataset/img_size": 32,
}
# Of the named file, and of others.
OVERRIDES = {"ensemble/methods": ["mean", "simplex", "stack"], "[12]*:globals/max_epoch": 2}


@pytest.fixture(scope="module")
def project(tmp_path_factory, small_images):
    folder = make_project(tmp_path_factory.mktemp("api") / "project", small_images)
    write_experiment(folder, "300", FROZEN)
    members = {"ensemble/experiments": ["output/100", "output/200", "output/300"]}
    write_experiment(folder, "900", EXPERIMENTS["900"] | members)
    return foldsmith.Project.open(folder)


@pytest.fixture(scope="module")
def blend(project):
    return project.run("900", OVERRIDES)


@pytest.fixture(scope="module")
def member(project, blend):
    return blend.members["100"]


def test_it_is_the_project_that_the_stages_take(project):
    assert isinstance(project, ProjectFolder)
    assert project.experiment_file("900") == project.experiment_file("exp_config/900.yml")


def test_overrides_reach_the_experiments_they_are_for(blend):
    log = blend.log
    epochs = log.groupby("experiment")["epoch"].max()
    assert epochs.to_dict() == {"000": 3, "100": 2, "200": 2}
    names = blend.scores.query("kind == 'blend'")["name"].tolist()
    assert "simplex" in names and "stack" in names and "ridge" not in names


@pytest.mark.parametrize(
    "value",
    [1, 1e-5, "1", "010", "x: y", "", None, True, [1, {"a": [None]}], {"a": "@/b"}, "a\nb", "é"],
)
def test_a_value_is_the_same_as_text(value):
    (text,) = override_texts({"1*:a/b": value})
    path, _, read = text.partition("=")
    assert path == "1*:a/b" and parse_yaml(read, "") == value


def test_a_reference_stays_a_reference():
    assert override_texts({"a": "@/globals/seed"}) == ["a=@/globals/seed"]


def test_errors_are_exceptions_of_one_line(project, tmp_path):
    with pytest.raises(ConfigError, match=r"^.*no key max_epoh in globals.*max_epoch.*$"):
        project.run("100", {"globals/max_epoh": 1})
    with pytest.raises(ConfigError, match=r"^.*exp_config/999.yml: no such experiment file$"):
        project.results("999")
    with pytest.raises(ConfigError, match="is no plain value"):
        project.run("100", {"globals/max_epoch": np.int64(1)})
    with pytest.raises(ConfigError, match="give the value apart"):
        project.run("100", {"globals/max_epoch=1": 1})
    with pytest.raises(ConfigError, match=r"project.yml: no such file"):
        foldsmith.Project.open(tmp_path)
    with pytest.raises(DataError, match="no images"):
        foldsmith.Project.new(tmp_path / "new", tmp_path)


def test_status_is_a_row_per_step(project, blend):
    done = project.status("900", OVERRIDES)
    assert set(done["status"]) == {"done"} and len(done) == 10
    assert done.set_index("step").loc["train 100 fold 1", ["experiment", "fold"]].tolist() == [
        "100",
        1,
    ]
    stale = project.status("900", OVERRIDES | {"200:optimizer/lr": 0.5}).set_index("step")
    assert stale.loc["train 200 fold 0", "status"] == "stale"
    assert stale.loc["train 200 fold 0", "epochs_left"] == 2
    assert stale.loc["train 200 fold 0", "seconds_left"] > 0
    assert stale.loc["train 100 fold 0", "status"] == "done"
    assert "optimizer/lr" in stale.loc["train 200 fold 0", "why"]


def test_scores_of_an_ensemble(project, blend):
    scores = blend.scores.set_index("name")
    written = pd.read_csv(blend.folder / "ensemble_scores.csv").set_index("name")
    blends = scores[scores["kind"] == "blend"]
    assert blends.index.tolist() == written.index.tolist()
    assert blends["in_sample"].to_numpy() == pytest.approx(written["rmse"].to_numpy())
    honest = blends["cross_fitted"].to_numpy()
    assert honest == pytest.approx(written["cross_fitted"].to_numpy(), nan_ok=True)
    assert blends["submit"].sum() == 1
    members = scores[scores["kind"] == "member"]
    assert members.index.tolist() == ["100", "200", "300"]
    # The best of them is a blend too, if not of what was cross-fitted.
    assert members["cross_fitted"].min() == pytest.approx(blends.loc["best", "in_sample"])
    assert (members["low"] < members["high"]).all()


def test_scores_of_a_member(project, member):
    scores = member.scores
    assert scores["kind"].tolist() == ["fold", "fold", "member"]
    written = pd.read_csv(member.folder / "score_by_best_metric.csv")
    assert scores["cross_fitted"].to_numpy() == pytest.approx(written["metric"], rel=1e-5)
    assert scores["epoch"].iloc[:2].tolist() == written["epoch"].iloc[:2].astype(int).tolist()
    low, value, high = scores[["low", "cross_fitted", "high"]].iloc[-1]
    assert low < value < high


def test_out_of_fold_predictions(blend, member):
    oof = member.oof
    assert list(oof) == ["id", "target", "fold", "prediction"] and len(oof) == 24
    rmse = float(np.sqrt(((oof["prediction"] - oof["target"]) ** 2).mean()))
    assert rmse == pytest.approx(member.scores["cross_fitted"].iloc[-1])
    of_blend = blend.oof
    assert list(of_blend) == ["id", "target", "fold", "prediction", "100", "200", "300"]
    assert of_blend["100"].to_numpy() == pytest.approx(oof["prediction"].to_numpy())
    # That of the blend to submit, as it was cross-fitted.
    rmse = float(np.sqrt(((of_blend["prediction"] - of_blend["target"]) ** 2).mean()))
    scores = blend.scores
    submitted = scores[scores["submit"].fillna(False)]
    assert rmse == pytest.approx(submitted["cross_fitted"].iloc[0])


def test_predictions_of_the_test_images(project, blend, member):
    for results, file in ((blend, "submission.csv"), (member, "submission_by_best_metric.csv")):
        predictions = results.predictions
        written = pd.read_csv(results.folder / file)["target"]
        assert predictions["prediction"].to_numpy() == pytest.approx(written.to_numpy())
        assert predictions["id"].tolist() == read_test(project)["object_id"].tolist()
    assert list(blend.predictions) == ["id", "prediction", "100", "200", "300"]


def test_logs(blend, member):
    log = member.log
    assert log.groupby("fold")["epoch"].apply(list).to_dict() == {0: [1, 2], 1: [1, 2]}
    assert {"train/loss", "val/loss", "val/metric", "lr", "images_per_s"} <= set(log)
    assert log[["train/loss", "val/metric"]].notna().all(axis=None)
    assert set(blend.log["experiment"]) == {"000", "100", "200"}
    assert blend.log.query("experiment == '000'")["fold"].isna().all()


def test_a_pretraining_has_a_log_and_no_predictions(project, blend):
    pretraining = project.results("000")
    assert pretraining.log["epoch"].tolist() == [1, 2, 3]
    titles = [axis.get_title() for axis in pretraining.plot_learning_curves().axes]
    assert titles == ["train/loss", "train/std", "lr"]
    with pytest.raises(OutputError, match="which predicts nothing"):
        _ = pretraining.scores


def test_what_was_not_run_is_said(tmp_path, small_images):
    project = foldsmith.Project.open(make_project(tmp_path / "project", small_images))
    results = project.results("100")
    assert results.log.empty
    for ask in (
        lambda: results.scores,
        lambda: results.oof,
        lambda: results.predictions,
        results.plot_confusion,
        results.plot_scores,
        results.plot_learning_curves,
    ):
        with pytest.raises(OutputError, match=r"run 100 first|nothing was logged"):
            ask()


def test_an_experiment_inferred_by_another_checkpoint_is_found(project, blend, tmp_path):
    # A plan of the member alone would infer it by its metric.
    assert project.results("300").scores["kind"].tolist()[-1] == "member"
    folder = project.results("100", {"globals/max_epoch": 2}).folder
    manifest = folder / "manifest_by_best_metric.json"
    moved = manifest.rename(tmp_path / "kept")
    try:
        with pytest.raises(OutputError):
            _ = project.results("100").scores
        for path in folder.glob("*_by_best_metric*"):
            (folder / path.name.replace("best_metric", "last")).write_bytes(path.read_bytes())
        content = json.loads(moved.read_text())
        content.pop("sha256")  # of the content as it was
        content["outputs"] = {
            name.replace("best_metric", "last"): digest
            for name, digest in content["outputs"].items()
        }
        (folder / "manifest_by_last.json").write_text(json.dumps(content))
        assert len(project.results("100").scores) == 3
    finally:
        moved.rename(manifest)
        for path in folder.glob("*_by_last*"):
            path.unlink()


def test_figures_are_of_matplotlib_and_leave_pyplot_alone(blend, member):
    import matplotlib.pyplot as plt

    for results in (blend, member):
        curves = results.plot_learning_curves()
        lines = [line.get_label() for line in curves.axes[0].lines]
        assert lines == (["100", "200"] if results is blend else ["fold 0", "fold 1"])
        assert all(len(line.get_xdata()) == 2 for line in curves.axes[0].lines)
        scatter = results.plot_predicted_against_true()
        assert len(scatter.axes[0].collections[0].get_offsets()) == 24
        confusion = results.plot_confusion()
        numbers = [int(text.get_text()) for text in confusion.axes[0].texts]
        assert len(numbers) == 16 and sum(numbers) == 24
        figures = [curves, scatter, confusion, results.plot_scores()]
        assert all(isinstance(figure, Figure) for figure in figures)
    assert plt.get_fignums() == []


def test_a_report_is_a_file(project, blend):
    path = project.report("900", OVERRIDES)
    assert path == project.folder / "reports/900.html"
    assert "Ensemble 900" in path.read_text(encoding="utf-8")


def test_the_package_answers_at_once():
    code = (
        "import sys, foldsmith; assert 'Project' in dir(foldsmith); "
        "print(not {'torch', 'pandas', 'numpy'} & set(sys.modules)); "
        "from foldsmith import Project; print(Project.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "foldsmith.api"]
    with pytest.raises(AttributeError, match="no attribute 'Projekt'"):
        _ = foldsmith.Projekt


def test_an_ensemble_of_other_predictions_than_todays_is_an_error(project, blend, tmp_path):
    copied = foldsmith.Project.open(shutil.copytree(project.folder, tmp_path / "project"))
    assert len(copied.results("900").oof) == 24
    manifest = copied.results("900").folder / "manifest.json"
    content = json.loads(manifest.read_text())
    first = next(iter(content["inputs"]["predictions"]))
    content["inputs"]["predictions"][first] = "another"
    manifest.write_text(json.dumps(content))
    with pytest.raises(OutputError, match=r"manifest\.json: is damaged; run 900 first"):
        _ = copied.results("900").scores
    content.pop("sha256")  # of the content as it was
    manifest.write_text(json.dumps(content))
    for ask in ("scores", "oof", "predictions"):
        with pytest.raises(OutputError, match="has blended other predictions.*run 900 again"):
            getattr(copied.results("900"), ask)
