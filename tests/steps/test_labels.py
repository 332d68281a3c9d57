"""Several labels per image: from tables to submissions and predictions of new images."""

import json
import shutil
import signal

import numpy as np
import pandas as pd
import pytest
from die_at_write import die_at_write
from fastapi.testclient import TestClient
from kill_and_resume import compare
from label_data import LABELS, labels_of, make_labels
from safetensors.numpy import load_file
from sklearn.metrics import confusion_matrix, f1_score, roc_auc_score
from warm import Command, foldsmith

import foldsmith as package
from foldsmith.errors import ConfigError, DataError, OutputError
from foldsmith.extras.serve.limits import Limits
from foldsmith.extras.serve.service import create_app
from foldsmith.predictor.export import export
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import read_folds, read_train
from foldsmith.report.finished_run import read_finished
from foldsmith.report.label_parts import label_parts, label_scores
from foldsmith.report.run_comparison import compare_runs
from foldsmith.steps.preprocess import preprocess
from foldsmith.targets.decisions import LABEL_THRESHOLDS
from foldsmith.targets.label_thresholds import fit_label_thresholds

N_TRAIN, N_TEST = 40, 8


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project with a column per label after its run."""
    folder = make_labels(tmp_path_factory.mktemp("labels") / "columns")
    result = foldsmith(folder, "run", "-cfg", "exp_config/901.yml")
    assert result.returncode == 0, result.stdout + result.stderr
    (folder / "said.txt").write_text(result.stdout + result.stderr)
    return folder


def test_folds_balance_labels_and_keep_the_columns(finished):
    table = pd.read_csv(finished / "input/train_skf-3fold.csv")
    assert {"id", "site", "fold", *LABELS} <= set(table.columns)
    counts = table.groupby("fold")[list(LABELS)].sum()
    assert (counts.max() - counts.min() <= 2).all()
    said = (finished / "said.txt").read_text()
    assert "Traceback" not in said and "warning: the report" not in said


def test_the_report_has_a_row_per_label(finished):
    page = next((finished / "reports").rglob("*.html")).read_text()
    for name in LABELS:
        assert f"<td>{name}</td>" in page
    assert "with_threshold" in page


@pytest.mark.parametrize(("metric", "decides"), [("F1", True), ("LogLoss", False)])
def test_the_table_of_labels_names_thresholds_only_if_there_are_some(tmp_path, metric, decides):
    project = ProjectFolder.open(make_labels(tmp_path / "x", metric=metric))
    preprocess(project)
    folds = read_folds(project, None)
    probabilities = np.random.default_rng(0).random((N_TRAIN, len(LABELS)))
    scores = next(label_parts(project, folds, probabilities))
    assert ("thresholds" in scores.caption) == decides
    assert ("with_threshold" in scores.columns) == decides


def test_submissions_have_a_column_of_0_and_1_per_label(finished):
    submission = pd.read_csv(finished / "output/901/submission.csv")
    assert list(submission.columns) == ["id", *LABELS]
    assert set(np.unique(submission[list(LABELS)])) <= {0, 1}
    truth = labels_of(N_TRAIN + N_TEST, 0)[N_TRAIN:]
    truth[0] = 0
    # The colours are seen at once by the descriptors.
    assert (submission[list(LABELS)].to_numpy() == truth).mean() > 0.85
    probabilities = pd.read_csv(finished / "output/901/probabilities.csv")
    assert list(probabilities.columns) == ["id", *LABELS]
    assert not np.allclose(probabilities[list(LABELS)].sum(axis=1), 1)


def test_thresholds_per_label_are_scored_out_of_fold(finished):
    for name in ("400", "410"):
        scores = pd.read_csv(finished / f"output/{name}/score_by_last.csv", dtype={"fold": str})
        assert "oof" in set(scores["fold"])
    scores = pd.read_csv(finished / "output/410/score_by_last.csv", dtype={"fold": str})
    assert scores["fold"].iloc[-1] == "thresholds"
    blends = pd.read_csv(finished / "output/901/ensemble_scores.csv")
    assert {"wopt-all", "mean+thresholds", "simplex+thresholds"} <= set(blends["name"])
    assert blends["cross_fitted"].between(0, 1).all()


def test_oof_predictions_are_texts_and_arrays(finished):
    oof = pd.read_csv(finished / "output/410/oof_prediction_by_last.csv", keep_default_na=False)
    assert list(oof.columns) == ["id", "fold", *LABELS, "prediction"]
    array = np.load(finished / "output/410/oof_prediction_by_last.npy")
    assert array.shape == (N_TRAIN, len(LABELS))
    words = [" ".join(np.array(LABELS)[row >= 0.5]) for row in array]
    assert oof["prediction"].tolist() == words
    cross_fitted = np.load(finished / "output/901/cross_fitted_probabilities.npy")
    assert cross_fitted.shape[1:] == (N_TRAIN, len(LABELS))


def test_new_images_are_predicted_as_the_test_images(finished, cli):
    cli(finished, "predict", "--run", "output/901", "input/images/4*.png", "-o", "new.csv")
    table = pd.read_csv(finished / "new.csv", keep_default_na=False)
    assert list(table.columns) == [
        *("path", "prediction", "spread"),
        *(f"probability_{name}" for name in LABELS),
    ]
    submission = pd.read_csv(finished / "output/901/submission.csv").set_index("id")
    for path, words in zip(table["path"], table["prediction"], strict=True):
        number = int(path.rpartition("/")[2].removesuffix(".png"))
        if number >= N_TRAIN:
            expected = [name for name in LABELS if submission.loc[number, name]]
            assert words.split() == expected


def test_exports_predict_the_same(finished, tmp_path):
    images = [finished / f"input/images/{k}.png" for k in range(N_TRAIN, N_TRAIN + 4)]
    for run, onnx in (("output/901", False), ("output/410", True)):
        exported = export(finished / run, tmp_path / f"kept{onnx}", onnx=onnx)
        tables = [package.load(folder).predict(images) for folder in (finished / run, exported)]
        pd.testing.assert_frame_equal(*tables, atol=1e-4)
        assert {f"probability_{name}" for name in LABELS} <= set(tables[0].columns)


def test_the_service_answers_labels_and_probabilities(finished):
    client = TestClient(create_app(package.load(finished / "output/901"), "901", Limits()))
    image = ("one.png", (finished / "input/images/41.png").read_bytes())
    (entry,) = client.post("/predict", files=[("file", image)]).json()["predictions"]
    assert set(entry["probabilities"]) == set(LABELS)
    said = [name for name in LABELS if entry["probabilities"][name] >= 0.5]
    assert entry["prediction"].split() == said


def test_python_gives_labels_as_text(finished):
    results = package.Project.open(finished).results("901")
    oof, predictions = results.oof, results.predictions
    assert (oof["target"] == oof["prediction"]).mean() > 0.7
    submission = pd.read_csv(finished / "output/901/submission.csv")
    texts = [" ".join(np.array(LABELS)[row == 1]) for row in submission[list(LABELS)].to_numpy()]
    assert predictions["prediction"].tolist() == texts
    assert len(results.scores)
    with pytest.raises(OutputError, match="this figure is of one column, but the target is"):
        results.plot_confusion()


def test_a_calibration_of_one_column_is_refused(finished, cli):
    change = "ensemble/calibrate=isotonic"
    result = cli(finished, "ensemble", "-cfg", "exp_config/901.yml", change, "-f", code=2)
    assert "isotonic needs a metric of point predictions" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_stack_of_labels_is_scored_and_kept(finished):
    scores = pd.read_csv(finished / "output/901/ensemble_scores.csv").set_index("name")
    assert scores.loc[["stack", "stack+thresholds"], "cross_fitted"].between(0, 1).all()
    arrays = load_file(finished / "output/901/blends.safetensors")
    assert arrays["stack.label_weights"].shape[0] == len(LABELS)


def test_runs_are_compared_by_label(finished, cli):
    said = cli(finished, "compare", "output/400", "output/410").stdout
    comparison = compare_runs(*(read_finished(finished / f"output/{n}") for n in ("400", "410")))
    targets = labels_of(N_TRAIN + N_TEST, 0)[:N_TRAIN]
    of_runs = [np.load(finished / f"output/{n}/oof_prediction_by_last.npy") for n in ("400", "410")]
    for row in comparison.by_label.to_dict("records"):
        k = LABELS.index(row["label"])
        assert row["images"] == targets[:, k].sum()
        for run, probabilities in zip("AB", of_runs, strict=True):
            decided = probabilities[:, k] >= 0.5
            assert row[run] == pytest.approx(f1_score(targets[:, k], decided, zero_division=0))
            area = roc_auc_score(targets[:, k], probabilities[:, k])
            assert row[f"AUC {run}"] == pytest.approx(area)
        assert row["gain"] == pytest.approx(row["B"] - row["A"])
        assert row["low"] <= row["gain"] <= row["high"]
        assert f"{row['label']}: A {row['A']:.4f}, B {row['B']:.4f}" in said
    assert comparison.by_label["gain"].is_monotonic_decreasing
    page = (finished / "reports/compare_400_410.html").read_text()
    assert all(f"<td>{name}</td>" in page for name in LABELS)
    # The blend that is recommended brings its thresholds, each fitted without the fold it judges.
    blend = read_finished(finished / "output/901")
    scores = pd.read_csv(finished / "output/901/ensemble_scores.csv").set_index("name")
    score = scores.loc[blend.predictions.blend, "cross_fitted"]
    assert blend.project.metric(blend.predictions.points, targets) == pytest.approx(score)
    # Its tables have decisions; reports rank images by the probabilities behind them.
    assert not np.isin(blend.predictions.points, (0, 1)).all()


def test_runs_of_other_labels_are_not_compared(finished, tmp_path, cli):
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    text = (other / "project.yml").read_text()
    (other / "project.yml").write_text(text.replace("- red\n- green", "- green\n- red"))
    result = cli(finished, "compare", "output/400", str(other / "output/410"), code=2)
    assert "have other labels, or in another order" in result.stderr


def test_scores_of_each_label_are_its_own(tmp_path):
    # The weights of the metric play no part for a label alone.
    metric = "F1(weights={red: 1, green: 1, blue: 2})"
    project = ProjectFolder.open(make_labels(tmp_path / "x", metric=metric))
    preprocess(project)
    folds = read_folds(project, None)
    rng, targets = np.random.default_rng(0), project.form.read(folds)
    probabilities = (0.1 + 0.2 * targets + 0.3 * rng.random(targets.shape)).round(3)
    scores = label_scores(project, folds, probabilities).set_index("label")
    fold_numbers = folds["fold"].to_numpy()
    decided = LABEL_THRESHOLDS.cross_fitted(probabilities, targets, fold_numbers, project.metric)
    cuts = fit_label_thresholds(probabilities, targets, project.metric)
    for k, name in enumerate(LABELS):
        row, truth = scores.loc[name], targets[:, k]
        plain, better = (f1_score(truth, p[:, k] >= 0.5) for p in (probabilities, decided))
        assert row["F1(average=macro)"] == pytest.approx(plain) and row["images"] == truth.sum()
        assert row["low"] <= plain <= row["high"]
        assert row["AUC"] == pytest.approx(roc_auc_score(truth, probabilities[:, k]))
        assert row["with_threshold"] == pytest.approx(better) and better > plain
        assert row["threshold"] == pytest.approx(cuts[k])
        assert row["hits"] == (truth * (decided[:, k] >= 0.5)).sum()


def test_counts_and_galleries_of_each_label(tmp_path):
    project = ProjectFolder.open(make_labels(tmp_path / "x", metric="LogLoss"))
    preprocess(project)
    folds = read_folds(project, None)
    probabilities = np.random.default_rng(0).random((N_TRAIN, len(LABELS)))
    targets = project.form.read(folds)
    counts = label_scores(project, folds, probabilities).set_index("label")
    for k, name in enumerate(LABELS):
        (_, alarms), (misses, hits) = confusion_matrix(targets[:, k], probabilities[:, k] >= 0.5)
        row = counts.loc[name, ["hits", "misses", "false_alarms"]]
        assert row.tolist() == [hits, misses, alarms]
    galleries = [
        part for part in label_parts(project, folds, probabilities) if hasattr(part, "images")
    ]
    of_label = {part.caption.partition(":")[0]: part.images for part in galleries[2:]}
    assert set(of_label) == set(LABELS)
    worst = int(np.abs(probabilities - targets)[:, 0].argmax())
    assert of_label["red"][0][1].startswith(f"{folds['id'].iloc[worst]}: ")


def test_a_second_run_has_nothing_to_do_and_a_label_makes_it_stale(finished, cli):
    again = cli(finished, "status", "-cfg", "exp_config/901.yml").stdout
    assert "stale" not in again and "to do" not in again.lower()
    path = finished / "input/train.csv"
    before = path.read_text()
    table = pd.read_csv(path)
    table.loc[0, "blue"] = 1 - table.loc[0, "blue"]
    table.to_csv(path, index=False)
    said = cli(finished, "status", "-cfg", "exp_config/901.yml").stdout
    path.write_text(before)
    assert said != again


def test_a_killed_fine_tuning_continues_and_ends_as_one_that_was_not_killed(
    finished, tmp_path, cli
):
    folder = make_labels(tmp_path / "killed")
    run = ("run", "--no-report", "-cfg", "exp_config/901.yml")
    # In fold 1, after the first of two epochs.
    before = (die_at_write, "410/fold1/resume.pth", "after")
    killed = Command(folder, *run, before=before).finish()
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    assert "continuing after epoch 1 of 2" in cli(folder, *run).stdout
    assert compare(finished / "output/410", folder / "output/410") == []


def test_text_and_columns_give_the_same_targets(tmp_path):
    columns = ProjectFolder.open(make_labels(tmp_path / "columns"))
    text = ProjectFolder.open(make_labels(tmp_path / "text", in_text=True))
    for project in (columns, text):
        preprocess(project)
    read = [project.form.read(read_train(project)) for project in (columns, text)]
    assert (read[0] == read[1]).all() and read[0].shape == (N_TRAIN, 3)
    folds = [pd.read_csv(project.fold_table)["fold"].tolist() for project in (columns, text)]
    assert folds[0] == folds[1]
    moved = ProjectFolder.open(make_labels(tmp_path / "moved", order=LABELS[::-1]))
    preprocess(moved)
    assert pd.read_csv(moved.fold_table)["fold"].tolist() == folds[0]


def test_groups_stay_whole(tmp_path):
    method = {"method": "StratifiedGroupKFold", "n_splits": 3}
    folder = make_labels(tmp_path / "groups", group_column="site", folds=method)
    project = ProjectFolder.open(folder)
    preprocess(project)
    table = pd.read_csv(project.fold_table)
    assert (table.groupby("site")["fold"].nunique() == 1).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_column": "red"}, "target_column: needs the column to predict, or"),
        ({"class_values": [0, 1]}, "class_values: labels do not exclude each other"),
        ({"n_classes": 3}, "target_range: and n_classes follow from the labels"),
        ({"target_columns": ["red", "red"]}, "target_columns: a name stands twice"),
        ({"metric": "RMSE"}, "there is no metric RMSE of several labels"),
        ({"metric": "F1(average=binary)"}, "average must be macro, micro, weighted or samples"),
        ({"target_columns": ["red", "id"]}, "must be different columns"),
        ({"label_names": ["a"]}, "label_separator: needs label_names too"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, settings, message):
    with pytest.raises(ConfigError) as error:
        ProjectFolder.open(make_labels(tmp_path / "x", **settings))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_label_with_the_separator_is_named(tmp_path):
    with pytest.raises(ConfigError, match="label_names: 'a b' has the separator in it"):
        ProjectFolder.open(make_labels(tmp_path / "x", in_text=True, label_names=["a b"]))


def test_wrong_values_name_file_column_and_line(tmp_path):
    project = ProjectFolder.open(make_labels(tmp_path / "columns"))
    path = project.data_dir / "train.csv"
    table = pd.read_csv(path).astype({"green": object})
    table.loc[[2, 5], "green"] = ["yes", 2]
    table.to_csv(path, index=False)
    with pytest.raises(DataError) as error:
        read_train(project)
    assert str(error.value) == (
        f"{path}: column green: 2 values are neither 0 nor 1, such as 'yes', the first at id 2 "
        "(lines 4, 7)"
    )
    text = ProjectFolder.open(make_labels(tmp_path / "text", in_text=True))
    path = text.data_dir / "train.csv"
    table = pd.read_csv(path, keep_default_na=False)
    table.loc[3, "labels"] = "red gren"
    table.to_csv(path, index=False)
    with pytest.raises(DataError, match="1 row has a label that is none of label_names, such as"):
        read_train(text)


@pytest.mark.parametrize(
    ("experiment", "overrides", "message"),
    [
        ("410", ["globals/task=regression"], "predicts one column, but the target of project.yml"),
        ("400", ["head={type: RidgeHead}"], "RidgeHead does not give several labels"),
        ("410", ["eval/metric={type: RMSE}"], "metric RMSE: needs values"),
    ],
)
def test_parts_of_other_targets_are_refused(finished, cli, experiment, overrides, message):
    file = f"exp_config/{experiment}.yml"
    result = cli(finished, "train", "-cfg", file, *overrides, "-f", code=2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_manifest_has_the_score_with_thresholds(finished):
    manifest = json.loads((finished / "output/410/manifest_by_last.json").read_text())
    assert 0 <= manifest["facts"]["metric_with_thresholds"] <= 1
