"""A dictionary of patches as a member: learned once, kept, shown, and used for new images."""

import json
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from die_at_write import die_at_write
from fastapi.testclient import TestClient
from kill_and_resume import compare
from small_project import make_project, write_experiment
from warm import Command

import foldsmith as package
from foldsmith.config import Context, Experiment
from foldsmith.extras.serve.limits import Limits
from foldsmith.extras.serve.service import create_app
from foldsmith.project import ProjectFolder
from foldsmith.steps.features import fit_experiment
from foldsmith.steps.frozen_features import images_to_learn_from
from foldsmith.steps.image_store import open_store
from foldsmith.steps.registry import types_of
from foldsmith.utils.hashing import FileHashes

PATCHES = {
    "import": "foldsmith:recommended_patches.yml",
    "globals/output_root": "output/402",
    "model/n_centres": 12,
    "dataset/img_size": 24,
    "head": {"type": "RidgeHead"},
}
ENSEMBLE = {
    "import": "foldsmith:recommended_ensemble.yml",
    "globals/output_path": "output/901",
    "ensemble/experiments": ["output/402"],
}
LEARNED = "output/402/learned.safetensors"
RUN = ("run", "--no-report", "-cfg", "exp_config/901.yml")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_images):
    from warm import foldsmith

    folder = make_project(tmp_path_factory.mktemp("patches") / "project", small_images)
    write_experiment(folder, "402", PATCHES)
    write_experiment(folder, "901", ENSEMBLE)
    result = foldsmith(folder, *RUN)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture
def project_dir(finished, tmp_path):
    """A copy of the finished project."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def submitted(folder):
    return pd.read_csv(folder / "output/901/submission.csv").iloc[:, -1].to_numpy()


def test_images(folder):
    names = pd.read_csv(folder / "input/test.csv")["object_id"]
    return [str(folder / f"input/photos/{name}.jpg") for name in names]


test_images.__test__ = False


def test_what_was_learned_is_an_output_and_all_goes_on_from_it(project_dir, cli):
    for manifest in ("features.json", "manifest_by_last.json"):
        content = json.loads((project_dir / "output/402" / manifest).read_text())
        assert "learned.safetensors" in content["outputs"]
    features = np.load(project_dir / "output/402/train_features.npy")
    assert features.shape == (24, 48)
    assert (features >= 0).all() and features.max() > 0.05
    learned = (project_dir / LEARNED).stat().st_mtime_ns
    assert "3 of 3 steps done" in cli(project_dir, "status", *RUN[2:]).stdout
    # Another head is fitted on the same features.
    cli(project_dir, *RUN, "402:head={type: RidgeHead, alphas: [1000.0]}")
    assert (project_dir / LEARNED).stat().st_mtime_ns == learned


def test_it_learns_from_a_limited_number_of_images(project_dir):
    project = ProjectFolder.open(project_dir)
    experiment = Experiment.load(project, project.path("exp_config/402.yml"))
    assert images_to_learn_from(experiment, 100_000) == 2000
    few = experiment.with_values({"dataset/learn/most": 5})
    store = open_store(project, few.globals, FileHashes(project.hash_store))
    dataset = few.build(types_of(project), Context(images=store))["dataset/learn"]
    # 24 labelled images and 8 others, evenly spaced. Only they are read.
    assert dataset.rows.tolist() == [0, 6, 12, 19, 25] and len(dataset.images) == 5
    assert images_to_learn_from(few, 32) == 5 and images_to_learn_from(few, 3) == 3

    def learned(values):
        fit_experiment(experiment.with_values(values), "force")
        return (project_dir / LEARNED).read_bytes()

    whole = (project_dir / LEARNED).read_bytes()
    assert learned({"dataset/learn/most": 32}) == whole
    some = learned({"dataset/learn/most": 5})
    # Whatever the number of loader workers is.
    assert learned({"dataset/learn/most": 5, "loader/learn/num_workers": 2}) == some != whole


def test_new_images_are_predicted_by_it_and_by_an_export(project_dir, tmp_path, cli):
    wanted, images = submitted(project_dir), test_images(project_dir)
    # Neither the images that it has learned from nor their table is needed.
    (project_dir / "input/train.csv").unlink()
    cli(project_dir, "predict", "--run", "output/901", *images, "-o", str(tmp_path / "run.csv"))
    np.testing.assert_allclose(pd.read_csv(tmp_path / "run.csv")["prediction"], wanted, atol=1e-4)
    cli(project_dir, "export", "--run", "output/901", str(tmp_path / "export"))
    exported = ("predict", "--run", str(tmp_path / "export"))
    cli(tmp_path, *exported, *images, "-o", str(tmp_path / "export.csv"))
    found = pd.read_csv(tmp_path / "export.csv")["prediction"]
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_the_service_predicts_by_it(finished):
    predictor = package.load(finished / "output/901")
    client = TestClient(create_app(predictor, "901", Limits(megabytes=1, megapixels=1)))
    images = [Path(name) for name in test_images(finished)]
    files = [("file", (path.name, path.read_bytes())) for path in images]
    answer = client.post("/predict", files=files).json()["predictions"]
    found = [entry["prediction"] for entry in answer]
    np.testing.assert_allclose(found, submitted(finished), atol=1e-4)


def test_an_onnx_export_contains_what_was_learned(project_dir, tmp_path, cli):
    wanted, images = submitted(project_dir), test_images(project_dir)
    cli(project_dir, "export", "--run", "output/901", str(tmp_path / "export"), "--onnx")
    # The network alone: neither the project nor the learned file beside it.
    assert [path.name for path in tmp_path.rglob("*.onnx")] == ["backbone.onnx"]
    assert not list((tmp_path / "export").rglob("learned.safetensors"))
    exported = ("predict", "--run", str(tmp_path / "export"))
    cli(tmp_path, *exported, *images, "-o", str(tmp_path / "onnx.csv"))
    found = pd.read_csv(tmp_path / "onnx.csv")["prediction"]
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_the_report_shows_it_as_a_member(project_dir, cli):
    cli(project_dir, "report", "-cfg", "exp_config/901.yml")
    page = (project_dir / "reports/901.html").read_text(encoding="utf-8")
    assert "402" in page and "no epoch is chosen" in page
    results = package.Project.open(project_dir).results("exp_config/402.yml")
    assert len(results.oof) == 24 and results.oof["prediction"].nunique() > 4
    # No training, no curves.
    assert results.log.empty


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        ("402/learned.safetensors", "before"),
        ("402/features.json", "before"),
        ("402/head_fold1.safetensors", "torn"),
    ],
)
def test_killed_features_are_learned_again_and_are_the_same(
    finished, project_dir, cli, name, moment
):
    shutil.rmtree(project_dir / "output")
    killed = Command(project_dir, *RUN, before=(die_at_write, name, moment)).finish()
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    cli(project_dir, *RUN)
    assert compare(finished / "output", project_dir / "output") == []


def test_a_dictionary_that_is_newer_than_its_heads_predicts_nothing(project_dir, cli):
    """A kill between the two leaves them so."""
    write_experiment(project_dir, "402", PATCHES | {"globals/seed": 5})
    before = (die_at_write, "402/learned.safetensors", "after")
    killed = Command(project_dir, *RUN, before=before).finish()
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    images = test_images(project_dir)
    said = cli(project_dir, "predict", "--run", "output/901", images[0], code=2).stderr
    assert "learned.safetensors: differs from the file that predicted" in said
    cli(project_dir, *RUN)
    cli(project_dir, "predict", "--run", "output/901", *images, "-o", "new.csv")
    found = pd.read_csv(project_dir / "new.csv")["prediction"]
    np.testing.assert_allclose(found, submitted(project_dir), atol=1e-4)


def test_a_file_that_is_gone_or_damaged_is_named_and_made_again(project_dir, cli):
    whole = (project_dir / LEARNED).read_bytes()
    image = test_images(project_dir)[0]
    for act, message in (
        (lambda path: path.unlink(), "no such file; put it back, or run 'foldsmith train"),
        (lambda path: path.write_bytes(whole[:-1] + b"x"), "differs from the file that predicted"),
    ):
        act(project_dir / LEARNED)
        said = cli(project_dir, "predict", "--run", "output/901", image, code=2).stderr
        assert "learned.safetensors" in said and message in said
        cli(project_dir, "train", "-cfg", "exp_config/402.yml", "--resume")
        # The same images and seed, the same dictionary.
        assert (project_dir / LEARNED).read_bytes() == whole


def test_an_image_without_a_label_is_learned_from_too(project_dir, cli):
    before = (project_dir / LEARNED).read_bytes()
    image = test_images(project_dir)[0]
    cv2.imwrite(image, np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8))
    cli(project_dir, "preprocess")
    assert "stale" in cli(project_dir, "status", *RUN[2:]).stdout
    cli(project_dir, *RUN)
    assert (project_dir / LEARNED).read_bytes() != before


def test_another_model_leaves_no_dictionary_behind(project_dir, cli):
    shapes = PATCHES | {"import": "foldsmith:shape_descriptors.yml"}
    del shapes["model/n_centres"]
    write_experiment(project_dir, "402", shapes)
    cli(project_dir, *RUN)
    assert not (project_dir / LEARNED).exists()


def test_an_experiment_without_images_to_learn_from_is_refused(project_dir, cli):
    descriptors = {
        "import": "foldsmith:image_descriptors.yml",
        "globals/output_root": "output/500",
        "model": {"type": "PatchDictionary", "n_centres": 12},
        "dataset/img_size": 24,
    }
    write_experiment(project_dir, "500", descriptors)
    for command in (["train", "-cfg", "exp_config/500.yml"], ["doctor"]):
        said = cli(project_dir, *command, code=2).stderr
        assert "loader/learn is missing: PatchDictionary learns from images" in said
