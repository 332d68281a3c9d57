"""Classes without an order: from folders of images to names of classes."""

import html
import re
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from fastapi.testclient import TestClient
from warm import Command, foldsmith, one_core

import foldsmith as package
from foldsmith.errors import ConfigError, DataError
from foldsmith.extras.serve.limits import Limits
from foldsmith.extras.serve.service import create_app
from foldsmith.new.new import new_project_of
from foldsmith.new.new_rows import Data
from foldsmith.predictor.export import export
from foldsmith.predictor.predict import predict
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import image_paths, read_test
from foldsmith.run.doctor import doctor
from foldsmith.run.dry_run import dry_run
from foldsmith.steps.preprocess import preprocess

# In this order they are red, green and blue; as text their order is another. One reads like a gap.
COLOURS = {"NA": (60, 60, 200), "dog": (60, 200, 60), "cat 2": (200, 60, 60)}
RUN = "output/901_ensemble"
TINY = [
    "4*:dataset/img_size=32",
    "410:globals/max_epoch=2",
    "402:model/n_centres=20",
    "404:model/n_components=4",
]


def write_image(path, name, rng):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.array(COLOURS[name]) + rng.integers(-50, 50, (40, 48, 3))
    cv2.imwrite(str(path), pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Labelled images in a folder per class, and images to predict, one of them broken."""
    folder, rng = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    for name in COLOURS:
        for k in range(9 if name == "dog" else 8):
            write_image(folder / "tree" / name / f"{k}.png", name, rng)
        for k in range(2):
            write_image(folder / "more" / f"{name}{k}.png", name, rng)
    (folder / "more/broken.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def said(data):
    """What 'new' says."""
    flags = ["--images", "tree", "--test-images", "more", "--yes", "--time", "small"]
    result = foldsmith(data, "new", "mine", *flags)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def finished(data, said):
    """The project after its run."""
    folder = data / "mine"
    file = folder / "project.yml"
    settings = file.read_text()
    assert settings.count("n_splits: 5") == 1
    file.write_text(settings.replace("n_splits: 5", "n_splits: 3"))
    run = ("run", "--no-report", "-cfg", "exp_config/901.yml", "--skip-bad", *TINY)
    result = Command(folder, *run, before=(one_core,)).finish()
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 test images cannot be read; they get the most frequent class" in result.stdout
    return folder


def of_name(names):
    """The class that an image to predict has, by its name."""
    return [re.sub(r"\d\.png$", "", name) for name in names]


def test_what_is_assumed_is_said(data, said):
    assert "target   class: text" in said
    assert "classes  cat 2, dog, NA: no order is assumed\n" in said
    assert "steps of one scale, in this order: --metric QWK" in said
    assert "metric   Accuracy: classes" in said
    settings = ProjectFolder.open(data / "mine").settings
    assert settings.class_names == ("cat 2", "dog", "NA")
    assert (settings.target_column, settings.metric, settings.n_classes) == ("class", "Accuracy", 3)
    table = pd.read_csv(data / "mine/input/train.csv", keep_default_na=False)
    assert table.columns.tolist() == ["image_id", "class", "path"]
    assert "3 classes;" in (data / "mine/README.md").read_text()


def test_the_run_names_classes_and_is_right(finished):
    scores = pd.read_csv(finished / RUN / "ensemble_scores.csv").set_index("name")
    assert scores.loc["avg-all", "accuracy"] > 0.8  # by chance 0.36
    members = ["400_descriptors", "402_patches", "403_shapes", "404_fisher", "410_classes"]
    weights = pd.read_csv(finished / RUN / "weights.csv")
    assert weights["experiment"].tolist() == members
    for member in members:
        folder = finished / "output" / member
        oof = pd.read_csv(folder / "oof_prediction_by_last.csv", keep_default_na=False)
        assert set(oof["prediction"]) <= set(COLOURS)
        accuracy = (oof["prediction"] == oof["class"]).mean()
        table = pd.read_csv(folder / "score_by_last.csv")
        assert table["metric"].iloc[-1] == pytest.approx(accuracy)
        # It says what its probabilities say.
        logits = np.load(folder / "oof_logit_by_last.npy")
        names = np.array(ProjectFolder.open(finished).class_names)
        assert oof["prediction"].tolist() == names[logits.argmax(axis=1)].tolist()
        submission = pd.read_csv(folder / "submission_by_last.csv", keep_default_na=False)
        assert set(submission["class"]) <= set(COLOURS)
    submission = pd.read_csv(finished / RUN / "submission.csv", keep_default_na=False)
    assert submission.columns.tolist() == ["image_id", "class"]
    good = submission[submission["image_id"] != "broken.png"]
    assert good["class"].tolist() == of_name(good["image_id"])
    # Of what nobody could read, the class that most images have.
    broken = submission[submission["image_id"] == "broken.png"]
    assert broken["class"].tolist() == ["dog"]


def test_probabilities_are_there_too(finished):
    table = pd.read_csv(finished / RUN / "probabilities.csv").set_index("image_id")
    assert table.columns.tolist() == ["cat 2", "dog", "NA"]
    np.testing.assert_allclose(table.sum(axis=1), 1)
    submission = pd.read_csv(finished / RUN / "submission.csv", keep_default_na=False)
    assert table.idxmax(axis=1).tolist() == submission["class"].tolist()
    np.testing.assert_allclose(table.loc["broken.png"], [8 / 25, 9 / 25, 8 / 25])


def test_the_probe_counts_hits(finished, cli):
    file = finished / "exp_config/300.yml"
    file.write_text(
        "import: foldsmith:recommended_pretraining.yml\nglobals/output_path: output/300_simsiam\n"
    )
    tiny = ["globals/max_epoch=1", "loader/train/batch_size=8", "dataset/img_size=32"]
    cli(finished, "run", "-cfg", "exp_config/300.yml", "--no-report", *tiny)
    probes = pd.read_csv(finished / "output/300_simsiam/probes.csv")
    # Of 25 images; the colours are easy, and Accuracy is a share of them.
    assert probes["ridge"].iloc[-1] > 0.8
    assert (probes["ridge"] * 25).to_numpy() == pytest.approx((probes["ridge"] * 25).round())


def test_nothing_is_left_to_do(finished, cli):
    said = cli(finished, "status", "-cfg", "exp_config/901.yml", *TINY).stdout
    assert "10 of 10 steps done" in said


def test_new_images_get_names(finished, data, tmp_path, cli):
    images = [p for p in image_paths(*opened(finished)) if p.name != "broken.png"]
    cli(finished, "predict", "--run", RUN, *map(str, images), "-o", str(tmp_path / "out.json"))
    table = pd.read_json(tmp_path / "out.json")
    assert table["prediction"].tolist() == of_name([image.name for image in images])
    probabilities = pd.read_csv(finished / RUN / "probabilities.csv").set_index("image_id")
    wanted = probabilities.drop("broken.png")
    found = table[[f"probability_{name}" for name in wanted]]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    # By how much the members disagree on the class that is predicted.
    members = [
        predict(finished / "output" / name, images)
        for name in ("400_descriptors", "402_patches", "403_shapes", "404_fisher", "410_classes")
    ]
    of_class = [
        [
            row[f"probability_{name}"]
            for (_, row), name in zip(member.iterrows(), table["prediction"], strict=True)
        ]
        for member in members
    ]
    np.testing.assert_allclose(table["spread"], np.std(of_class, axis=0), atol=1e-6)
    for name, member in zip(("403_shapes", "404_fisher", "410_classes"), members[2:], strict=True):
        file = finished / "output" / name / "submission_by_last.csv"
        submission = pd.read_csv(file, keep_default_na=False).set_index("image_id")
        wanted = submission["class"].drop("broken.png")
        assert member["prediction"].tolist() == wanted.tolist()


def test_a_blend_that_is_fitted_again_gives_names_too(finished):
    images = [p for p in image_paths(*opened(finished)) if p.name != "broken.png"]
    table = package.load(finished / RUN, blend="stack").predict(images)
    submission = pd.read_csv(finished / RUN / "submission_stack.csv", keep_default_na=False)
    wanted = submission[submission["image_id"] != "broken.png"]["class"]
    assert table["prediction"].tolist() == wanted.tolist()
    assert table.filter(like="probability_").sum(axis=1).to_numpy() == pytest.approx(1)


def opened(folder):
    project = ProjectFolder.open(folder)
    return project, read_test(project)


def test_a_image_without_prediction_has_no_name(finished, data):
    table = predict(finished / RUN, [data / "more"], skip_bad=True)
    assert table["prediction"].isna().tolist() == [p.endswith("broken.png") for p in table["path"]]
    assert table.notna().sum(axis=1).min() == 1


def test_the_service_answers_names_and_probabilities(finished, data):
    client = TestClient(create_app(package.load(finished / RUN), "901", Limits()))
    image = ("dog0.png", (data / "more/dog0.png").read_bytes())
    (entry,) = client.post("/predict", files=[("file", image)]).json()["predictions"]
    assert (entry["id"], entry["prediction"]) == ("dog0.png", "dog")
    assert set(entry["probabilities"]) == set(COLOURS)
    assert sum(entry["probabilities"].values()) == pytest.approx(1)


def test_an_export_gives_names_and_probabilities(finished, data, tmp_path):
    exported = export(finished / RUN, tmp_path / "kept")
    images = [data / "more" / f"{name}0.png" for name in COLOURS]
    tables = [package.load(folder).predict(images) for folder in (finished / RUN, exported)]
    assert tables[1]["prediction"].tolist() == list(COLOURS)
    pd.testing.assert_frame_equal(*tables, atol=1e-6)


def test_python_gives_names(finished):
    project = package.Project.open(finished)
    results = project.results("901")
    oof, predictions = results.oof, results.predictions
    assert set(oof["target"]) == set(oof["prediction"]) == set(COLOURS)
    assert (oof["target"] == oof["prediction"]).mean() > 0.8
    submission = pd.read_csv(finished / RUN / "submission.csv", keep_default_na=False)
    assert predictions["prediction"].tolist() == submission["class"].tolist()
    assert set(predictions["410_classes"]) <= set(COLOURS)
    labels = [text.get_text() for text in results.plot_confusion().axes[0].get_xticklabels()]
    assert labels == ["cat 2", "dog", "NA"]


def test_two_runs_of_classes_are_compared(finished, cli):
    printed = cli(finished, "compare", RUN, "output/400_descriptors").stdout
    scores = pd.read_csv(finished / RUN / "ensemble_scores.csv")
    honest = scores.loc[scores["submit"], "cross_fitted"].iloc[0]
    oof = pd.read_csv(
        finished / "output/400_descriptors/oof_prediction_by_last.csv", keep_default_na=False
    )
    assert f"Accuracy {honest:.4f}" in printed
    assert f"Accuracy {(oof['prediction'] == oof['class']).mean():.4f}" in printed
    page = (finished / "reports/compare_901_ensemble_400_descriptors.html").read_text()
    assert "probability of the true class" in page
    assert re.search(r"true dog, A \w+( 2)? \([\d.]+\), B .*; probability of the true", page)


def test_the_report_shows_classes(finished, cli):
    # All steps are done: this run writes the report, and would warn if it could not.
    run = cli(finished, "run", "-cfg", "exp_config/901.yml", "--skip-bad", *TINY)
    assert re.search(r"wrote .*/901\.html", run.stdout) and "warning: the report" not in run.stderr
    page = html.unescape((finished / "reports/901.html").read_text())
    assert "Worst predictions, out of fold" in page
    assert re.search(r": cat 2 \(probability 0\.\d\d\), predicted ", page)


def test_no_number_of_a_class_matters(finished, tmp_path):
    """The same classes in another order are the same experiment: same hits, same names."""
    folder = shutil.copytree(finished, tmp_path / "mine", symlinks=True)
    file = folder / "project.yml"
    content = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(content | {"class_names": ["NA", "cat 2", "dog"]}))
    before = pd.read_csv(finished / "output/400_descriptors/score_by_last.csv")
    result = foldsmith(
        folder, *("train", "-cfg", "exp_config/400.yml", "--resume"), "dataset/img_size=32"
    )
    assert result.returncode == 0, result.stderr
    after = pd.read_csv(folder / "output/400_descriptors/score_by_last.csv")
    assert after["metric"].tolist() == before["metric"].tolist()
    with pytest.raises(package.errors.OutputError, match=r"class_names"):
        package.load(folder / "output/410_classes")


@pytest.fixture
def numbered(tmp_path):
    """Images 000.png to 015.png, of two colours."""
    rng = np.random.default_rng(0)
    for k in range(16):
        write_image(tmp_path / "images" / f"{k:03}.png", ("dog", "NA")[k % 2], rng)
    return tmp_path / "images"


def described(folder, **columns):
    table = pd.DataFrame({"id": [f"{k:03}" for k in range(16)], **columns})
    table.to_csv(folder / "train.csv", index=False)
    return {"images": folder / "images", "train": folder / "train.csv"}


def test_two_classes_by_auc_with_groups(tmp_path, numbered, cli):
    described(tmp_path, sick=["yes", "no"] * 8, patient=[f"p{k // 2}" for k in range(16)])
    flags = ["--images", "images", "--train", "train.csv", "--metric", "AUC", "--yes"]
    cli(tmp_path, "new", "mine", *flags)
    folder = tmp_path / "mine"
    file = folder / "exp_config/901.yml"
    content = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(content | {"ensemble/experiments": ["output/400_descriptors"]}))
    cli(folder, "run", "-cfg", "exp_config/901.yml", "400:dataset/img_size=32")
    scores = pd.read_csv(folder / RUN / "ensemble_scores.csv")
    assert scores["auc"].iloc[0] == pytest.approx(1)
    page = html.unescape((folder / "reports/901.html").read_text())
    assert "Hits by patient" in page and "out-of-fold AUC 1.0000" in page


@pytest.mark.parametrize("metric", ["LogLoss", "AUC"])
def test_numbers_may_number_classes(tmp_path, numbered, metric, capsys):
    data = Data(**described(tmp_path, label=[3, 7] * 8), metric=metric, time="small")
    new_project_of(tmp_path / "mine", data)
    project = ProjectFolder.open(tmp_path / "mine")
    assert (project.class_values, project.class_names) == ([3, 7], ())
    preprocess(project)
    assert dry_run(project, "exp_config/901.yml").count("to do") >= 5
    assert doctor(project) == []
    assert "taken for a scale" not in capsys.readouterr().out


def test_but_many_numbers_are_none(tmp_path, numbered):
    data = described(tmp_path, label=np.arange(16) / 7)
    assert new_project_of(tmp_path / "mine", Data(**data, metric="LogLoss"))
    rng = np.random.default_rng(0)
    for k in range(16, 24):
        write_image(numbered / f"{k:03}.png", "NA", rng)
    table = pd.DataFrame({"id": [f"{k:03}" for k in range(24)], "label": np.arange(24) / 7})
    table.to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(DataError, match="column label: --metric LogLoss judges classes, but these"):
        new_project_of(tmp_path / "other", Data(**data, metric="LogLoss"))


def test_a_member_that_needs_an_order_is_refused_before_the_work(tmp_path, numbered):
    new_project_of(tmp_path / "mine", Data(**described(tmp_path, kind=["a", "b"] * 8)))
    project = ProjectFolder.open(tmp_path / "mine")
    preprocess(project)
    head = ['400:head={"type": "RidgeHead"}']
    with pytest.raises(ConfigError, match="400.yml: head: RidgeHead gives numbers, but"):
        dry_run(project, "exp_config/901.yml", head)
    with pytest.raises(ConfigError, match="410.yml, whose task regression gives no class prob"):
        dry_run(project, "exp_config/901.yml", ["410:globals/task=regression"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ["a", "a"]}, "class_names: a name stands twice"),
        ({"target_range": [0, 3]}, "n_classes and target_range follow from them"),
        ({"class_values": [0, 1]}, "have no order; leave out class_values"),
        ({"metric": "RMSE"}, "metric: RMSE is of an order that class_names do not have"),
        ({"class_names": ["a", 1]}, "class_names: 1 is no text"),
    ],
)
def test_a_project_file_that_contradicts_itself(tmp_path, change, message):
    content = {
        "name": "x",
        "image_path": "{id}.png",
        "id_column": "id",
        "target_column": "kind",
        "class_names": ["a", "b"],
        "folds": {"method": "KFold"},
    }
    file = tmp_path / "project.yml"
    file.write_text(yaml.safe_dump(content))
    settings = ProjectFolder.open(tmp_path).settings
    assert (settings.metric, settings.target_range, settings.n_classes) == ("Accuracy", (0, 1), 2)
    file.write_text(yaml.safe_dump(content | change))
    with pytest.raises(ConfigError, match=re.escape(message)):
        ProjectFolder.open(tmp_path)


def test_a_name_that_is_none_of_the_classes_is_named(tmp_path, numbered):
    new_project_of(tmp_path / "mine", Data(**described(tmp_path, kind=["a", "b"] * 8)))
    file = tmp_path / "mine/input/train.csv"
    table = pd.read_csv(file, dtype=str)
    table.assign(kind=["c", *table["kind"][1:]]).to_csv(file, index=False)
    with pytest.raises(DataError, match="1 target is none of class_names, the first at id 000"):
        preprocess(ProjectFolder.open(tmp_path / "mine"))
