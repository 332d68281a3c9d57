"""What preprocess says it was made from is what it has read."""

import os
import time

import cv2
import numpy as np
import pandas as pd
import pytest

from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.run.plan import plan_of
from foldsmith.run.state import states_of
from foldsmith.steps.manifest import PREPROCESS_MANIFEST, read_manifest
from foldsmith.steps.preprocess import preprocess
from foldsmith.utils import progress_bars as bars
from foldsmith.utils.hashing import FileHashes


class Meanwhile(bars.Screen):
    """Does something when the images have been read, and nothing else is done yet."""

    def __init__(self, action):
        super().__init__()
        self.action = action

    def draw(self):
        if not self.bars and self.action:
            action, self.action = self.action, None
            action()


def run(folder, action=None):
    screen = Meanwhile(action)
    with bars.drawn_on(screen):
        preprocess(ProjectFolder.open(folder))
    assert screen.action is None


def state(folder):
    project = ProjectFolder.open(folder)
    plan = plan_of(project, "exp_config/000.yml")
    return states_of(plan, FileHashes(project.hash_store))["preprocess"].status


@pytest.mark.parametrize("name", ["train.csv", "test.csv"])
def test_a_table_that_is_changed_meanwhile(small_project, name):
    path = small_project / "input" / name
    manifest = path.parent / PREPROCESS_MANIFEST

    def change():
        pd.read_csv(path).iloc[1:].to_csv(path, index=False)

    with pytest.raises(DataError, match=f"{name}: was changed while preprocess ran; run it again"):
        run(small_project, change)
    assert not manifest.exists() and state(small_project) == "to do"
    run(small_project)
    assert state(small_project) == "done"
    # The results of before stay what they are, and are stale.
    made = manifest.read_bytes()
    with pytest.raises(DataError):
        run(small_project, change)
    assert manifest.read_bytes() == made and state(small_project) == "stale"


def test_a_image_that_is_changed_after_it_was_read(small_project):
    ids = pd.read_csv(small_project / "input/train.csv")["object_id"]
    image = small_project / f"input/photos/{ids[0]}.jpg"

    def bitmap(value):
        new = str(small_project / "new.bmp")
        cv2.imwrite(new, np.full((15, 15, 3), value, np.uint8))
        os.utime(new, ns=(0, 10**18))
        os.replace(new, image)

    def mean():
        info = pd.read_csv(small_project / "input/img_info.csv")
        return info.set_index("object_id")["r_mean"][ids[0]]

    bitmap(200)
    run(small_project, lambda: (time.sleep(0.02), bitmap(40)))
    # The measurements are of what was read, and the manifest says so.
    assert mean() == 200 and state(small_project) == "stale"
    run(small_project)
    assert mean() == 40 and state(small_project) == "done"
    project = ProjectFolder.open(small_project)
    made = read_manifest(small_project / "input" / PREPROCESS_MANIFEST)
    assert made.inputs["files"]["train.csv"] == FileHashes(project.hash_store).of(
        small_project / "input/train.csv"
    )
