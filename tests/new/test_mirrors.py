"""Mirror images are left out of a plan where they have other targets."""

import cv2
import numpy as np
import pandas as pd
import pytest

from foldsmith.config import Experiment
from foldsmith.config.check import check_experiment
from foldsmith.new.new import new_project_of
from foldsmith.new.new_rows import Data
from foldsmith.new.timing import planned
from foldsmith.new.timing.mirrors import compare, mirror_test, without_mirrors
from foldsmith.project import ProjectFolder
from foldsmith.steps.registry import types_of
from foldsmith.targets.metrics import ACCURACY, RMSE

N = 48


def make(folder, stroke_of, targets):
    """Images of a bright stroke on noise, and their table."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    for k in range(N):
        image = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
        (x0, y0), (x1, y1) = stroke_of(k)
        moved = rng.integers(-3, 4, 2)
        ends = [(int(x + moved[0]), int(y + moved[1])) for x, y in ((x0, y0), (x1, y1))]
        cv2.line(image, *ends, (230, 230, 230), 3)
        cv2.imwrite(str(folder / f"images/{k:02}.png"), image)
    pd.DataFrame({"id": [f"{k:02}" for k in range(N)], "kind": targets}).to_csv(
        folder / "train.csv", index=False
    )
    return Data(folder / "images", folder / "train.csv", time="10m")


def slanted(k):
    """Return a stroke like / for even numbers, like its mirror image for odd ones."""
    return ((6, 25), (25, 6)) if k % 2 == 0 else ((6, 6), (25, 25))


def upright(k):
    """Return a standing stroke for even numbers, a lying one for odd ones."""
    return ((16, 5), (16, 26)) if k % 2 == 0 else ((5, 16), (26, 16))


def project(folder, stroke_of, targets):
    new_project_of(folder / "mine", make(folder, stroke_of, targets))
    return ProjectFolder.open(folder / "mine")


NAMES = ["even" if k % 2 == 0 else "odd" for k in range(N)]
NUMBERS = [k % 2 + k % 4 / 10 for k in range(N)]


def experiment(opened, name):
    loaded = Experiment.load(opened, opened.path(f"exp_config/{name}.yml"))
    check_experiment(loaded, types_of(opened))
    return loaded


@pytest.mark.parametrize("targets", [NAMES, NUMBERS], ids=["classes", "numbers"])
def test_mirror_images_of_letters_are_left_out(tmp_path, caplog, targets):
    with caplog.at_level("INFO"):
        opened = project(tmp_path, slanted, targets)
    assert "mirrors  none: mirror images have other targets" in caplog.text
    assert "to use them, set mirror_images: true in project.yml" in caplog.text
    for name in ("402", "404", "410", *(["420"] if targets is NUMBERS else [])):
        found = experiment(opened, name)
        assert found.globals.tta == "none"
        transforms = found.tree["dataset"].get("train", {}).get("transforms", {})
        assert all(transforms.get(flip) is None for flip in ("flip", "flip_vertical"))
        assert not without_mirrors(found)
        text = opened.path(f"exp_config/{name}.yml").read_text()
        assert "# No mirror images: they have other targets.\nglobals/tta: none\n" in text


@pytest.mark.parametrize("targets", [NAMES, NUMBERS], ids=["classes", "numbers"])
def test_other_images_are_mirrored(tmp_path, caplog, targets):
    with caplog.at_level("INFO"):
        opened = project(tmp_path, upright, targets)
    assert "mirrors  used: nothing shows that they have other targets" in caplog.text
    assert experiment(opened, "410").globals.tta != "none"
    assert experiment(opened, "410").tree["dataset"]["train"]["transforms"]["flip"]
    assert "No mirror images" not in opened.path("exp_config/402.yml").read_text()


def test_the_project_may_say_otherwise(tmp_path, monkeypatch):
    """A changed setting is planned anew, for the same time; it is not tested then."""
    opened = project(tmp_path, slanted, NAMES)
    file = opened.folder / "project.yml"
    file.write_text(file.read_text() + "\nmirror_images: true\n")
    monkeypatch.setattr(planned, "mirror_test", None)
    opened = planned.plan_for(ProjectFolder.open(opened.folder), "exp_config/901.yml", "10m")
    assert experiment(opened, "410").globals.tta == "hflip"
    file.write_text(file.read_text().replace("mirror_images: true", "mirror_images: false"))
    opened = planned.plan_for(ProjectFolder.open(opened.folder), "exp_config/901.yml", "10m")
    assert experiment(opened, "410").globals.tta == "none"


def test_nothing_is_concluded_from_what_was_not_learned():
    """Noise has no targets that a mirror image could lose."""
    rng = np.random.default_rng(0)
    groups = np.arange(60)
    features, mirrored = rng.normal(size=(2, 60, 20)).astype(np.float32)
    targets = rng.integers(0, 2, 60).astype(float)
    accuracy = ACCURACY.for_classes((0.0, 1.0), unordered=True)
    assert compare(accuracy, features, mirrored, targets, groups).same
    assert compare(RMSE, features, mirrored, targets, groups).same
    # The same once more, learned: of the mirror images nothing holds.
    features[:, :10] += 3 * targets[:, None]
    found = compare(accuracy, features, mirrored, targets, groups)
    assert not found.same and found.images > 0.9 > 0.7 > found.mirrored
    assert compare(accuracy, features, features, targets, groups).same


def test_too_few_groups_are_not_tested(tmp_path):
    opened = project(tmp_path, slanted, NAMES)
    table = pd.read_csv(opened.data_dir / "train.csv").assign(of=lambda t: t.index % 2)
    table.to_csv(opened.data_dir / "train.csv", index=False)
    settings = opened.settings.model_copy(update={"group_column": "of"})
    assert mirror_test(ProjectFolder(opened.folder, settings)) is None


def test_several_labels_are_not_tested(tmp_path):
    opened = project(tmp_path, slanted, NAMES)
    table = pd.read_csv(opened.data_dir / "train.csv").assign(left=1, right=0)
    table.to_csv(opened.data_dir / "train.csv", index=False)
    labels = {"target_columns": ["left", "right"], "class_names": ()}
    settings = opened.settings.model_dump(exclude_unset=True) | labels
    del settings["target_column"], settings["metric"], settings["class_names"]
    assert mirror_test(ProjectFolder(opened.folder, type(opened.settings)(**settings))) is None
