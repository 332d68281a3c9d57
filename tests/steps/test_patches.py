"""A dictionary of patches as a member: learned once, kept, and used for new images."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from small_project import make_project, write_experiment

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
def finished(tmp_path_factory, small_photos):
    from warm import foldsmith

    folder = make_project(tmp_path_factory.mktemp("patches") / "project", small_photos)
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
        "import": "foldsmith:photo_descriptors.yml",
        "globals/output_root": "output/500",
        "model": {"type": "PatchDictionary", "n_centres": 12},
        "dataset/img_size": 24,
    }
    write_experiment(project_dir, "500", descriptors)
    for command in (["train", "-cfg", "exp_config/500.yml"], ["doctor"]):
        said = cli(project_dir, *command, code=2).stderr
        assert "loader/learn is missing: PatchDictionary learns from images" in said
