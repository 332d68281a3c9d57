"""Every metric judges a whole run: members, blends, decisions, report and comparison."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from small_project import write_experiment
from warm import foldsmith

from foldsmith.blending import bootstrap
from foldsmith.blending.candidates import candidates_of
from foldsmith.blending.comparison import compare, recommend
from foldsmith.blending.methods import how_optimised, restore_blend
from foldsmith.config import EnsembleSettings, Experiment
from foldsmith.errors import DataError
from foldsmith.new.new_tables import NewTables
from foldsmith.new.sample import SAMPLE, sample_submission
from foldsmith.new.survey.targets import Target
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import read_folds, read_test, read_train, targets_of
from foldsmith.steps.members import goal_of, read_members, rows_of
from foldsmith.targets.metrics import METRICS

N = 72
# Rare classes are darker only a little.
CLASSES = np.repeat([0, 1, 2, 3], [40, 18, 10, 4])
NAMES = ["cat", "dog", "eel", "fox"]

SCALE = {"target_range": [1, 4], "n_classes": 4}
SHARED = {
    **{"name": "judged", "image_path": "images/{id}.png", "id_column": "id"},
    **{"target_column": "target", "folds": {"method": "StratifiedKFold", "n_splits": 2}},
}
HEADS = {
    "scale": [{"type": "RidgeHead"}, {"type": "SVRHead"}],
    "classes": [{"type": "KernelHead"}, {"type": "LogisticHead"}],
}
BY = {"name": "FBeta", "beta": 0.5}
ENSEMBLE = "exp_config/900.yml"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images that are as bright as their class is high, with much noise."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for k in range(N + 5):
        level = 70 + 22 * CLASSES[k % N] + rng.normal(0, 16)
        pixels = np.clip(level + rng.normal(0, 25, (12, 12, 3)), 0, 255)
        cv2.imwrite(str(folder / f"p{k}.png"), pixels.astype(np.uint8))
    return folder


def finished(folder, images, form):
    """Make a project of one form of target, and run it."""
    (folder / "input").mkdir(parents=True)
    (folder / "exp_config").mkdir()
    (folder / "input/images").symlink_to(images)
    target = CLASSES + 1 if form == "scale" else np.array(NAMES)[CLASSES]
    ids = [f"p{k}" for k in range(N + 5)]
    pd.DataFrame({"id": ids[:N], "target": target}).to_csv(folder / "input/train.csv", index=False)
    pd.DataFrame({"id": ids[N:]}).to_csv(folder / "input/test.csv", index=False)
    judge_by(folder, form, "F1" if form == "scale" else BY)
    for k, head in enumerate(HEADS[form]):
        content = {"import": "foldsmith:image_descriptors.yml", "head": head}
        write_experiment(folder, f"{k}00", content | {"globals/output_root": f"output/{k}00"})
    content = {
        "import": "foldsmith:ensemble.yml",
        "globals/output_path": "output/900",
        "ensemble/experiments": ["output/000", "output/100"],
        "ensemble/methods": ["mean", "best", "box", "greedy"],
    }
    write_experiment(folder, "900", content)
    steps = [("preprocess",), ("train", "-cfg", "exp_config/000.yml")]
    steps += [("train", "-cfg", "exp_config/100.yml"), ("ensemble", "-cfg", ENSEMBLE)]
    for step in steps:
        result = foldsmith(folder, *step)
        assert result.returncode == 0, result.stdout + result.stderr
    return folder


def judge_by(folder, form, metric):
    of_form = SCALE if form == "scale" else {"class_names": NAMES}
    (folder / "project.yml").write_text(yaml.safe_dump(SHARED | of_form | {"metric": metric}))


@pytest.fixture(scope="module")
def scale(tmp_path_factory, images):
    return finished(tmp_path_factory.mktemp("scale") / "project", images, "scale")


@pytest.fixture(scope="module")
def classes(tmp_path_factory, images):
    return finished(tmp_path_factory.mktemp("classes") / "project", images, "classes")


CASES = [
    *(("scale", name) for name, metric in METRICS.items() if not metric.needs_probabilities),
    *(("classes", name) for name, metric in METRICS.items() if not metric.needs_order),
]


@pytest.mark.parametrize(("form", "name"), CASES)
def test_blends_of_a_run_are_judged_by_it(form, name, request, monkeypatch):
    # A tenth of the draws: this test needs no exact interval.
    monkeypatch.setattr(bootstrap, "RESAMPLES", 100)
    monkeypatch.setattr(bootstrap, "RESAMPLES_OF_WHOLES", 30)
    folder = request.getfixturevalue(form)
    judge_by(folder, form, name)
    project = ProjectFolder.open(folder)
    metric, goal = project.metric, goal_of(project)
    table, test = read_folds(project, None), read_test(project)
    content = Experiment.load(project, Path(ENSEMBLE)).tree["ensemble"]
    settings = EnsembleSettings.model_validate(content)
    members = read_members(project, settings, table, test)
    rows, test_rows = rows_of(project, members, metric, table, test, with_features=False)
    targets, folds = targets_of(project, table), table["fold"].to_numpy(np.int64)
    found = compare(
        candidates_of([member.task for member in members], settings, goal, 0),
        *("avg-all", goal, rows, targets, folds, np.arange(N), 0),
    )
    blends = {blend.name: blend for blend in found}
    constant = goal.constant_score(targets)
    for blend in ("avg-all", "best", "greedy"):
        honest = blends[blend].honest
        low, high = honest.interval
        assert low <= honest.score <= high
        # The images say more than a constant does; most targets are one class, though.
        if name not in ("MedAE", "MAPE", "SMAPE", "MAE", "Pinball", "Accuracy"):
            assert metric.gain(honest.score, constant) > 0, (blend, honest.score, constant)
    # Decisions are fitted out of fold, those of Accuracy only when asked to.
    decisions = {"scale": "thresholds", "classes": "priors"}[form]
    fitted = metric.decides and name != "Accuracy"
    assert (f"mean+{decisions}" in blends) == fitted
    chosen, reason = recommend(found, "avg-all", metric)
    assert f"({metric.title}" in reason
    # As the ensemble's file has it, and for new images.
    for blend in found:
        again = restore_blend(blend.fitted.arrays(), goal).predict(test_rows)
        np.testing.assert_array_equal(again, blend.fitted.predict(test_rows))
    points = metric.as_judged(goal.points(blends[chosen].fitted.predict(test_rows)))
    assert points.shape == (5,) and np.isfinite(points).all()
    how = "which is best for" if metric.least_squares else "a stand-in for"
    assert how_optimised(settings.methods, metric).endswith(
        f"{how} {metric.title}; best, greedy: a search by {metric.title} itself"
    )


def test_a_run_goes_by_options_of_a_metric(classes, cli):
    judge_by(classes, "classes", BY)
    title = "FBeta(beta=0.5, average=macro)"
    assert ProjectFolder.open(classes).settings.metric == "FBeta(beta=0.5)"
    scores = pd.read_csv(classes / "output/900/ensemble_scores.csv").set_index("name")
    assert scores.columns[0] == title.lower()
    assert scores.loc["mean+priors", "cross_fitted"] > 0
    assert title in cli(classes, "compare", "output/000", "output/100").stdout
    cli(classes, "report", "-cfg", ENSEMBLE, "-o", "report.html")
    assert title in (classes / "report.html").read_text()
    assert "stale" not in cli(classes, "status", "-cfg", ENSEMBLE).stdout
    # Another option is another metric.
    judge_by(classes, "classes", "FBeta(beta=2)")
    assert "stale" in cli(classes, "status", "-cfg", ENSEMBLE).stdout


IDS = [f"p{k}" for k in range(N, N + 5)]
SAMPLES = {
    "ranked classes": ({"id": IDS, "target": ["cat dog"] * 5}, "MAPatK(k=2)"),
    "one column per class": ({"id": IDS[::-1], **dict.fromkeys(NAMES, [0.25] * 5)}, "LogLoss"),
    "long": (
        {"id": [i for i in IDS for _ in NAMES], "kind": NAMES * 5, "p": [0] * 20},
        "Brier",
    ),
}


@pytest.mark.parametrize("form", SAMPLES)
def test_a_run_hands_in_the_form_of_the_sample(classes, tmp_path, form):
    folder = shutil.copytree(classes, tmp_path / "project", symlinks=True)
    content, metric = SAMPLES[form]
    sample = pd.DataFrame(content)
    sample.to_csv(folder / "input/sample.csv", index=False)
    of_form = SHARED | {"class_names": NAMES, "metric": metric, "sample_submission": "sample.csv"}
    (folder / "project.yml").write_text(yaml.safe_dump(of_form))
    files = {"exp_config/000.yml": "train", "exp_config/100.yml": "train", ENSEMBLE: "ensemble"}
    for file, command in files.items():
        result = foldsmith(folder, command, "-cfg", file, "-f")
        assert result.returncode == 0, result.stdout + result.stderr
    for file in ("000/submission_by_last.csv", "900/submission.csv"):
        table = pd.read_csv(folder / "output" / file)
        assert table.columns.tolist() == sample.columns.tolist()
        assert table["id"].tolist() == sample["id"].tolist()
    # New images get the same form: here the test images once more.
    paths = [f"input/images/{name}.png" for name in IDS]
    command = ("predict", "--run", "output/900", *paths, "-o", "new.csv")
    result = foldsmith(folder, *command, "--sample", "input/sample.csv")
    assert result.returncode == 0, result.stderr
    pd.testing.assert_frame_equal(pd.read_csv(folder / "new.csv"), table, atol=1e-6)
    result = foldsmith(folder, *command, "--sample", "no.csv")
    assert result.returncode == 2 and "no.csv" in result.stderr
    known = pd.read_csv(folder / "output/900/probabilities.csv").set_index("id")[NAMES]
    if form == "ranked classes":
        for row, ranked in table.set_index("id")["target"].items():
            assert ranked.split() == known.loc[row].sort_values(ascending=False).index[:2].tolist()
    elif form == "long":
        found = table.pivot(index="id", columns="kind", values="p").loc[known.index, NAMES]
        np.testing.assert_allclose(found, known)
    else:
        np.testing.assert_allclose(table.set_index("id").loc[known.index, NAMES], known)


@pytest.mark.parametrize(
    ("named", "content", "said"),
    [
        (
            False,
            SAMPLES["one column per class"][0],
            "sample   sample_submission.csv, found beside the tables: one column per class (4",
        ),
        (True, {"id": ["x"] * 5, "target": 0}, "error: "),
    ],
)
def test_new_recognises_the_sample(tmp_path, images, classes, named, content, said):
    for name in ("train.csv", "test.csv"):
        shutil.copy(classes / "input" / name, tmp_path / name)
    file = tmp_path / ("s.csv" if named else "sample_submission.csv")
    pd.DataFrame(content).to_csv(file, index=False)
    command = ("new", "mine", "--images", str(images), "--train", "train.csv", "--yes")
    command += ("--test", "test.csv", "--metric", "LogLoss")
    result = foldsmith(tmp_path, *command, *(("--sample", "s.csv") if named else ()))
    if said == "error: ":
        assert result.returncode == 2 and "s.csv" in result.stderr
        assert result.stderr.count("\n") == 1 and not (tmp_path / "mine").exists()
        return
    assert result.returncode == 0, result.stderr
    assert said in result.stdout
    settings = ProjectFolder.open(tmp_path / "mine").settings
    assert settings.sample_submission == "sample_submission.csv"
    assert (tmp_path / "mine/input/sample_submission.csv").is_file()


def test_a_file_of_that_name_that_does_not_fit_is_noted(tmp_path, caplog):
    caplog.set_level("INFO", "foldsmith")
    pd.DataFrame({"id": IDS, "cat": 0, "dog": 0}).to_csv(tmp_path / SAMPLE, index=False)
    test = pd.DataFrame({"id": IDS, "path": IDS})
    tables = NewTables(test, test, "path", "target")
    target = Target(CLASSES.astype(float), (0.0, 3.0), 4, classes=tuple(NAMES))
    metric = METRICS["LogLoss"].for_classes(target.values_of_classes, unordered=True)
    given = ([tmp_path / "train.csv"], tables, "id", target, metric)
    assert sample_submission(None, *given) is None
    assert "is not taken for the sample submission: has columns of classes such as" in caplog.text
    with pytest.raises(DataError, match=r"sample_submission.csv: has columns of .* none of eel"):
        sample_submission(tmp_path / SAMPLE, *given)
    one = pd.DataFrame({"id": IDS, "target": 0})
    one.to_csv(tmp_path / "s.csv", index=False)
    found = sample_submission(tmp_path / "s.csv", *given)
    assert found.to_dict("list") == {"id": IDS, "target": ["0"] * 5}
    assert "sample   s.csv, as named: one column, target" in caplog.text


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("RMSLE", [-1.0, -0.5, 2.0], r"column target: 2 targets are below 0 \(lines 2, 3\), which"),
        ("MAPE", [0.0, 1.0, 2.0], r"column target: 1 target is 0 \(line 2\), which MAPE cannot"),
    ],
)
def test_targets_that_it_cannot_judge_are_named(tmp_path, images, name, values, message):
    (tmp_path / "input").mkdir()
    ids = [f"p{k}" for k in range(3)]
    pd.DataFrame({"id": ids, "target": values}).to_csv(tmp_path / "input/train.csv", index=False)
    content = SHARED | {"target_range": [-1, 4], "n_classes": 4, "metric": name}
    (tmp_path / "project.yml").write_text(yaml.safe_dump(content))
    with pytest.raises(DataError, match=message + ".*set another metric") as error:
        read_train(ProjectFolder.open(tmp_path))
    assert "\n" not in str(error.value)
    table = tmp_path / "input/train.csv"
    frame = pd.concat([pd.read_csv(table)] * 8, ignore_index=True).assign(
        id=[f"p{k}" for k in range(24)]
    )
    frame.to_csv(table, index=False)
    command = ("new", "mine", "--images", str(images), "--train", str(table), "--metric", name)
    result = foldsmith(tmp_path, *command, "--yes")
    assert result.returncode == 2 and f"--metric {name} cannot judge" in result.stderr
    assert result.stderr.count("\n") == 1
