"""Simple baselines beside the constant: honest, kept by content, and in what an ensemble prints."""

import html
import os

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml

from foldsmith.blending.base import Goal
from foldsmith.models.simple_features import SIDE, SIMPLE_FEATURES
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import read_folds, targets_of
from foldsmith.steps import baselines
from foldsmith.steps.baselines import scores_of, scores_to_beat, simple_baselines
from foldsmith.steps.manifest import read_manifest
from foldsmith.steps.preprocess import preprocess
from foldsmith.utils.hashing import FileHashes

N = 48
PROJECT = {
    "name": "bright",
    "data_dir": ".",
    "image_path": "photos/{id}.png",
    "id_column": "id",
    "target_column": "target",
    "target_range": [0, 255],
    "n_classes": 4,
    "folds": {"method": "KFold", "n_splits": 4, "seed": 0},
}
MEMBER = {
    "import": "foldsmith:image_descriptors.yml",
    "globals/output_root": "output/100",
    "dataset/img_size": 24,
    "head": {"type": "RidgeHead"},
}
BLEND = {
    "import": "foldsmith:ensemble.yml",
    "globals/output_path": "output/900",
    "ensemble/experiments": ["output/100"],
    "ensemble/methods": ["mean", "best"],
    "ensemble/method": "simplex",
}
# Ridge regression so strong that it is a constant.
STIFF = "100:head/alphas=[1.0e12]"


def write_project(folder, **settings):
    """Write a project whose target is the brightness of noise; return its folder."""
    rng = np.random.default_rng(0)
    levels = rng.integers(40, 200, N + 4)
    (folder / "photos").mkdir(parents=True)
    (folder / "exp_config").mkdir()
    for k, level in enumerate(levels):
        pixels = rng.integers(-40, 40, (20, 28, 3)) + level
        cv2.imwrite(str(folder / f"photos/p{k}.png"), pixels.clip(0, 255).astype(np.uint8))
    targets = settings.pop("targets", levels[:N])
    names = [f"p{k}" for k in range(N + 4)]
    pd.DataFrame({"id": names[:N], "target": targets}).to_csv(folder / "train.csv", index=False)
    pd.DataFrame({"id": names[N:]}).to_csv(folder / "test.csv", index=False)
    kept = {name: value for name, value in (PROJECT | settings).items() if value is not None}
    (folder / "project.yml").write_text(yaml.safe_dump(kept))
    for name, content in (("100", MEMBER), ("900", BLEND)):
        (folder / f"exp_config/{name}.yml").write_text(yaml.safe_dump(content))
    return folder


def opened(folder):
    project = ProjectFolder.open(folder)
    preprocess(project)
    return project, read_folds(project, None)


def computed(project, table):
    return simple_baselines(project, table, FileHashes(project.hash_store))


@pytest.fixture(scope="module")
def bright(tmp_path_factory):
    return opened(write_project(tmp_path_factory.mktemp("bright") / "project"))


def test_they_find_what_is_plain_to_see(bright):
    project, table = bright
    found = computed(project, table)
    assert len(found.scores) == 3 * len(SIMPLE_FEATURES) == 12
    assert found.rows.tolist() == list(range(N))
    constant = Goal.of_project(project).constant_score(targets_of(project, table))
    assert found.scores["colour layout, ridge"] < constant / 5
    assert found.scores[found.best] == min(found.scores.values())


def test_targets_of_chance_cannot_be_predicted(tmp_path):
    """Each fold is predicted by models of the other folds: in sample, trees would know them all."""
    targets = np.random.default_rng(1).integers(0, 255, N)
    project, table = opened(write_project(tmp_path / "project", targets=targets))
    found = computed(project, table)
    constant = Goal.of_project(project).constant_score(targets_of(project, table))
    assert min(found.scores.values()) > 0.9 * constant


@pytest.mark.parametrize("metric", ["Accuracy", "LogLoss"])
def test_classes_are_predicted_by_classifiers(tmp_path, metric):
    targets = np.random.default_rng(0).integers(40, 200, N + 4)[:N] // 54
    settings = {"class_names": ["dark", "grey", "bright", "white"], "metric": metric}
    settings |= {"target_range": None, "targets": np.array(settings["class_names"])[targets]}
    project, table = opened(write_project(tmp_path / "project", **settings))
    found = computed(project, table)
    assert {name.split(", ")[1] for name in found.scores} == {"logistic", "SVM", "trees"}
    constant = Goal.of_project(project).constant_score(targets_of(project, table))
    assert project.metric.gain(found.scores[found.best], constant) > 0.2


def test_they_are_kept_by_content(bright, tmp_path, monkeypatch, settled):
    folder = write_project(tmp_path / "project")
    project, table = opened(folder)
    first = computed(project, table)

    def fail(*_):
        raise AssertionError("computed again")

    with monkeypatch.context() as patch:
        patch.setattr(baselines, "_compute", fail)
        assert computed(project, table).scores == first.scores
        # The time of a file is not its content.
        os.utime(folder / "photos/p0.png", (0, 0))
        assert computed(project, table).scores == first.scores
        with pytest.raises(AssertionError):
            computed(project, table.assign(fold=table["fold"].to_numpy()[::-1]))
        image = cv2.imread(str(folder / "photos/p0.png"))
        cv2.imwrite(str(folder / "photos/p0.png"), 255 - image)
        with pytest.raises(AssertionError):
            computed(project, table)
    assert computed(project, table).scores != first.scores
    # A damaged file is computed again.
    project.baselines.write_text("{")
    assert computed(bright[0], bright[1]).scores == first.scores


def test_a_run_is_judged_on_the_rows_of_the_baselines(bright, monkeypatch):
    project, table = bright
    monkeypatch.setattr(baselines, "MOST_ROWS", 20)
    found, goal, targets = computed(project, table), Goal.of_project(project), targets_of(*bright)
    assert len(set(found.rows)) == 20
    # Right on these rows alone.
    predictions = np.full(N, 255.0)
    predictions[found.rows] = targets[found.rows]
    judged = scores_to_beat(goal, found, predictions, targets)
    assert judged.run_score == 0 and judged.beaten and not judged.warning
    assert judged.constant == goal.constant_score(targets[found.rows])
    assert "20 of 48 images" in judged.sentence
    mean = targets.mean()
    lost = scores_to_beat(goal, found, mean + 0.05 * (targets - mean), targets)
    assert not lost.beaten and f"{found.scores[found.best]:.4f}" in lost.warning
    # Then it loses to the constant, which is what counts.
    useless = scores_to_beat(goal, found, np.full(N, 255.0), targets)
    assert f"is not better than the constant ({useless.constant:.4f})" in useless.warning


def test_an_ensemble_shows_them_and_warns_if_it_loses(tmp_path, cli):
    folder = write_project(tmp_path / "project")
    shown = cli(folder, "run", "-cfg", "exp_config/900.yml", STIFF)
    judged = scores_of(read_manifest(folder / "output/900/manifest.json"))
    assert judged.n_baselines == 12 and not judged.beaten
    assert f"best of 12 simple baselines ({judged.baseline})" in judged.sentence
    for line in (judged.sentence, judged.warning):
        assert line and line in shown.stdout + shown.stderr
    (page,) = folder.glob("reports/*.html")
    text = html.unescape(page.read_text())
    for line in (judged.sentence, judged.title, judged.warning):
        assert line in text


def test_features_have_their_shapes():
    images = np.random.default_rng(0).integers(0, 255, (5, SIDE, SIDE, 3)).astype(np.uint8)
    shapes = {name: compute(images).shape for name, compute in SIMPLE_FEATURES.items()}
    assert shapes == {
        "pixels": (5, 768),
        "colour histogram": (5, 128),
        "colour layout": (5, 96),
        "HOG": (5, 900),
    }
    for compute in SIMPLE_FEATURES.values():
        assert compute(images).dtype == np.float32
    np.testing.assert_allclose(
        (SIMPLE_FEATURES["colour histogram"](images) ** 2).sum(1), 1, rtol=1e-5
    )
