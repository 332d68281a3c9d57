"""New images: predicting the test images again has to give what the run has submitted."""

import json
import os
import random
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from small_project import EXPERIMENTS, make_project, write_experiment
from warm import foldsmith

import foldsmith as package
from foldsmith.blending import stacking
from foldsmith.data.loose_images import find_images
from foldsmith.errors import ConfigError, DataError, OutputError
from foldsmith.predictor.export import export
from foldsmith.predictor.predict import predict
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import image_paths, read_test
from foldsmith.steps.ensemble import ensemble
from foldsmith.steps.infer import infer
from foldsmith.steps.train import train

# A network that is better than the constant after an epoch: others have no say in a blend.
QUICK = {
    "globals/max_epoch": 1,
    "loader/train/num_workers": 0,
    "model/base_name": "resnet10t",
}
BACKBONE = "output/000/backbone_epoch_1.pth"
MEMBERS = {
    "000": EXPERIMENTS["000"]
    | {
        "globals/max_epoch": 1,
        "globals/snapshot_interval": 1,
        "model/backbone/model_name": "resnet10t",
    },
    "100": EXPERIMENTS["100"] | QUICK | {"model/pretrained": None, "dataset/mixup": None},
    "200": EXPERIMENTS["200"] | QUICK | {"model/pretrained": None, "globals/tta": "hflip"},
    "300": {
        "import": "foldsmith:frozen_features.yml",
        "globals/output_root": "output/300",
        "model/base_name": "resnet10t",
        "model/pretrained": BACKBONE,
        "dataset/img_size": 40,
    },
    "900": EXPERIMENTS["900"]
    | {
        "ensemble/experiments": ["output/100", "output/200", "output/300"],
        "ensemble/calibrate": "isotonic",
        "ensemble/checkpoint": "last",
    },
}
RUN = "output/900"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_images):
    """A project after its ensemble; no test changes it."""
    folder = make_project(tmp_path_factory.mktemp("finished") / "project", small_images)
    for name, content in MEMBERS.items():
        write_experiment(folder, name, content)
    run = ("run", "--no-report", "-cfg", "exp_config/900.yml", "--keep-snapshots")
    result = foldsmith(folder, *run)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture
def project_dir(finished, tmp_path):
    """A copy to change."""
    return shutil.copytree(finished, tmp_path / "project")


def images_of(folder):
    project = ProjectFolder.open(folder)
    return image_paths(project, read_test(project))


def submitted(folder, file):
    return pd.read_csv(folder / file)["target"].to_numpy()


def equal(found, wanted, atol=1e-6):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


@pytest.fixture(scope="module")
def predictor(finished):
    return package.load(finished / RUN)


@pytest.fixture(scope="module")
def predicted(finished, predictor):
    return predictor.predict(images_of(finished))


def test_the_test_images_get_what_was_submitted(finished, predictor, predicted):
    assert predicted.columns.tolist() == ["path", "prediction", "spread"]
    assert predicted["path"].tolist() == [str(path) for path in images_of(finished)]
    equal(predicted["prediction"], submitted(finished, f"{RUN}/submission.csv"))
    assert (
        predictor.blend
        == json.loads((finished / RUN / "manifest.json").read_text())["facts"]["submit"]
    )


def test_the_spread_is_that_of_the_members(finished):
    mean = package.load(finished / RUN, blend="avg-all")
    table = mean.predict(images_of(finished))
    equal(table["prediction"], submitted(finished, f"{RUN}/submission_avg_all.csv"))
    assert table["prediction"].nunique() > 4
    assert len(mean.members) > 1 and set(mean.members) <= {"100", "200", "300"}
    files = [f"output/{name}/submission_by_last.csv" for name in mean.members]
    equal(table["spread"], np.std([submitted(finished, file) for file in files], axis=0))


def test_every_blend_is_the_one_of_its_submission(finished):
    names = pd.read_csv(finished / RUN / "ensemble_scores.csv")["name"].tolist()
    assert {"avg-cls", "wopt-all", "ridge", "stack", "simplex+isotonic"} < set(names)
    images = images_of(finished)
    for name in ("avg-cls", "wopt-all", "ridge", "best", "stack", "simplex+isotonic"):
        found = package.load(finished / RUN, blend=name).predict(images)["prediction"]
        file = name.replace("wopt", "weight_optimization").replace("-", "_").replace("+", "_")
        equal(found, submitted(finished, f"{RUN}/submission_{file}.csv"))
    with pytest.raises(ConfigError, match=r"no blend 'rigde' \(did you mean ridge\?\)"):
        package.load(finished / RUN, blend="rigde")


def test_members_without_a_say_are_not_opened_and_do_not_count(project_dir, tmp_path):
    images = images_of(project_dir)
    whole = package.load(project_dir / RUN, blend="avg-all")
    wanted = submitted(project_dir, f"{RUN}/submission_best.csv")
    best = package.load(project_dir / RUN, blend="best")
    (name,) = best.members
    for folder in {"100", "200", "300"} - {name}:
        for file in (project_dir / "output" / folder).glob("*"):
            if file.suffix in (".pth", ".safetensors"):
                file.unlink()
    best = package.load(project_dir / RUN, blend="best")
    assert best.members == [name] and len(best.models) == 1
    table = best.predict(images)
    equal(table["prediction"], wanted)
    # Of one member it is that of its folds, as if it were asked alone.
    alone = package.load(project_dir / "output" / name, checkpoint="last").predict(images)
    equal(table["spread"], alone["spread"])
    assert not np.allclose(table["spread"], whole.predict(images)["spread"])
    export(project_dir / RUN, tmp_path / "kept", blend="best")
    assert [path.name for path in (tmp_path / "kept/members").iterdir()] == [name]
    pd.testing.assert_frame_equal(package.load(tmp_path / "kept").predict(images), table, rtol=1e-5)


def test_a_stack_knows_new_images_as_it_knew_the_old(project_dir, monkeypatch):
    # With leaves as small as this the trees look at size, colours and probabilities.
    monkeypatch.setitem(stacking._TREES, "min_samples_leaf", 2)
    ensemble(ProjectFolder.open(project_dir), "exp_config/900.yml", force=True)
    stack = package.load(project_dir / RUN, blend="stack")
    table = stack.predict(images_of(project_dir))
    equal(table["prediction"], submitted(project_dir, f"{RUN}/submission_stack.csv"))
    forest = stack.fitted_blend.fitted.forest
    assert len(forest.value) / len(forest.roots) > 3
    # Nothing is fitted again: what it was fitted to may go.
    (project_dir / "input/img_info.csv").unlink()
    package.load(project_dir / RUN, blend="stack")


@pytest.mark.parametrize(("metric", "members"), [("QWK", None), ("LogLoss", ["output/100"])])
def test_predictions_are_rounded_as_the_metric_wants(project_dir, metric, members):
    path = project_dir / "project.yml"
    path.write_text(path.read_text() + f"metric: {metric}\n")
    with pytest.raises(OutputError, match=r'100: .*metric "RMSE" -> "' + metric):
        package.load(project_dir / RUN)
    project = ProjectFolder.open(project_dir)
    chosen = members or MEMBERS["900"]["ensemble/experiments"]
    for member in chosen[:2]:
        infer(project, member, "last")
    if members is None:
        train(project, "exp_config/300.yml", resume=True)
    of = [f"ensemble/experiments={json.dumps(chosen)}", "ensemble/calibrate=none"]
    ensemble(project, "exp_config/900.yml", of, force=True)
    images = images_of(project_dir)
    for blend in ("avg-all", "greedy", "stack"):
        found = package.load(project_dir / RUN, blend=blend).predict(images)["prediction"]
        file = f"{RUN}/submission_{blend.replace('-', '_')}.csv"
        equal(found, submitted(project_dir, file))
        if metric == "QWK":
            assert set(found) <= {0, 1, 2, 3}
        elif blend != "stack":  # whose trees have too few rows here
            assert found.nunique() > 4


def test_a_single_experiment_is_the_mean_of_its_folds(finished):
    images = images_of(finished)
    for name in ("100", "200", "300"):
        folder = finished / "output" / name
        table = package.load(folder).predict(images)
        equal(table["prediction"], submitted(folder, "submission_by_last.csv"))
        folds = [submitted(folder, f"submission_by_last_fold{k}.csv") for k in range(2)]
        equal(table["spread"], np.std(folds, axis=0))
    with pytest.raises(ConfigError, match="it has no blend 'ridge'"):
        package.load(folder, blend="ridge")


def test_what_inference_was_told_holds_for_new_images(project_dir):
    project, images = ProjectFolder.open(project_dir), images_of(project_dir)
    root = project_dir / "output/200"
    before = package.load(root).predict(images)["prediction"]
    more = ["globals/tta=flips", "dataset/val/transforms/pad/border=reflect"]
    infer(project, "output/200", "metric", overrides=more)
    with pytest.raises(ConfigError, match="was inferred by metric and by last; say which"):
        package.load(root)
    after = package.load(root, checkpoint="metric").predict(images)["prediction"]
    equal(after, submitted(root, "submission_by_best_metric.csv"))
    assert np.abs(after - before).max() > 1e-4
    equal(package.load(root, checkpoint="last").predict(images)["prediction"], before)


def test_a_frozen_backbone_of_random_weights_is_the_same_one(project_dir):
    write_experiment(project_dir, "310", MEMBERS["300"] | {"model/pretrained": None})
    to = "globals/output_root=output/310"
    root = train(ProjectFolder.open(project_dir), "exp_config/310.yml", [to])
    table = package.load(root).predict(images_of(project_dir))
    equal(table["prediction"], submitted(root, "submission_by_last.csv"))


def test_arrays_and_pil_images_are_as_good_as_files(finished, predictor, predicted, tmp_path):
    arrays = [cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) for path in images_of(finished)]
    table = predictor.predict(arrays)
    assert table["path"].isna().all()
    equal(table["prediction"], predicted["prediction"])
    # Neither contiguous nor RGB in its own right.
    mirrored = [np.ascontiguousarray(array[:, ::-1])[:, ::-1] for array in arrays]
    pngs = [tmp_path / f"{k}.png" for k in range(len(arrays))]
    for path, array in zip(pngs, arrays, strict=True):
        Image.fromarray(array).save(path)
    mixed = [mirrored[0], Image.open(pngs[1]), str(pngs[2]), Image.fromarray(arrays[3]), pngs[4]]
    equal(predictor.predict(iter(mixed))["prediction"], predicted["prediction"][:5], 1e-4)
    # One image is an image, and several arrays may be one.
    for one in (arrays[0], Image.open(pngs[0]), str(pngs[0])):
        equal(predictor.predict(one)["prediction"], predicted["prediction"][:1], 1e-4)
    twice = np.stack([arrays[0], arrays[0]])
    equal(predictor.predict(twice)["prediction"], predicted["prediction"][[0, 0]], 1e-4)


def test_a_image_on_its_side_is_turned_for_every_kind(finished, predictor, tmp_path):
    upright = Image.open(images_of(finished)[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = tmp_path / "turned.png"
    upright.rotate(90, expand=True).save(turned, exif=exif)
    table = predictor.predict([turned, Image.open(turned), np.array(upright)])
    equal(table["prediction"][1:], table["prediction"][[0, 0]], 1e-4)


def test_memory_is_taken_in_parts(finished, predictor, predicted, monkeypatch):
    monkeypatch.setattr(sys.modules["foldsmith.predictor.predictor"], "_CHUNK_BYTES", 8_000)
    asked = []
    logits = predictor.models[0].logits
    monkeypatch.setattr(
        predictor.models[0],
        "logits",
        lambda images: (asked.append(len(images)), logits(images))[1],
    )
    table = predictor.predict(images_of(finished))
    equal(table["prediction"], predicted["prediction"], 1e-4)
    assert len(asked) > 1 and sum(asked) == len(table)


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
def album(finished, tmp_path):
    """Folders of images in the order of the test table, and what is none among them."""
    folder = tmp_path / "album"
    (folder / "b/deep").mkdir(parents=True)
    images = images_of(finished)
    for k, image in enumerate(images):
        name = f"{k}.JPG" if k < 3 else f"b/{k}.jpg" if k < 6 else f"b/deep/{k}.jpg"
        shutil.copy(image, folder / name)
    (folder / "notes.txt").write_text("no image")
    (folder / "b/._3.jpg").write_text("a Mac's")
    return folder


def test_the_command_line_predicts_folders_and_patterns(finished, predictor, album, predicted, cli):
    wanted = predicted["prediction"]
    folder = str(album)
    result = cli(finished, "predict", "--run", RUN, folder, "-o", str(album / "out.csv"))
    table = pd.read_csv(album / "out.csv")
    assert table["path"].tolist() == [str(path) for path in find_images([album])]
    assert [os.path.relpath(path, album) for path in table["path"][:4]] == [
        *("0.JPG", "1.JPG", "2.JPG", "b/3.jpg")
    ]
    equal(table["prediction"], wanted)
    assert (
        "wrote " in result.stdout
        and f"(8 images; by {blend_of(finished)} of {', '.join(predictor.members)})"
        in (result.stdout)
    )
    # From anywhere, patterns and files too, each image once; without -o on the terminal.
    pattern, file = f"{folder}/**/*.jpg", f"{folder}/b/3.jpg"
    run = str(finished / RUN)
    printed = cli(album, "predict", "--run", run, "1.JPG", pattern, file, "--blend", "ridge").stdout
    lines = printed.splitlines()
    assert lines[0] == "path,prediction,spread" and len(lines) == 1 + 1 + 5
    ridge = submitted(finished, f"{RUN}/submission_ridge.csv")
    found = [float(line.rsplit(",", 2)[1]) for line in lines[1:]]
    equal(found, ridge[[1, 3, 4, 5, 6, 7]], 1e-4)
    project = ["--project", str(finished), "--run", RUN, "--device", "cpu"]
    cli(album, "predict", *project, "b", "-o", "out.json")
    records = json.loads((album / "out.json").read_text())
    assert records[0].keys() == {"path", "prediction", "spread"}
    equal([record["prediction"] for record in records], wanted[3:], 1e-4)


def without_notes(stderr):
    """Lines of an error output, less those on files that are no images."""
    return [line for line in stderr.splitlines() if "not taken for images" not in line]


def blend_of(folder):
    return json.loads((folder / RUN / "manifest.json").read_text())["facts"]["submit"]


def test_unreadable_images_are_named_or_skipped(finished, album, predicted, cli):
    (album / "1.JPG").write_bytes(b"no image")
    cut = album / "b/4.jpg"
    cut.write_bytes(cut.read_bytes()[:100])
    command = ["predict", "--run", str(finished / RUN), ".", "-o", "out.json"]
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
def test_what_cannot_be_done_is_one_line(finished, cli, arguments, message):
    result = cli(finished, "predict", *arguments, code=2)
    lines = without_notes(result.stderr)
    assert len(lines) == 1 and lines[0].startswith("foldsmith: error: ") and message in lines[0]


def test_parquet_needs_a_library(finished, monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="Parquet needs pyarrow"):
        predict(finished / RUN, [finished], tmp_path / "out.parquet")


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
def test_missing_and_changed_files_are_named(project_dir, file, act, message):
    act(project_dir / file)
    with pytest.raises((OutputError, ConfigError), match=message) as error:
        package.load(project_dir / RUN, blend="avg-all")
    assert Path(file).name in str(error.value) and "\n" not in str(error.value)


def test_what_the_errors_advise_helps(project_dir):
    project, wanted = (
        ProjectFolder.open(project_dir),
        submitted(project_dir, f"{RUN}/submission.csv"),
    )
    (project_dir / "output/100/last_model_fold1.pth").unlink()
    (project_dir / "output/300/head_fold0.safetensors").unlink()
    infer(project, "output/100", "last", keep_snapshots=True)
    train(project, "exp_config/300.yml", resume=True)
    table = package.load(project_dir / RUN).predict(images_of(project_dir))
    equal(table["prediction"], wanted)


def test_what_was_learned_from_may_go(project_dir):
    wanted = submitted(project_dir, f"{RUN}/submission.csv")
    images = images_of(project_dir)
    ProjectFolder.open(project_dir).fold_table.unlink()
    (project_dir / "input/train.csv").unlink()
    (project_dir / "output/300/train_features.npy").unlink()
    equal(package.load(project_dir / RUN).predict(images)["prediction"], wanted)


def test_random_numbers_of_others_stay_as_they_are(finished):
    def drawn():
        return [random.random(), np.random.rand(), torch.rand(()).item()]

    np.random.seed(1)
    random.seed(1)
    torch.manual_seed(1)
    wanted = drawn()
    np.random.seed(1)
    random.seed(1)
    torch.manual_seed(1)
    package.load(finished / RUN).predict(np.zeros((8, 8, 3), np.uint8))
    assert drawn() == wanted


def test_members_that_predict_otherwise_now_are_not_blended(project_dir):
    infer(ProjectFolder.open(project_dir), "output/200", "last", overrides=["globals/tta=none"])
    with pytest.raises(OutputError, match="has blended other predictions"):
        package.load(project_dir / RUN)


def test_a_project_without_its_images_predicts(project_dir, predicted, album):
    shutil.rmtree(project_dir / "input/photos")
    shutil.rmtree(project_dir / ".foldsmith")
    table = package.load(project_dir / RUN).predict(find_images([album]))
    equal(table["prediction"], predicted["prediction"])
    assert not (project_dir / ".foldsmith/images").exists()
