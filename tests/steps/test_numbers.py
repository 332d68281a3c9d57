"""Several numbers per image: from tables to submissions and predictions of new images."""

import json
import shutil
import signal

import numpy as np
import pandas as pd
import pytest
import yaml
from die_at_write import die_at_write
from fastapi.testclient import TestClient
from kill_and_resume import compare
from number_data import NUMBERS, RANGES, make_numbers, numbers_of
from warm import Command, foldsmith

import foldsmith as package
from foldsmith.blending.base import Goal, Rows
from foldsmith.blending.methods import restore_blend
from foldsmith.errors import ConfigError, DataError
from foldsmith.extras.serve.limits import Limits
from foldsmith.extras.serve.service import create_app
from foldsmith.models.fitted_arrays import part, read_arrays
from foldsmith.predictor.export import export
from foldsmith.project import ProjectFolder
from foldsmith.project.submission import read_submission, submission_form, submission_table
from foldsmith.project.tables import read_test, read_train
from foldsmith.report.number_parts import number_scores
from foldsmith.steps.preprocess import preprocess

N_TRAIN, N_TEST = 40, 8
COLUMNS = [*NUMBERS, "around"]
WEIGHTS = {"around": 2.0, "light": 0.5}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project of three numbers, some missing, after its run."""
    folder = make_numbers(tmp_path_factory.mktemp("numbers") / "x", target_weights=WEIGHTS)
    result = foldsmith(folder, "run", "-cfg", "exp_config/901.yml")
    assert result.returncode == 0, result.stdout + result.stderr
    (folder / "said.txt").write_text(result.stdout + result.stderr)
    return folder


def test_the_report_has_a_row_per_judged_column(finished):
    said = (finished / "said.txt").read_text()
    assert "Traceback" not in said and "warning: the report" not in said
    page = next((finished / "reports").rglob("*.html")).read_text()
    for name in COLUMNS:
        assert f"<td>{name}</td>" in page


def test_scores_are_weighted_means_over_the_columns(finished):
    project = ProjectFolder.open(finished)
    folds = pd.read_csv(finished / "input/train_skf-2fold.csv")
    oof = np.load(finished / "output/400/oof_prediction_by_last.npy")
    rows = number_scores(project, folds.astype(str).replace("nan", ""), oof).set_index("target")
    truth = folds.assign(around=2 * (folds["width"] + folds["height"]))
    predicted = dict(zip(NUMBERS, oof.T, strict=True))
    predicted["around"] = 2 * (predicted["width"] + predicted["height"])
    expected = {}
    for name in COLUMNS:
        seen = truth[name].notna()
        assert rows.loc[name, "images"] == seen.sum()
        off = (predicted[name] - truth[name])[seen]
        expected[name] = np.sqrt((off**2).mean()) / truth[name][seen].std(ddof=0)
        assert rows.loc[name, "NRMSE"] == pytest.approx(expected[name])
    weights = [WEIGHTS.get(name, 1.0) for name in COLUMNS]
    scores = pd.read_csv(finished / "output/400/score_by_last.csv").set_index("fold")
    mean = np.average([expected[name] for name in COLUMNS], weights=weights)
    assert scores.loc["oof", "metric"] == pytest.approx(mean)
    assert mean < 0.8  # the constant has 1


def test_submissions_and_predictions_have_all_columns(finished, cli):
    submission = pd.read_csv(finished / "output/901/submission.csv")
    assert list(submission.columns) == ["id", *COLUMNS]
    around = 2 * (submission["width"] + submission["height"])
    assert np.allclose(submission["around"], around, rtol=1e-12)
    for name in NUMBERS:
        assert submission[name].between(*RANGES[name]).all()
    oof = pd.read_csv(finished / "output/410/oof_prediction_by_last.csv")
    assert list(oof.columns) == ["id", "fold", *NUMBERS, *(f"prediction_{c}" for c in COLUMNS)]
    cli(finished, "predict", "--run", "output/901", "input/images/4*.png", "-o", "new.csv")
    table = pd.read_csv(finished / "new.csv").set_index("path")
    for path, row in table.iterrows():
        number = int(str(path).rpartition("/")[2].removesuffix(".png"))
        if number >= N_TRAIN:
            expected = submission.set_index("id").loc[number]
            for name in COLUMNS:
                assert row[f"prediction_{name}"] == pytest.approx(expected[name], rel=1e-5)
    assert {f"spread_{name}" for name in NUMBERS} <= set(table.columns)


def test_exports_predict_the_same(finished, tmp_path):
    images = [finished / f"input/images/{k}.png" for k in range(N_TRAIN, N_TRAIN + 4)]
    for run, onnx in (("output/901", False), ("output/410", True)):
        exported = export(finished / run, tmp_path / f"kept{onnx}", onnx=onnx)
        tables = [package.load(folder).predict(images) for folder in (finished / run, exported)]
        for name in NUMBERS:
            unit = RANGES[name][1]
            one, other = (table[f"prediction_{name}"] / unit for table in tables)
            assert np.allclose(one, other, atol=1e-4)


def test_the_service_and_python_name_the_targets(finished):
    client = TestClient(create_app(package.load(finished / "output/901"), "901", Limits()))
    image = ("one.png", (finished / "input/images/41.png").read_bytes())
    (entry,) = client.post("/predict", files=[("file", image)]).json()["predictions"]
    submission = pd.read_csv(finished / "output/901/submission.csv").set_index("id")
    assert entry["prediction"] == pytest.approx(submission.loc[41].to_dict(), rel=1e-5)
    assert set(entry["spread"]) == set(NUMBERS)
    results = package.Project.open(finished).results("901")
    assert {"target_width", "prediction_around"} <= set(results.oof.columns)
    predictions = results.predictions
    assert np.allclose(predictions["prediction_width"], submission["width"])


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        ({"target_weights": {"light": 3.0}}, True),
        ({"derived_columns": {"around": "width + height"}}, True),
        ({"name": "another"}, False),
    ],
)
def test_weights_and_derived_columns_make_steps_stale(finished, cli, change, stale):
    before = cli(finished, "status", "-cfg", "exp_config/901.yml").stdout
    path = finished / "project.yml"
    kept = path.read_text()
    path.write_text(yaml.safe_dump({**yaml.safe_load(kept), **change}))
    after = cli(finished, "status", "-cfg", "exp_config/901.yml").stdout
    path.write_text(kept)
    assert ("stale" in after) == stale and "stale" not in before


def test_a_target_that_changes_makes_steps_stale(finished, cli):
    path = finished / "input/train.csv"
    kept = path.read_text()
    pd.read_csv(path).assign(light=lambda t: t["light"].fillna(3)).to_csv(path, index=False)
    after = cli(finished, "status", "-cfg", "exp_config/901.yml").stdout
    path.write_text(kept)
    assert "stale" in after


def test_a_killed_fine_tuning_continues_and_ends_as_one_that_was_not_killed(
    finished, tmp_path, cli
):
    folder = shutil.copytree(finished, tmp_path / "killed")
    shutil.rmtree(folder / "output/410")
    run = ("run", "--no-report", "-cfg", "exp_config/901.yml")
    before = (die_at_write, "410/fold1/resume.pth", "after")
    killed = Command(folder, *run, before=before).finish()
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    assert "continuing after epoch 1 of 2" in cli(folder, *run).stdout
    assert compare(finished / "output/410", folder / "output/410") == []


def test_one_column_gives_the_numbers_of_one_number(tmp_path, cli):
    """Heads, networks, blends and folds of form 4 with one column equal those of form 1."""
    made = {
        name: make_numbers(
            tmp_path / name,
            *(24, 2),
            **{"order": ("width",), "missing": False, "derived": None, "metric": "RMSE"},
        )
        for name in ("several", "one")
    }
    content = yaml.safe_load((made["one"] / "project.yml").read_text())
    for key in ("target_columns", "target_kind", "target_ranges"):
        del content[key]
    content |= {"target_column": "width", "target_range": RANGES["width"], "n_classes": 2}
    (made["one"] / "project.yml").write_text(yaml.safe_dump(content))
    recipes = {"400": "image_descriptors", "410": "regression", "901": "recommended_ensemble"}
    for number, recipe in recipes.items():
        path = made["one"] / f"exp_config/{number}.yml"
        tree = yaml.safe_load(path.read_text()) | {"import": f"foldsmith:{recipe}.yml"}
        if "head" in tree:
            tree["head"] = tree["head"]["head"]
        path.write_text(yaml.safe_dump(tree))
    for folder in made.values():
        cli(folder, "run", "--no-report", "-cfg", "exp_config/901.yml")
    folds = [pd.read_csv(f / "input/train_skf-2fold.csv")["fold"] for f in made.values()]
    assert folds[0].tolist() == folds[1].tolist()
    for member in ("400", "410"):
        arrays = [np.load(f / f"output/{member}/oof_prediction_by_last.npy") for f in made.values()]
        assert np.allclose(*arrays, atol=1e-9)
    scores = [pd.read_csv(f / "output/901/ensemble_scores.csv") for f in made.values()]
    for column in ("cross_fitted", "low", "high"):
        one, other = (s.set_index("name")[column] for s in scores)
        names = [name for name in one.index if name in other.index]
        assert {"best", "wopt-all", "greedy"} <= set(names)
        assert np.allclose(one[names].astype(float), other[names].astype(float), atol=1e-9)


def test_the_order_of_the_columns_changes_nothing(finished, tmp_path, cli):
    turned = make_numbers(tmp_path / "turned", order=NUMBERS[::-1], target_weights=WEIGHTS)
    cli(turned, "run", "--no-report", "-cfg", "exp_config/400.yml")
    found = []
    for folder in (finished, turned):
        table = pd.read_csv(folder / "output/400/oof_prediction_by_last.csv")
        scores = pd.read_csv(folder / "output/400/score_by_last.csv")["metric"]
        found.append((table[["fold", *(f"prediction_{c}" for c in COLUMNS)]], scores))
    assert np.allclose(found[0][0], found[1][0], rtol=1e-9)
    assert np.allclose(found[0][1], found[1][1], rtol=1e-12)


def test_folds_balance_the_targets_and_keep_groups(tmp_path):
    folder = make_numbers(
        tmp_path / "x",
        group_column="site",
        folds={"method": "StratifiedGroupKFold", "n_splits": 3},
    )
    preprocess(ProjectFolder.open(folder))
    table = pd.read_csv(folder / "input/train_sgkf-3fold.csv")
    assert (table.groupby("site")["fold"].nunique() == 1).all()
    assert (table["fold"].value_counts() >= 10).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"derived_columns": {"t": "width + depth"}}, "derived_columns: t: .* no target depth"),
        ({"derived_columns": {"t": "width ** 2"}}, "names of targets, numbers"),
        ({"derived_columns": {"t": "__import__('os')"}}, "names of targets, numbers"),
        ({"derived_columns": {"light": "width"}}, "light: is the name of another column"),
        ({"target_weights": {"wide": 1}}, "target_weights: wide is none of"),
        ({"target_weights": {"width": 0}}, "target_weights: width: 0 is not above 0"),
        ({"target_ranges": {"width": [0, 1]}}, "target_ranges: has no range of light"),
        ({"target_ranges": {**RANGES, "light": [3, 3]}}, "target_ranges: light: 3 is not below 3"),
        ({"metric": "QWK"}, "there is no metric QWK of several numbers"),
        ({"target_kind": "labels"}, "target_ranges: is for target_kind: numbers"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, settings, message):
    folder = make_numbers(tmp_path / "x", **settings)
    with pytest.raises(ConfigError, match=message) as caught:
        ProjectFolder.open(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "row", "value", "message"),
    [
        ("light", 3, "bright", "column light: 1 target is no number .* 'bright', .* id 3"),
        ("light", 3, "1001", "column light: 1 target is outside target_range 0..1000"),
        (None, 3, "", "columns width, light, height: 1 row has none of the targets, .* id 3"),
        ("height", None, "", "column height: no row has a target"),
    ],
)
def test_wrong_tables_are_one_line(tmp_path, column, row, value, message):
    folder = make_numbers(tmp_path / "x")
    path = folder / "input/train.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    chosen = slice(None) if row is None else row
    table.loc[chosen, list(NUMBERS) if column is None else column] = value
    table.to_csv(path, index=False)
    with pytest.raises(DataError, match=message) as caught:
        read_train(ProjectFolder.open(folder))
    assert "\n" not in str(caught.value)


def test_a_computed_column_of_the_table_that_differs_is_said(tmp_path, caplog):
    folder = make_numbers(tmp_path / "x")
    path = folder / "input/train.csv"
    table = pd.read_csv(path)
    table["around"] = 2 * (table["width"] + table["height"])
    table.loc[3, "around"] += 10
    table.to_csv(path, index=False)
    with caplog.at_level("INFO"):
        preprocess(ProjectFolder.open(folder))
    assert "column around: differs from 2 * (width + height) in 1 row, by up to 10" in caplog.text


def test_sample_submissions_have_columns_or_rows_per_target(tmp_path):
    numbers = numbers_of(N_TRAIN + N_TEST)[N_TRAIN:]
    ids = np.arange(N_TRAIN, N_TRAIN + N_TEST)
    for form in ("columns", "long"):
        folder = make_numbers(tmp_path / form, sample_submission="sample.csv")
        if form == "columns":
            sample = pd.DataFrame({"id": ids[::-1], "light": 0, "around": 0, "width": 0})
            sample["height"] = 0
        else:
            pairs = [(k, name) for name in COLUMNS for k in ids]
            sample = pd.DataFrame(pairs, columns=["id", "which"]).assign(value=0)
        sample.to_csv(folder / "input/sample.csv", index=False)
        project = ProjectFolder.open(folder)
        made = submission_table(project, read_test(project), numbers)
        assert list(made.columns) == list(sample.columns) and len(made) == len(sample)
        made.to_csv(folder / "made.csv", index=False)
        again = read_submission(project, folder / "made.csv", read_test(project))
        assert np.allclose(again, numbers)
        if form == "columns":
            assert made["light"].astype(float).tolist() == numbers[::-1, 1].tolist()
        if form == "long":
            chosen = made[(made["id"] == str(ids[1])) & (made["which"] == "around")]["value"].iloc[
                0
            ]
            assert float(chosen) == 2 * (numbers[1, 0] + numbers[1, 2])


@pytest.mark.parametrize("names", [COLUMNS[::-1], NUMBERS])
def test_joined_ids_may_leave_out_derived_columns(tmp_path, names):
    numbers = numbers_of(N_TRAIN + N_TEST)[N_TRAIN:]
    folder = make_numbers(tmp_path / "x", sample_submission="sample.csv")
    pairs = [(k, name) for name in names for k in range(N_TEST)[::-1]]
    sample = pd.DataFrame({"row": [f"{name}:{k + N_TRAIN}" for k, name in pairs], "value": 0})
    sample.to_csv(folder / "input/sample.csv", index=False)
    project = ProjectFolder.open(folder)
    assert "joined as target:id in row" in submission_form(project, read_test(project)).title
    made = submission_table(project, read_test(project), numbers)
    of_image = {"around": 2 * (numbers[:, 0] + numbers[:, 2])}
    of_image |= dict(zip(NUMBERS, numbers.T, strict=True))
    assert made["row"].tolist() == sample["row"].tolist()
    assert made["value"].astype(float).tolist() == [of_image[name][k] for k, name in pairs]
    made.to_csv(folder / "made.csv", index=False)
    again = read_submission(project, folder / "made.csv", read_test(project))
    assert np.allclose(again, numbers)

    sample.iloc[:-1].to_csv(folder / "input/sample.csv", index=False)
    with pytest.raises(DataError, match="one for each id of the test table and target, but there"):
        submission_form(ProjectFolder.open(folder), read_test(project))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["light", "width"], "such as light, but no column of the target height"),
        ([*NUMBERS, "depth"], "but a column depth, which is no target and no derived column"),
        (["a", "b"], "one column per target .width, light, height, around., or a row per id and t"),
    ],
)
def test_a_sample_with_other_columns_is_one_line(tmp_path, columns, message):
    folder = make_numbers(tmp_path / "x", sample_submission="sample.csv")
    ids = np.arange(N_TRAIN, N_TRAIN + N_TEST)
    sample = pd.DataFrame({"id": ids} | dict.fromkeys(columns, 0))
    sample.to_csv(folder / "input/sample.csv", index=False)
    project = ProjectFolder.open(folder)
    with pytest.raises(DataError, match=message) as caught:
        submission_form(project, read_test(project))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[:-1], "a row for each id and target, but some are missing: it has 23 rows"),
        (lambda t: pd.concat([t, t[:1]]), "one stands twice, in line 26"),
        (lambda t: pd.concat([t[:-1], t[:1]]), "one stands twice, in line 25: it has 24 rows"),
        (lambda t: t[t["which"] != "height"], "but no row of the target height"),
        (lambda t: t.replace("light", "lite"), "but no row of the target light"),
        (lambda t: pd.concat([t, t[:1].replace("width", "depth")]), "but a row of depth, which"),
    ],
)
def test_a_long_sample_in_part_is_one_line(tmp_path, change, message):
    folder = make_numbers(tmp_path / "x", sample_submission="sample.csv")
    pairs = [(k, name) for name in NUMBERS for k in range(N_TRAIN, N_TRAIN + N_TEST)]
    sample = pd.DataFrame(pairs, columns=["id", "which"]).assign(value=0)
    change(sample).to_csv(folder / "input/sample.csv", index=False)
    project = ProjectFolder.open(folder)
    with pytest.raises(DataError, match=message) as caught:
        submission_form(project, read_test(project))
    assert "\n" not in str(caught.value)


def test_a_loss_that_does_not_leave_missing_targets_out_is_refused(finished, cli):
    train = ("train", "-cfg", "exp_config/410.yml", "globals/output_root=output/420")
    result = cli(finished, *train, "loss={type: MSELoss}", code=2)
    (line,) = [line for line in result.stderr.splitlines() if "error: " in line]
    folds = pd.read_csv(finished / "input/train_skf-2fold.csv")
    n = (folds[list(NUMBERS)].isna().any(axis=1) & (folds["fold"] != 0)).sum()
    assert f"loss: MSELoss is NaN where a target is missing, as in {n} training rows" in line
    assert "MaskedMSELoss" in line


def test_runs_are_compared_by_column(finished, cli):
    said = cli(finished, "compare", "output/400", "output/410", "-o", "compared.html").stdout
    for name in COLUMNS:
        assert f"\n{name}: A 0." in said
    assert "A is better than B by more than noise" in said
    assert "true width" in (finished / "compared.html").read_text()


def test_stacks_and_curves_are_fitted_to_each_target_and_predict_new_images(finished, cli):
    overrides = (
        "ensemble/methods=[mean, stack]",
        "ensemble/calibrate=isotonic",
        "globals/output_path=output/910",
    )
    cli(finished, "ensemble", "-cfg", "exp_config/901.yml", *overrides)
    project, folder = ProjectFolder.open(finished), finished / "output/910"
    goal = Goal.of_project(project)
    arrays = read_arrays(folder / "blends.safetensors")
    table = pd.read_csv(folder / "cross_fitted_predictions.csv")
    low, high = goal.form.bounds
    members = json.loads((folder / "manifest.json").read_text())["facts"]["members"]
    rng = np.random.default_rng(0)
    rows = Rows(rng.uniform(low, high, (len(members), 50, len(low))), np.full((50, 8), np.nan))
    for name in ("stack", "mean+isotonic"):
        assert np.isfinite(project.form.of_table(table, name)).all()
        fitted = restore_blend(part(arrays, name), goal)
        found = fitted.predict(rows)
        assert found.shape == (50, len(low)) and ((found >= low) & (found <= high)).all()
    # Isotonic: in each target alone a higher prediction never becomes lower.
    before = fitted.blend.predict(rows)
    for k in range(len(low)):
        assert (np.diff(found[np.argsort(before[:, k]), k]) >= -1e-12).all()
