"""A new project, from the command to a blend."""

import io
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from warm import Command, one_core

from foldsmith.cli.new_command import _ask
from foldsmith.data.table_checks import table_problems
from foldsmith.errors import DataError, OutputError
from foldsmith.new.files import TEMPLATE
from foldsmith.new.new import new_project, new_project_of
from foldsmith.new.new_rows import Data
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import image_paths, read_test, read_train
from foldsmith.run.dry_run import dry_run
from foldsmith.steps.check import check
from foldsmith.steps.members import _image_facts
from foldsmith.steps.preprocess import preprocess

EXPERIMENTS = ["300", "400", "401", "402", "403", "404", "410", "420", "901"]

# Everything that makes the recommended recipe run in seconds.
TINY = [
    "300:globals/max_epoch=1",
    "300:loader/train/batch_size=8",
    "4*0:dataset/img_size=32",
    "4[12]0:globals/max_epoch=1",
    "40[1-4]:dataset/img_size=32",
    "402:model/n_centres=20",
    "404:model/n_components=4",
    "300:dataset/img_size=32",
]


def fill_in(folder, images):
    """Set the lines of the project file, as a person would, for the demo's images."""
    text = (folder / "project.yml").read_text()
    for old, new in (
        ("images/{image_id}.jpg", "photos/{object_id}.jpg"),
        ("id_column: image_id", "id_column: object_id"),
        ("group_column: group", "group_column: art_series_id"),
        ("n_splits: 5", "n_splits: 2"),
        ("StratifiedGroupKFold", "GroupKFold"),
    ):
        assert old in text
        text = text.replace(old, new, 1)
    (folder / "project.yml").write_text(text)
    shutil.copytree(images, folder / "input")


def test_a_new_project_runs_once_its_lines_are_set(tmp_path, small_images, cli):
    cli(tmp_path, "new", "mine")
    folder = tmp_path / "mine"
    assert sorted(file.stem for file in (folder / "exp_config").iterdir()) == EXPERIMENTS
    fill_in(folder, small_images)
    run = ("run", "--no-report", "-cfg", "exp_config/901.yml", *TINY)
    result = Command(folder, *run, before=(one_core,)).finish()
    assert result.returncode == 0, result.stdout + result.stderr
    weights = pd.read_csv(folder / "output/901_ensemble/weights.csv").set_index("experiment")
    members = [
        *("400_descriptors", "401_frozen", "402_patches", "403_shapes", "404_fisher"),
        *("410_regression", "420_distribution"),
    ]
    assert weights.index.tolist() == members
    assert weights["wopt-all"].sum() == pytest.approx(1)
    assert len(pd.read_csv(folder / "output/901_ensemble/submission.csv")) == 8
    # No fold has chosen its own epoch.
    assert (folder / "output/410_regression/oof_prediction_by_last.npy").is_file()


@pytest.mark.parametrize(
    "word", ["small", *(pytest.param(b, marks=pytest.mark.slow) for b in ("medium", "large"))]
)
def test_it_passes_the_check_at_every_time(tmp_path, small_images, word):
    new_project(tmp_path / "mine", word)
    fill_in(tmp_path / "mine", small_images)
    project = ProjectFolder.open(tmp_path / "mine")
    assert (project.settings.name, project.settings.budget) == ("mine", word)
    planned = dry_run(project, "exp_config/901.yml")
    # preprocess, pretraining, two frozen members, two fine-tunings of two folds, ensemble
    assert len([line for line in planned.splitlines() if "to do" in line]) >= 6

    def backbone(name, *overrides):
        return yaml.safe_load(check(project, f"exp_config/{name}.yml", overrides))["model"]

    assert backbone("410")["base_name"] == backbone("420")["base_name"]
    frozen = backbone("401", "model/pretrained=null")["base_name"]
    assert frozen == backbone("300")["backbone"]["model_name"]


def test_nothing_is_overwritten(tmp_path):
    new_project(tmp_path / "mine", "small")
    mine = tmp_path / "mine/exp_config/410.yml"
    mine.write_text("my own")
    (tmp_path / "mine/project.yml").unlink()
    with pytest.raises(OutputError, match=r"410\.yml|300\.yml"):
        new_project(tmp_path / "mine", "small")
    assert mine.read_text() == "my own"
    assert not (tmp_path / "mine/project.yml").exists()


def test_the_bundled_project_uses_the_same_recipes(project_dir):
    """Every recipe that a new project imports is one that the competition's 3xx and 4xx import."""

    def imports(folder):
        files = [*folder.glob("3*.yml"), *folder.glob("4*.yml"), folder / "901.yml"]
        return {yaml.safe_load(file.read_text())["import"] for file in files}

    assert imports(TEMPLATE / "exp_config") <= imports(project_dir / "exp_config")


def make_images(folder, *names):
    """Write images in which a class can be seen: each folder has a colour of its own."""
    rng = np.random.default_rng(0)
    folders = sorted({name.rpartition("/")[0] for name in names})
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = 40 + 60 * (folders.index(name.rpartition("/")[0]) % 3)
        cv2.imwrite(str(path), rng.integers(colour, colour + 40, (40, 48, 3), np.uint8))


def opened(folder):
    """Open a new project whose tables have nothing wrong and whose images are there."""
    project = ProjectFolder.open(folder)
    assert table_problems(project) == []
    tables = read_train(project), read_test(project)
    assert all(path.is_file() for table in tables for path in image_paths(project, table))
    return project, *tables


def table_of(n, **columns):
    return pd.DataFrame({"Bild Nr.": [f"{k:03}" for k in range(n)], **columns})


@pytest.fixture
def numbered(tmp_path):
    """Images 000 to 023 in nested folders, of all kinds."""
    kinds = ["jpg", "JPG", "jpeg", "png", "webp", "tif", "bmp", "PNG"]
    names = [f"{'ab'[k % 2]}/{k % 3}/{k:03}.{kinds[k % 8]}" for k in range(24)]
    make_images(tmp_path / "images", *names)
    return tmp_path / "images"


def test_a_table_with_any_column_names_becomes_a_project(tmp_path, numbered, cli):
    train = table_of(
        16, **{"Größe: cm #1": np.arange(16) / 3, "patient": [f"p{k // 2}" for k in range(16)]}
    )
    train.to_csv(tmp_path / "labels.csv", index=False)
    table_of(24)[16:].to_csv(tmp_path / "others.csv", index=False)
    flags = ["--images", "images", "--train", "labels.csv", "--test", "others.csv"]
    # Nothing is unclear, so nothing is asked.
    said = cli(tmp_path, "new", "my: project", *flags).stdout
    assert "id       Bild Nr.: names 16 images" in said
    assert "target   Größe: cm #1: numbers, 16 values" in said
    assert "group    patient: 8 values" in said
    assert "\nnote: only 8 groups: scores out of fold are rough" in said
    project, new_train, new_test = opened(tmp_path / "my: project")
    settings = project.settings
    assert settings.name == "my: project"
    assert (settings.id_column, settings.target_column) == ("Bild Nr.", "Größe: cm #1")
    assert (settings.group_column, settings.metric) == ("patient", "RMSE")
    assert settings.target_range == pytest.approx((0, 5))
    assert new_train["Bild Nr."].tolist() == train["Bild Nr."].tolist()
    assert len(new_test) == 8
    # The images stay where they are.
    assert (project.data_dir / "images").readlink() == numbered
    planned = cli(tmp_path / "my: project", "run", "-cfg", "exp_config/901.yml", "--dry-run")
    assert planned.stdout.count("to do") >= 6
    readme = (tmp_path / "my: project/README.md").read_text()
    assert "16 labelled images; target Größe: cm #1" in readme and "$" not in readme


@pytest.mark.slow
def test_an_image_folder_without_test_images_runs_to_the_end(tmp_path, cli):
    names = [f"{kind}/{k}.png" for kind in ("bad", "good", "very good") for k in range(8)]
    make_images(tmp_path / "tree", *names)
    flags = ["--images", "tree", "--time", "small", "--metric", "QWK"]
    said = cli(tmp_path, "new", "mine", *flags).stdout
    assert "classes  bad, good, very good: taken for steps of one scale, in this order" in said
    folder = tmp_path / "mine"
    text = (folder / "project.yml").read_text()
    assert "#   0 = bad\n#   1 = good\n#   2 = very good\n" in text
    project, train, test = opened(folder)
    assert dict(zip(train["class"], train["target"], strict=True)) == {
        "bad": 0,
        "good": 1,
        "very good": 2,
    }
    assert (project.n_classes, project.settings.metric, len(test)) == (3, "QWK", 0)
    # Without a GPU there is no pretraining.
    tiny = [text for text in TINY if not text.startswith(("300", "401"))]
    said = cli(folder, "run", "-cfg", "exp_config/901.yml", *tiny).stdout
    assert "(the test table has no rows: the submissions are empty)" in said
    assert len(pd.read_csv(folder / "output/901_ensemble/submission.csv")) == 0
    scores = pd.read_csv(folder / "output/901_ensemble/ensemble_scores.csv")
    assert scores["cross_fitted"].notna().any()
    assert "to do" not in cli(folder, "status").stdout


def test_test_images_may_lie_in_a_folder_of_their_own(tmp_path):
    make_images(tmp_path / "train", *(f"{kind}/{k}.jpg" for kind in "ab" for k in range(6)))
    make_images(tmp_path / "test", "0.jpg", "1.jpg")
    data = Data(images=tmp_path / "train", test_images=tmp_path / "test")
    new_project_of(tmp_path / "mine", data)
    project, _, test = opened(tmp_path / "mine")
    assert test["image_id"].tolist() == ["0.jpg", "1.jpg"]
    assert test["path"].tolist() == ["test_images/0.jpg", "test_images/1.jpg"]
    assert project.settings.metric == "Accuracy"


def test_columns_of_its_own_do_not_meet_those_of_the_table(tmp_path, numbered):
    columns = {"path": range(16), "target": ["no", "yes"] * 8}
    table_of(16, **columns).to_csv(tmp_path / "train.csv", index=False)
    data = Data(images=numbered, train=tmp_path / "train.csv", metric="RMSE")
    new_project_of(tmp_path / "mine", data, yes=True)
    project, train, _ = opened(tmp_path / "mine")
    assert train["path"].tolist() == [str(k) for k in range(16)]
    assert train["target"].tolist() == ["no", "yes"] * 8
    assert project.settings.target_column == "new_target"
    assert train["new_target"].tolist() == [0, 1] * 8


def test_what_is_named_is_taken(tmp_path, numbered):
    columns = {
        "label": [0, 1] * 8,
        "weight": [1, 2, 3, 4] * 4,
        "group": [k // 2 for k in range(16)],
    }
    table_of(16, **columns).to_csv(tmp_path / "train.csv", index=False)
    data = Data(
        images=numbered,
        train=tmp_path / "train.csv",
        target_column="weight",
        group_column="none",
        metric="MAE",
        time="large",
    )
    new_project_of(tmp_path / "mine", data)
    settings = opened(tmp_path / "mine")[0].settings
    assert (settings.target_column, settings.group_column) == ("weight", None)
    assert (settings.metric, settings.time) == ("MAE", "8h")
    assert settings.folds.method == "StratifiedKFold"


def test_ids_of_digits_are_found_again_in_the_facts_of_the_images(tmp_path, numbered):
    table_of(16, label=[0, 1] * 8).to_csv(tmp_path / "train.csv", index=False)
    new_project_of(tmp_path / "mine", Data(images=numbered, train=tmp_path / "train.csv"))
    project, train, _ = opened(tmp_path / "mine")
    preprocess(project)
    assert np.isfinite(_image_facts(project, train, "train")).all()


@pytest.fixture
def unclear(tmp_path, numbered):
    """Two columns that may be the target, and two that may be the group."""
    columns = {
        "length": [1, 2, 3, 4] * 4,
        "weight": [1, 2] * 8,
        "patient": [k // 2 for k in range(16)],
        "clinic_id": [k // 4 for k in range(16)],
    }
    table_of(16, **columns).to_csv(tmp_path / "train.csv", index=False)
    return Data(images=numbered, train=tmp_path / "train.csv")


def test_what_is_unclear_is_asked(tmp_path, unclear):
    asked = []

    def ask(question, answers, best):
        asked.append((question, list(answers)[:2], best))
        answers = {"target": "length", "scale": "scale", "group": "none"}
        return next(answer for word, answer in answers.items() if word in question)

    new_project_of(tmp_path / "mine", unclear, ask)
    assert asked == [
        ("Which column is the target?", ["weight", "length"], "weight"),
        (
            "Are the numbers of length a scale, or do they number classes without an order?",
            ["scale", "classes"],
            "scale",
        ),
        ("Which column is the group?", ["patient", "clinic_id"], "patient"),
    ]
    settings = opened(tmp_path / "mine")[0].settings
    assert (settings.target_column, settings.group_column) == ("length", None)


def test_or_guessed_or_an_error(tmp_path, unclear, cli, capsys):
    flags = ["--images", "images", "--train", "train.csv"]
    said = cli(tmp_path, "new", "mine", *flags, code=2).stderr
    assert "train.csv: which column is the target? It may be weight, length; " in said
    # Neither is called as people call targets, so that --yes would not take one either.
    assert "--target" in said and "--yes" not in said
    with pytest.raises(DataError, match="which column is the target"):
        new_project_of(tmp_path / "mine", unclear, yes=True)
    assert not (tmp_path / "mine").exists()
    new_project_of(tmp_path / "mine", replace(unclear, target_column="weight"), yes=True)
    settings = opened(tmp_path / "mine")[0].settings
    assert (settings.target_column, settings.group_column) == ("weight", "patient")
    assert "(or clinic_id: --group)" in capsys.readouterr().out


def test_an_answer_must_be_possible(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("nonsense\nlength\n"))
    assert _ask("Which?", ["weight", "length"], "weight") == "length"
    assert "'nonsense' is none of these: weight, length" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace({"Bild Nr.": {"003": "999"}}), "column Bild Nr.: 1 of 16 rows name"),
        (lambda t: t.replace({"Bild Nr.": {"003": "004"}}), "column Bild Nr.: 1 id stands more"),
        (lambda t: t.assign(label=[None, *t["label"][1:]]), "column label: 1 row has no number"),
        (lambda t: t.assign(group=[None, *t["group"][1:]]), "column group: 1 row has no group"),
        (lambda t: t.assign(group=1), "column group: all rows are of one group"),
        (lambda t: t.drop(columns="group"), "no column 'group' for --group"),
        (lambda t: t.iloc[:0], "a line of column names but no rows"),
        (
            lambda t: pd.concat([t, table_of(24, label=1, group=1)[20:]]),
            "1 image is in .*train.csv",
        ),
        (
            lambda t: t.replace({"Bild Nr.": {"003": "004.webp"}}),
            "004.webp, 004 name the same image",
        ),
        (
            lambda t: pd.concat([t, t[:1].assign(**{"Bild Nr.": "023.PNG"})]),
            "1 image is in .*train.csv too, the first is 023",
        ),
    ],
)
def test_wrong_data_is_said_before_anything_is_written(tmp_path, numbered, change, message):
    good = table_of(16, label=[0, 1] * 8, group=[k // 2 for k in range(16)])
    change(good).to_csv(tmp_path / "train.csv", index=False)
    table_of(24)[23:].to_csv(tmp_path / "test.csv", index=False)
    tables = {"train": tmp_path / "train.csv", "test": tmp_path / "test.csv"}
    data = Data(images=numbered, group_column="group", **tables)
    with pytest.raises(DataError, match=message) as error:
        new_project_of(tmp_path / "mine", data)
    assert ".csv: " in str(error.value)
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train", "train.csv"], "--train needs --images"),
        (["--images", "nowhere"], "--images: nowhere: no such folder"),
        (["--images", "images", "--test", "a.csv"], "--test needs --train"),
        (["--images", "images", "--train", "a.csv"], "a.csv: no such file"),
    ],
)
def test_flags_that_do_not_fit(tmp_path, numbered, cli, flags, message):
    assert message in cli(tmp_path, "new", "mine", *flags, code=2).stderr
    assert not (tmp_path / "mine").exists()


def test_tables_that_are_there_are_not_overwritten(tmp_path):
    make_images(tmp_path / "tree", *(f"{kind}/{k}.jpg" for kind in "ab" for k in range(6)))
    (tmp_path / "mine/input").mkdir(parents=True)
    (tmp_path / "mine/input/train.csv").write_text("my own")
    with pytest.raises(OutputError, match=r"train\.csv: exists already"):
        new_project_of(tmp_path / "mine", Data(images=tmp_path / "tree"))
    assert not (tmp_path / "mine/project.yml").exists()


def test_a_project_that_holds_its_images_may_move(tmp_path):
    make_images(tmp_path / "here/raw", *(f"{kind}/{k}.jpg" for kind in "ab" for k in range(6)))
    new_project_of(tmp_path / "here", Data(images=tmp_path / "here/raw"))
    (tmp_path / "here").rename(tmp_path / "there")
    opened(tmp_path / "there")


@pytest.mark.parametrize(("large", "time"), [(13, "1h"), (12, "8h")])
def test_the_time_follows_device_and_images(tmp_path, monkeypatch, large, time):
    make_images(tmp_path / "tree", *(f"{kind}/{k}.jpg" for kind in "ab" for k in range(6)))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("foldsmith.new.decisions._LARGE", large)
    new_project_of(tmp_path / "mine", Data(images=tmp_path / "tree"))
    assert opened(tmp_path / "mine")[0].settings.time == time


def test_a_spreadsheet_of_another_country_is_read_as_it_is_meant(tmp_path, numbered, cli):
    lines = ["Bild Nr.;Länge;Art", *(f"{k:03};{k // 2},5;x{k % 3}" for k in range(16))]
    (tmp_path / "train.csv").write_text("\n".join(lines))
    flags = ["--images", "images", "--train", "train.csv", "--target", "Länge", "--yes"]
    said = cli(tmp_path, "new", "mine", *flags).stdout
    assert "note: Länge: the decimal commas are written as points" in said
    project, train, _ = opened(tmp_path / "mine")
    assert train["Länge"].tolist() == [k // 2 + 0.5 for k in range(16)]
    assert project.settings.target_range == (0.5, 7.5)
    lines = [line.replace(",5", ",500") for line in lines]
    (tmp_path / "train.csv").write_text("\n".join(lines[:1] + lines[3:]))
    result = cli(tmp_path, "new", "other", *flags, code=2)
    (line,) = [line for line in result.stderr.splitlines() if "error" in line]
    assert "train.csv: column Länge: numbers such as 1,500 may be read in several ways" in line


def test_zeros_of_ids_stay_to_the_end(tmp_path, numbered, cli):
    table_of(16, label=[0, 1] * 8).to_csv(tmp_path / "train.csv", index=False)
    table_of(24)[16:].to_csv(tmp_path / "test.csv", index=False)
    flags = ["--images", "images", "--train", "train.csv", "--test", "test.csv"]
    cli(tmp_path, "new", "mine", *flags)
    folder = tmp_path / "mine"
    config = folder / "exp_config/901.yml"
    content = yaml.safe_load(config.read_text())
    content["ensemble/experiments"] = ["output/400_descriptors"]
    config.write_text(yaml.safe_dump(content))
    cli(folder, "run", "--no-report", "-cfg", "exp_config/901.yml", "400:dataset/img_size=32")
    submission = (folder / "output/901_ensemble/submission.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in submission] == [
        "Bild Nr.",
        *(f"{k:03}" for k in range(16, 24)),
    ]
    oof = (folder / "output/400_descriptors/oof_prediction_by_last.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in oof[1:4]] == ["000", "001", "002"]
    # The images are behind a link, which is followed.
    predicted = cli(folder, "predict", "--run", "output/901_ensemble", "input").stdout
    assert "input/images/" in predicted and len(predicted.splitlines()) == 1 + 24
