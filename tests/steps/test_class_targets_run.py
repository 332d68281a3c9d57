"""Several class targets per image: from tables to submissions and predictions of new images."""

import shutil
import signal

import numpy as np
import pandas as pd
import pytest
import yaml
from class_target_data import CLASSES, HEAD, TARGETS, make_class_targets, texts_of
from die_at_write import die_at_write
from fastapi.testclient import TestClient
from kill_and_resume import compare
from warm import Command, foldsmith

import foldsmith as package
from foldsmith.errors import ConfigError, DataError
from foldsmith.extras.serve.limits import Limits
from foldsmith.extras.serve.service import create_app
from foldsmith.predictor.export import export
from foldsmith.project import ProjectFolder
from foldsmith.project.submission import read_submission, submission_table
from foldsmith.project.tables import read_test, read_train
from foldsmith.report.class_target_parts import class_target_scores, compared_class_targets

N_TRAIN, N_TEST = 40, 8
WEIGHTS = {"colour": 2.0}
OUTPUTS = [f"{name}={text}" for name, texts in CLASSES.items() for text in texts]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project of two class targets, some missing, after its run."""
    folder = make_class_targets(tmp_path_factory.mktemp("targets") / "x", target_weights=WEIGHTS)
    result = foldsmith(folder, "run", "-cfg", "exp_config/901.yml")
    assert result.returncode == 0, result.stdout + result.stderr
    (folder / "said.txt").write_text(result.stdout + result.stderr)
    return folder


def test_the_report_has_a_row_and_a_confusion_per_target(finished):
    said = (finished / "said.txt").read_text()
    assert "Traceback" not in said and "warning: the report" not in said
    page = next((finished / "reports").rglob("*.html")).read_text()
    for name in TARGETS:
        assert f"<td>{name}</td>" in page and f"{name}: counts on shares of each row" in page


def test_scores_are_weighted_means_over_the_targets(finished):
    project = ProjectFolder.open(finished)
    folds = pd.read_csv(finished / "input/train_skf-2fold.csv", dtype=str, keep_default_na=False)
    oof = pd.read_csv(finished / "output/400/oof_prediction_by_last.csv", keep_default_na=False)
    array = np.load(finished / "output/400/oof_prediction_by_last.npy")
    rows = class_target_scores(project, folds, array).set_index("target")
    expected = {}
    for name in TARGETS:
        seen = folds[name] != ""
        assert rows.loc[name, "images"] == seen.sum()
        right = (oof[f"prediction_{name}"] == folds[name])[seen]
        expected[name] = right.groupby(folds[name][seen]).mean().mean()
        assert rows.loc[name, "BalancedAccuracy"] == pytest.approx(expected[name])
    scores = pd.read_csv(finished / "output/400/score_by_last.csv").set_index("fold")
    mean = (2 * expected["colour"] + expected["size"]) / 3
    assert scores.loc["oof", "metric"] == pytest.approx(mean)
    assert mean > 0.8  # the constant has 0.39


def test_tables_by_target_weigh_rows_like_the_metric(finished):
    project = ProjectFolder.open(finished)
    folds = pd.read_csv(finished / "input/train_skf-2fold.csv", dtype=str, keep_default_na=False)
    rng, weights = np.random.default_rng(0), np.arange(N_TRAIN) % 4
    blocks = project.metric.blocks
    probabilities = [
        np.concatenate([rng.dirichlet([1.0] * size, N_TRAIN) for size in blocks.sizes], axis=1)
        for _ in "AB"
    ]
    again = np.repeat(np.arange(N_TRAIN), weights)

    settings = project.settings.model_copy(update={"metric_weight_column": "w"})
    weighted = ProjectFolder(finished, settings, trust=True)
    found = class_target_scores(weighted, folds.assign(w=weights.astype(str)), probabilities[0])
    expected = class_target_scores(project, folds.iloc[again], probabilities[0][again])
    scores = ["BalancedAccuracy", "constant", "Accuracy", "LogLoss"]
    np.testing.assert_allclose(found[scores], expected[scores])
    plain = class_target_scores(project, folds, probabilities[0])
    assert (found[scores] - plain[scores]).abs().to_numpy().sum() > 0.01

    targets, runs = project.form.read(folds), dict(zip("AB", probabilities, strict=True))
    groups = np.arange(N_TRAIN)
    one = compared_class_targets(project.metric, runs, targets, groups, weights.astype(float))
    repeated = {run: each[again] for run, each in runs.items()}
    other = compared_class_targets(project.metric, repeated, targets[again], groups[again])
    columns = ["A", "B", "gain", "low", "high"]
    np.testing.assert_allclose(one[columns], other[columns])


def test_submissions_and_predictions_have_all_targets(finished, cli):
    submission = pd.read_csv(finished / "output/901/submission.csv").set_index("id")
    assert list(submission.columns) == list(TARGETS)
    truth = texts_of(N_TRAIN + N_TEST)
    assert (submission["colour"] == truth["colour"][N_TRAIN:]).mean() > 0.8
    probabilities = pd.read_csv(finished / "output/901/probabilities.csv").set_index("id")
    assert list(probabilities.columns) == OUTPUTS
    for name, texts in CLASSES.items():
        block = probabilities[[f"{name}={text}" for text in texts]]
        assert np.allclose(block.sum(axis=1), 1)
        best = block.idxmax(axis=1).str.removeprefix(f"{name}=")
        assert (best == submission[name]).all()
    cli(finished, "predict", "--run", "output/901", "input/images/4*.png", "-o", "new.csv")
    table = pd.read_csv(finished / "new.csv")
    table.index = table["path"].str.extract(r"(\d+)\.png")[0].astype(int)
    for number in submission.index:
        for name in TARGETS:
            assert table.loc[number, f"prediction_{name}"] == submission.loc[number, name]
        for output in OUTPUTS:
            found = table.loc[number, f"probability_{output}"]
            assert found == pytest.approx(probabilities.loc[number, output], abs=1e-5)
    assert {f"spread_{name}" for name in TARGETS} <= set(table.columns)


def test_exports_predict_the_same(finished, tmp_path):
    images = [finished / f"input/images/{k}.png" for k in range(N_TRAIN, N_TRAIN + 4)]
    for run, onnx in (("output/901", False), ("output/410", True)):
        exported = export(finished / run, tmp_path / f"kept{onnx}", onnx=onnx)
        one, other = (package.load(f).predict(images) for f in (finished / run, exported))
        for output in OUTPUTS:
            assert np.allclose(*(t[f"probability_{output}"] for t in (one, other)), atol=1e-4)
        names = [f"prediction_{name}" for name in TARGETS]
        assert (one[names] == other[names]).all(axis=None)


def test_the_service_and_python_name_the_targets(finished):
    client = TestClient(create_app(package.load(finished / "output/901"), "901", Limits()))
    image = ("one.png", (finished / "input/images/41.png").read_bytes())
    (entry,) = client.post("/predict", files=[("file", image)]).json()["predictions"]
    submission = pd.read_csv(finished / "output/901/submission.csv").set_index("id")
    assert entry["prediction"] == submission.loc[41].to_dict()
    assert set(entry["spread"]) == set(TARGETS) and set(entry["probabilities"]) == set(OUTPUTS)
    results = package.Project.open(finished).results("901")
    oof = results.oof
    train = pd.read_csv(finished / "input/train_skf-2fold.csv", keep_default_na=False)
    assert oof["target_colour"].tolist() == train["colour"].tolist()
    assert set(oof["prediction_size"]) <= set(CLASSES["size"])
    assert results.predictions["prediction_colour"].tolist() == submission["colour"].tolist()


def test_runs_are_compared_target_by_target(finished, cli):
    said = cli(finished, "compare", "output/400", "output/410", "-o", "compared.html").stdout
    assert "BalancedAccuracy" in said
    page = (finished / "compared.html").read_text()
    assert all(f"<td>{name}</td>" in page for name in TARGETS)


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        ({"target_weights": {"size": 3.0}}, True),
        ({"target_classes": {**CLASSES, "size": ["large", "small"]}}, True),
        ({"name": "another"}, False),
    ],
)
def test_weights_and_classes_make_steps_stale(finished, cli, change, stale):
    before = cli(finished, "status", "-cfg", "exp_config/901.yml").stdout
    path = finished / "project.yml"
    kept = path.read_text()
    path.write_text(yaml.safe_dump({**yaml.safe_load(kept), **change}))
    after = cli(finished, "status", "-cfg", "exp_config/901.yml").stdout
    path.write_text(kept)
    assert ("stale" in after) == stale and "stale" not in before


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


def test_one_target_gives_the_numbers_of_classes(tmp_path, cli):
    """Heads, networks and blends of one class target equal those of classes, on the same folds."""
    made = {
        name: make_class_targets(
            tmp_path / name, *(24, 2), order=("colour",), missing=False, metric="LogLoss"
        )
        for name in ("several", "one")
    }
    content = yaml.safe_load((made["one"] / "project.yml").read_text())
    for key in ("target_columns", "target_kind", "target_classes"):
        del content[key]
    content |= {"target_column": "colour", "class_names": CLASSES["colour"]}
    (made["one"] / "project.yml").write_text(yaml.safe_dump(content))
    heads = [{**head, "class_values": "@/project.class_values"} for head in HEAD["heads"]]
    recipes = {"400": "image_descriptors", "410": "multi_class", "901": "recommended_ensemble"}
    for number, recipe in recipes.items():
        path = made["one"] / f"exp_config/{number}.yml"
        tree = yaml.safe_load(path.read_text()) | {"import": f"foldsmith:{recipe}.yml"}
        if "head" in tree:
            tree["head"] = {"type": "MeanHead", "heads": heads}
        path.write_text(yaml.safe_dump(tree))
    for folder in made.values():
        table = pd.read_csv(folder / "input/train.csv").assign(fold=lambda t: t["id"] % 2)
        table.to_csv(folder / "input/train.csv", index=False)
        cli(folder, "run", "--no-report", "-cfg", "exp_config/901.yml")
    for member in ("400", "410"):
        logits = [np.load(f / f"output/{member}/oof_logit_by_last.npy") for f in made.values()]
        assert np.abs(logits[0] - logits[1]).max() <= (0 if member == "400" else 1e-5)
    scores = [pd.read_csv(f / "output/901/ensemble_scores.csv") for f in made.values()]
    for column in ("cross_fitted", "low", "high"):
        one, other = (s.set_index("name")[column] for s in scores)
        names = [name for name in one.index if name in other.index]
        assert {"best", "wopt-all", "greedy"} <= set(names)
        assert np.allclose(one[names].astype(float), other[names].astype(float), atol=1e-6)


def test_the_order_of_the_columns_changes_nothing(finished, tmp_path, cli):
    turned = make_class_targets(tmp_path / "turned", order=TARGETS[::-1], target_weights=WEIGHTS)
    cli(turned, "run", "--no-report", "-cfg", "exp_config/400.yml")
    found = []
    for folder in (finished, turned):
        table = pd.read_csv(folder / "output/400/oof_prediction_by_last.csv")
        scores = pd.read_csv(folder / "output/400/score_by_last.csv")["metric"]
        found.append((table[["fold", *(f"prediction_{name}" for name in TARGETS)]], scores))
    assert found[0][0].equals(found[1][0])
    assert np.allclose(found[0][1], found[1][1], rtol=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_weights": {"hue": 1}}, "target_weights: hue is none of"),
        ({"target_classes": {"colour": CLASSES["colour"]}}, "target_classes: size: needs two"),
        ({"target_classes": {**CLASSES, "hue": ["a", "b"]}}, "target_classes: hue is none of"),
        ({"target_classes": {**CLASSES, "size": ["s", "s"]}}, "size: a class stands twice"),
        ({"target_classes": {**CLASSES, "size": [1, 2]}}, "1 is no text in YAML"),
        ({"metric": "QWK"}, "there is no metric QWK of several class targets"),
        ({"metric": "RMSE"}, "there is no metric RMSE of several class targets"),
        ({"class_names": ["a", "b"]}, "class_names: is not for target_kind: classes"),
        ({"target_ranges": {"size": [0, 1]}}, "target_ranges: is for target_kind: numbers"),
        ({"target_kind": "labels"}, "target_classes: is for target_kind: classes"),
        ({"class_weights": {"colour=pink": 2}}, "class_weights: .*colour=pink"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, settings, message):
    folder = make_class_targets(tmp_path / "x", **settings)
    with pytest.raises(ConfigError, match=message) as caught:
        ProjectFolder.open(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "row", "value", "message"),
    [
        ("colour", 3, "pink", "column colour: 1 target is none .* 'pink' .* id 3"),
        (None, 3, "", "columns colour, size: 1 row has none of the targets, .* id 3"),
        ("size", None, "", "column size: no row has a target"),
    ],
)
def test_wrong_tables_are_one_line(tmp_path, column, row, value, message):
    folder = make_class_targets(tmp_path / "x")
    path = folder / "input/train.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    chosen = slice(None) if row is None else row
    if column == "size":
        table["colour"] = table["colour"].replace("", "red")
    table.loc[chosen, list(TARGETS) if column is None else column] = value
    table.to_csv(path, index=False)
    with pytest.raises(DataError, match=message) as caught:
        read_train(ProjectFolder.open(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": {"type": "KernelHead", "class_values": [0, 1]}}, "take ClassTargetsHead"),
        (
            {"head": {"type": "ClassTargetsHead", "sizes": [3, 2], "head": {"type": "RidgeHead"}}},
            "RidgeHead must give probabilities of classes",
        ),
        (
            {
                "head": {
                    "type": "ClassTargetsHead",
                    "sizes": [2, 3],
                    "head": {"type": "LogisticHead", "class_values": [0, 1]},
                }
            },
            "sizes must be those of the project",
        ),
    ],
)
def test_heads_that_do_not_fit_are_one_line(finished, cli, change, message):
    path = finished / "exp_config/402.yml"
    tree = {"import": "foldsmith:image_descriptors_class_targets.yml"}
    tree |= {"globals/output_root": "output/402", "dataset/img_size": 32}
    path.write_text(yaml.safe_dump(tree | change))
    result = foldsmith(finished, "train", "-cfg", "exp_config/402.yml")
    said = result.stdout + result.stderr
    path.unlink()
    assert result.returncode == 2 and message in said and "Traceback" not in said


def test_submissions_with_a_column_per_target_are_filled_and_read(tmp_path):
    ids = np.arange(N_TRAIN, N_TRAIN + N_TEST)
    folder = make_class_targets(tmp_path / "x", sample_submission="sample.csv")
    sample = pd.DataFrame({"id": ids[::-1], "size": "small", "colour": "red"})
    sample.to_csv(folder / "input/sample.csv", index=False)
    project = ProjectFolder.open(folder)
    numbers = np.stack([np.arange(N_TEST) % 3, np.arange(N_TEST) % 2], axis=1)
    points = project.form.encoded(numbers.astype(float))
    made = submission_table(project, read_test(project), points)
    assert list(made.columns) == ["id", "size", "colour"]
    assert made["colour"].tolist() == [CLASSES["colour"][k % 3] for k in range(N_TEST)][::-1]
    made.to_csv(folder / "made.csv", index=False)
    again = read_submission(project, folder / "made.csv", read_test(project))
    assert np.array_equal(again, points)
    sample.drop(columns="size").to_csv(folder / "input/sample.csv", index=False)
    with pytest.raises(DataError, match="no column of the target size"):
        submission_table(project, read_test(project), points)


@pytest.mark.parametrize("joined", [False, True])
def test_submissions_with_a_row_per_target_are_filled_and_read(tmp_path, joined):
    """As in Bengali.AI: Test_0_root, Test_0_vowel, ..."""
    folder = make_class_targets(tmp_path / "x", sample_submission="sample.csv")
    pairs = [(k, name) for k in range(N_TRAIN, N_TRAIN + N_TEST) for name in TARGETS[::-1]]
    sample = pd.DataFrame(pairs, columns=["id", "which"]).assign(value=0)
    if joined:
        sample["row"] = sample["id"].astype(str) + "_" + sample["which"]
        sample = sample[["row", "value"]]
    sample.to_csv(folder / "input/sample.csv", index=False)
    project = ProjectFolder.open(folder)
    numbers = np.stack([np.arange(N_TEST) % 3, np.arange(N_TEST) % 2], axis=1)
    points = project.form.encoded(numbers.astype(float))
    made = submission_table(project, read_test(project), points)
    expected = [CLASSES[name][numbers[k - N_TRAIN, TARGETS.index(name)]] for k, name in pairs]
    assert made["value"].tolist() == expected
    made.to_csv(folder / "made.csv", index=False)
    assert np.array_equal(read_submission(project, folder / "made.csv", read_test(project)), points)
