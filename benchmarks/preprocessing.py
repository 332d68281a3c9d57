"""Images per second of `foldsmith preprocess`, against the way of the 2021 solution.

The latter reads every image, converts it and takes mean and standard deviation of its float64
values, in four joblib processes. foldsmith takes the same statistics and besides checks every
image, hashes the file, finds near-duplicates and fills the image store, all in one pass.
"""

import argparse
import contextlib
import io
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import joblib
import numpy as np
import report
from generated import generated_project

from foldsmith.config import Experiment
from foldsmith.data.cache.image_store import ImageStore
from foldsmith.data.near_duplicates import near_duplicates
from foldsmith.data.statistics import measured_images
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import image_paths, read_test, read_train
from foldsmith.steps.image_store import stored_heads
from foldsmith.utils.hashing import FileHashes


def statistics_of(path: str) -> list[float]:
    """Return height, width, channel means and standard deviations of one image."""
    image = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB).astype(np.float64)
    return [*image.shape[:2], *image.mean(axis=(0, 1)), *image.std(axis=(0, 1))]


def plain(project: ProjectFolder) -> float:
    """Return images/s of the plain way."""
    tables = (read_train(project), read_test(project))
    paths = [str(path) for table in tables for path in image_paths(project, table)]
    started = time.perf_counter()
    rows = joblib.Parallel(n_jobs=4)(joblib.delayed(statistics_of)(path) for path in paths)
    assert np.isfinite(np.array(rows)).all()
    return len(paths) / (time.perf_counter() - started)


def ours(project: ProjectFolder) -> float:
    """Return images/s of the one pass over the images."""
    shutil.rmtree(project.folder / ".foldsmith", ignore_errors=True)
    heads = stored_heads(
        Experiment.load(project, f"exp_config/{name}.yml") for name in ("000", "100")
    )
    paths = [p for read in (read_train, read_test) for p in image_paths(project, read(project))]
    hashes = FileHashes(project.hash_store)
    store = ImageStore(project.image_store, hashes)
    started = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()), store.filling(heads) as filling:
        facts = measured_images(paths, hashes, filling)
        near_duplicates(facts.hashes, facts.thumbnails)
    return len(paths) / (time.perf_counter() - started)


def main() -> None:
    """Measure in turn, print the table, write JSON and a plot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = generated_project(Path(folder), arguments.images, grain=6)
        plain(project), ours(project)  # starts joblib's processes, warms the file cache
        rounds = [(plain(project), ours(project)) for _ in range(arguments.rounds)]
    speeds = {
        "plain": statistics.median(a for a, _ in rounds),
        "foldsmith": statistics.median(b for _, b in rounds),
    }
    ratio = statistics.median(b / a for a, b in rounds)
    print(f"{'preprocessing':<14} {'images/s':>9}")
    for name, value in speeds.items():
        print(f"{name:<14} {value:>9.0f}")
    print(f"foldsmith: {ratio:.2f} times as fast")
    report.write("preprocessing", [{"images_per_s": speeds, "ratio": ratio, "rounds": rounds}])
    report.bars("preprocessing", "Preprocessing", {"images of 224 px": speeds}, "images/s")


if __name__ == "__main__":
    main()
