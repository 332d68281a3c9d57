"""What changes with the number of images: images per second and memory at each.

For each number a process of its own preprocesses so many generated images of 48 px, then takes
batches for SimSiam at 32 px from them in a new order, and trains on some of them. Memory is
what the process itself holds; the image store is mapped, and its pages belong to the system.
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import report

PROJECT = """
name: scaling
data_dir: input
image_path: "photos/{id}.jpg"
id_column: id
target_column: target
target_range: [0, 3]
n_classes: 4
folds: {method: StratifiedKFold, n_splits: 5}
"""
CONFIG = """
import: foldsmith:self_supervised.yml
globals/output_path: output/000
model/backbone/model_name: resnet10t
dataset/img_size: 32
dataset/max_side: 48
loader/train/batch_size: 64
"""


def make(folder: Path, n: int) -> None:
    """Write a project with n images; most of them are to be predicted."""
    images = folder / "input" / "photos"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(n):
        small = rng.integers(0, 256, (6, 6, 3), np.uint8)
        cv2.imwrite(str(images / f"{k}.jpg"), cv2.resize(small, (40, 48), interpolation=2))
    ids = [str(k) for k in range(n)]
    train = n // 5
    targets = rng.integers(0, 4, train)
    pd.DataFrame({"id": ids[:train], "target": targets}).to_csv(folder / "input/train.csv")
    pd.DataFrame({"id": ids[train:]}).to_csv(folder / "input/test.csv")
    (folder / "project.yml").write_text(PROJECT)
    (folder / "000.yml").write_text(CONFIG)


def memory_mib() -> float:
    """Return the memory of this process that no file backs, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def measure(folder: Path, n: int) -> dict[str, float]:
    """Preprocess, load and train; return images/s and memory."""
    import torch

    from foldsmith.config import Context, Experiment
    from foldsmith.models.runtime import create_runtime, seed_everything
    from foldsmith.project import ProjectFolder
    from foldsmith.steps.image_store import open_store
    from foldsmith.steps.preprocess import preprocess
    from foldsmith.steps.registry import types_of
    from foldsmith.training.pretrain_step import PretrainStep
    from foldsmith.utils.hashing import FileHashes

    make(folder, n)
    project = ProjectFolder.open(folder)
    experiment = Experiment.load(project, "000.yml")
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        preprocess(project, False, [experiment])
    preprocessed = n / (time.perf_counter() - started)
    after_preprocess = memory_mib()

    seed_everything(0)
    runtime = create_runtime(experiment.globals)
    started = time.perf_counter()
    store = open_store(project, experiment.globals, FileHashes(project.hash_store))
    context = Context(images=store, runtime=runtime)
    parts = experiment.build(types_of(project), context)
    loader, model = parts["loader/train"], runtime.place(parts["model"])
    step, optimizer = PretrainStep(model), parts["optimizer"]
    opened = time.perf_counter() - started

    def batches(count: int, train: bool) -> float:
        started = time.perf_counter()
        for index, batch in enumerate(islice(loader, count)):
            moved = runtime.transfer(batch, loader.on_device)
            if train:
                with runtime.autocast():
                    loss = step(moved, 0, index)["loss"]
                loss.backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        return count * 64 / (time.perf_counter() - started)

    count = min(len(loader), 120)
    batches(3, True)
    with torch.no_grad():
        loaded = batches(count, False)
    trained = batches(min(len(loader), 30), True)
    return {
        "images": n,
        "preprocess_images_per_s": preprocessed,
        "open_s": opened,
        "loader_images_per_s": loaded,
        "training_images_per_s": trained,
        "memory_after_preprocess_mib": after_preprocess,
        "memory_mib": memory_mib(),
    }


def main() -> None:
    """Measure each number of images, print the table, write JSON and a plot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(Path(folder), arguments.one)))
        return
    results = []
    for n in arguments.images:
        command = [sys.executable, __file__, "--one", str(n)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        results.append(json.loads(done.stdout.splitlines()[-1]))
        row = ", ".join(f"{key} {value:.6g}" for key, value in results[-1].items())
        print(row, flush=True)
    report.write("scaling", results)
    groups = {
        what: {f"{row['images']:,} images": row[key] for row in results}
        for what, key in (
            ("preprocess, images/s", "preprocess_images_per_s"),
            ("loader, images/s", "loader_images_per_s"),
            ("training, images/s", "training_images_per_s"),
            ("memory, MiB", "memory_mib"),
        )
    }
    report.bars("scaling", "From 1,000 to 100,000 images", groups, "")


if __name__ == "__main__":
    main()
