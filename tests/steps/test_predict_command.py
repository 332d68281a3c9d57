"""Predictions of folders and files: the command, and one clear line for each error."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from blended_run import BACKBONE, RUN, equal, images_of, submitted
from PIL import Image

import foldsmith as package
from foldsmith.data.loose_images import find_images
from foldsmith.errors import ConfigError, DataError, OutputError
from foldsmith.predictor.predict import predict
from foldsmith.project import ProjectFolder
from foldsmith.steps.infer import infer
from foldsmith.steps.train_command import train


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3)), r"image 1: is an array of float64, shape \(4, 4, 3\)"),
        (np.zeros((4, 4), np.uint8), r"image 1: is an array of uint8, shape \(4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), "image 1: is an array"),
        (Image.new("I", (4, 4)), "image 1: is a PIL image of mode I"),
        (7, "image 1: is a int"),
        ("none.jpg", "none.jpg: no such image"),
    ],
)
def test_what_is_no_image_is_named(predictor, image, message):
    good = np.full((8, 8, 3), 90, np.uint8)
    with pytest.raises(DataError, match=message):
        predictor.predict([good, image, good])
    table = predictor.predict([good, image, good], skip_bad=True)
    assert table["prediction"].isna().tolist() == [False, True, False]
    assert table["spread"].isna().tolist() == [False, True, False]
    equal(table["prediction"][[0]], table["prediction"][[2]])
    assert predictor.predict([image], skip_bad=True)["prediction"].isna().all()


def test_no_images_are_an_error(predictor):
    with pytest.raises(DataError, match="no images"):
        predictor.predict([])


@pytest.fixture
def album(blended, tmp_path):
    """Folders of images in the order of the test table, and what is none among them."""
    folder = tmp_path / "album"
    (folder / "b/deep").mkdir(parents=True)
    images = images_of(blended)
    for k, image in enumerate(images):
        name = f"{k}.JPG" if k < 3 else f"b/{k}.jpg" if k < 6 else f"b/deep/{k}.jpg"
        shutil.copy(image, folder / name)
    (folder / "notes.txt").write_text("no image")
    (folder / "b/._3.jpg").write_text("a Mac's")
    return folder


def test_the_command_line_predicts_folders_and_patterns(blended, predictor, album, predicted, cli):
    wanted = predicted["prediction"]
    folder = str(album)
    result = cli(blended, "predict", "--run", RUN, folder, "-o", str(album / "out.csv"))
    table = pd.read_csv(album / "out.csv")
    assert table["path"].tolist() == [str(path) for path in find_images([album])]
    assert [os.path.relpath(path, album) for path in table["path"][:4]] == [
        *("0.JPG", "1.JPG", "2.JPG", "b/3.jpg")
    ]
    equal(table["prediction"], wanted)
    assert (
        "wrote " in result.stdout
        and f"(8 images; by {blend_of(blended)} of {', '.join(predictor.members)})"
        in (result.stdout)
    )
    # From anywhere, patterns and files too, each image once; without -o on the terminal.
    pattern, file = f"{folder}/**/*.jpg", f"{folder}/b/3.jpg"
    run = str(blended / RUN)
    printed = cli(album, "predict", "--run", run, "1.JPG", pattern, file, "--blend", "ridge").stdout
    lines = printed.splitlines()
    assert lines[0] == "path,prediction,spread" and len(lines) == 1 + 1 + 5
    ridge = submitted(blended, f"{RUN}/submission_ridge.csv")
    found = [float(line.rsplit(",", 2)[1]) for line in lines[1:]]
    equal(found, ridge[[1, 3, 4, 5, 6, 7]], 1e-4)
    project = ["--project", str(blended), "--run", RUN, "--device", "cpu"]
    cli(album, "predict", *project, "b", "-o", "out.json")
    records = json.loads((album / "out.json").read_text())
    assert records[0].keys() == {"path", "prediction", "spread"}
    equal([record["prediction"] for record in records], wanted[3:], 1e-4)


def without_notes(stderr):
    """Lines of an error output, less those on files that are no images."""
    return [line for line in stderr.splitlines() if "not taken for images" not in line]


def blend_of(folder):
    return json.loads((folder / RUN / "manifest.json").read_text())["facts"]["submit"]


def test_unreadable_images_are_named_or_skipped(blended, album, predicted, cli):
    (album / "1.JPG").write_bytes(b"no image")
    cut = album / "b/4.jpg"
    cut.write_bytes(cut.read_bytes()[:100])
    command = ["predict", "--run", str(blended / RUN), ".", "-o", "out.json"]
    result = cli(album, *command, code=2)
    errors = without_notes(result.stderr)
    assert [line.split(": ")[:3] for line in errors] == [
        ["foldsmith", "error", "1.JPG"],
        ["foldsmith", "error", "b/4.jpg"],
    ]
    assert not (album / "out.json").exists()
    result = cli(album, *command, "--skip-bad")
    assert "8 images, 2 of them without a prediction" in result.stdout
    assert result.stderr.count("warning: no prediction: ") == 2
    records = json.loads((album / "out.json").read_text())
    missing = [k for k, record in enumerate(records) if record["prediction"] is None]
    assert missing == [1, 4] and records[1]["spread"] is None
    good = [k for k in range(8) if k not in missing]
    equal([records[k]["prediction"] for k in good], predicted["prediction"][good], 1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "output/none", "."], "is it the output folder of a run?"),
        (["--run", "output/000", "."], "holds a self-supervised run, which predicts nothing"),
        (["--run", RUN, "nothing/*.jpg"], "nothing/*.jpg: no file has such a name"),
        (["--run", RUN, "exp_config"], "exp_config: holds no images"),
        (["--run", RUN, ".", "-o", "out.xlsx"], "out.xlsx: must end with .csv, .json or .parquet"),
        (["--run", RUN, ".", "-cri", "last"], "is an ensemble"),
        (["--run", RUN, ".", "--device", "cuda:9"], "globals/device"),
        (["--run", "output/100", ".", "-cri", "loss"], "run 'foldsmith infer -e"),
        (["--run", "/", "."], "lies in no project"),
    ],
)
def test_what_cannot_be_done_is_one_line(blended, cli, arguments, message):
    result = cli(blended, "predict", *arguments, code=2)
    lines = without_notes(result.stderr)
    assert len(lines) == 1 and lines[0].startswith("foldsmith: error: ") and message in lines[0]


def test_parquet_needs_a_library(blended, monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="Parquet needs pyarrow"):
        predict(blended / RUN, [blended], tmp_path / "out.parquet")


def delete(path):
    path.unlink()


def damage(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("file", "act", "message"),
    [
        ("output/100/last_model_fold1.pth", delete, "no such file; put it back, or run"),
        (
            "output/200/last_model_fold0.pth",
            damage,
            "differs from the file that predicted the test images",
        ),
        ("output/300/head_fold1.safetensors", delete, "no such file; put it back.*train --resume"),
        (
            "output/300/head_fold0.safetensors",
            damage,
            "differs from the file that predicted the test images",
        ),
        (BACKBONE, delete, "no such file.*run the stage that makes it first"),
        (BACKBONE, damage, "from other inputs than today's .*backbone_epoch_1.pth"),
        ("input/stats_by_data.csv", damage, "from other inputs than today's .*stats_by_data"),
        (
            f"{RUN}/blends.safetensors",
            delete,
            "blends.safetensors: no such file; 'foldsmith ensemble -cfg .* -f'",
        ),
        (
            f"{RUN}/blends.safetensors",
            damage,
            "was changed; 'foldsmith ensemble -cfg .* -f' blends",
        ),
        (f"{RUN}/manifest.json", delete, "manifest.json: no such file; run 'foldsmith ensemble'"),
        ("output/200/manifest_by_last.json", delete, "run 'foldsmith infer -e output/200 -cri"),
    ],
)
def test_missing_and_changed_files_are_named(blended_copy, file, act, message):
    act(blended_copy / file)
    with pytest.raises((OutputError, ConfigError), match=message) as error:
        package.load(blended_copy / RUN, blend="avg-all")
    assert Path(file).name in str(error.value) and "\n" not in str(error.value)


def test_what_the_errors_advise_helps(blended_copy):
    project, wanted = (
        ProjectFolder.open(blended_copy),
        submitted(blended_copy, f"{RUN}/submission.csv"),
    )
    (blended_copy / "output/100/last_model_fold1.pth").unlink()
    (blended_copy / "output/300/head_fold0.safetensors").unlink()
    infer(project, "output/100", "last", keep_snapshots=True)
    train(project, "exp_config/300.yml", resume=True)
    table = package.load(blended_copy / RUN).predict(images_of(blended_copy))
    equal(table["prediction"], wanted)


def test_members_that_predict_otherwise_now_are_not_blended(blended_copy):
    infer(ProjectFolder.open(blended_copy), "output/200", "last", overrides=["globals/tta=none"])
    with pytest.raises(OutputError, match="has blended other predictions"):
        package.load(blended_copy / RUN)


def test_a_project_without_its_images_predicts(blended_copy, predicted, album):
    shutil.rmtree(blended_copy / "input/photos")
    shutil.rmtree(blended_copy / ".foldsmith")
    table = package.load(blended_copy / RUN).predict(find_images([album]))
    equal(table["prediction"], predicted["prediction"])
    assert not (blended_copy / ".foldsmith/images").exists()
