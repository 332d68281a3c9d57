"""Images to measure on: those of the demo, in the bundled project."""

import contextlib
import importlib.util
import io
import shutil
from pathlib import Path

import cv2
import numpy as np

from foldsmith.project import ProjectFolder

REPOSITORY = Path(__file__).resolve().parents[1]
ATMACUP = REPOSITORY / "competitions" / "atmacup11"


def generate_images(folder: Path, n_train: int, n_test: int, long_side: int = 224) -> None:
    """Write the demo's tables and images, of another number and size."""
    spec = importlib.util.spec_from_file_location("demo_data", ATMACUP / "make_demo_data.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with contextlib.redirect_stdout(io.StringIO()):
        module.make_demo_data(folder, n_train, n_test, seed=1, long_side=long_side)


def generated_project(
    folder: Path, n_train: int, n_test: int = 20, grain: float = 0
) -> ProjectFolder:
    """Return the bundled project with generated images in it, not yet preprocessed.

    Args:
        folder: Where to put it.
        n_train: Labelled images.
        n_test: Images to predict.
        grain: Standard deviation of noise added to each image. Generated images are smooth;
            with 6 their files are as large as those of real ones, and take as long to decode.
    """
    project = folder / "project"
    shutil.copytree(ATMACUP, project, ignore=shutil.ignore_patterns("input", "output", ".fold*"))
    generate_images(project / "input" / "atmaCup-11", n_train, n_test)
    if grain:
        for path in (project / "input").rglob("*.jpg"):
            image = cv2.imread(str(path)).astype(np.float32)
            image += np.random.default_rng(len(path.stem)).normal(0, grain, image.shape)
            cv2.imwrite(str(path), image.clip(0, 255), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return ProjectFolder.open(project)
