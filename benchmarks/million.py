"""A million thumbnails against ten thousand: what grows with their number, and what does not.

Generates images of 32 px in folders of 10,000, makes a project of them and times each step in a
process of its own: building the image store (killed on the way once, and begun again), taking
batches with loader processes, in the order of null and with a window, a tiny training, status and
report. Memory is anonymous memory, which no file backs, and the resident set, at their highest.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import report

PER_FOLDER = 10_000
PROJECT = """
name: million
data_dir: input
image_path: "photos/{folder}/{id}.jpg"
id_column: id
target_column: target
target_range: [0, 3]
n_classes: 4
folds: {method: StratifiedKFold, n_splits: 5}
"""
CONFIG = """
import: foldsmith:self_supervised.yml
globals/output_path: output/000
globals/device: cpu
model/backbone/model_name: resnet10t
dataset/img_size: 32
dataset/max_side: 32
loader/train/batch_size: 64
loader/train/num_workers: 2
"""
TRANSFORMS = """
dataset/train/transforms:
  - {type: LongestMaxSize, max_size: 32}
  - {type: HorizontalFlip, p: 0.5}
  - {type: Normalize, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}
dataset/train/n_views: 1
"""


def make(folder: Path, n: int) -> None:
    """Write a project with n images, all of them labelled but a hundred."""
    folders = range(-(-n // PER_FOLDER))
    with ProcessPoolExecutor() as pool:
        list(pool.map(_make_folder, [folder] * len(folders), folders, [n] * len(folders)))
    rng = np.random.default_rng(0)
    numbers = np.arange(n)
    table = pd.DataFrame(
        {
            "id": [f"{k:07d}" for k in numbers],
            "folder": [f"f{k // PER_FOLDER:03d}" for k in numbers],
            "target": rng.integers(0, 4, n),
        }
    )
    table[:-100].to_csv(folder / "input/train.csv", index=False)
    table[-100:].drop(columns="target").to_csv(folder / "input/test.csv", index=False)
    (folder / "project.yml").write_text(PROJECT)
    (folder / "exp_config").mkdir()
    (folder / "exp_config/000.yml").write_text(CONFIG)
    # The loader's own speed: what it reads, with next to nothing done to it.
    (folder / "plain.yml").write_text(CONFIG + TRANSFORMS)


def _make_folder(project: Path, number: int, n: int) -> None:
    folder = project / f"input/photos/f{number:03d}"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(number)
    for k in range(number * PER_FOLDER, min(n, (number + 1) * PER_FOLDER)):
        small = rng.integers(0, 256, (8, 8, 3), np.uint8)
        image = cv2.resize(small, (32, 32), interpolation=cv2.INTER_LINEAR)
        cv2.imwrite(str(folder / f"{k:07d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 85])


def memory_mib(pid: int | str = "self") -> dict[str, float]:
    """Return anonymous and resident memory of a process, and what it alone has written, in MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    found = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
    return {
        "anonymous": found["Anonymous"],
        "resident": found["Rss"],
        "own": found["Private_Dirty"],
    }


@contextlib.contextmanager
def watched(process: str, facts: dict[str, float]) -> Iterator[None]:
    """Add the highest memory of this process while the block runs to facts."""
    highest: dict[str, float] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            for name, value in memory_mib().items():
                highest[name] = max(value, highest.get(name, 0))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        facts[f"{process}: anonymous memory, MiB"] = highest.get("anonymous", 0)
        facts[f"{process}: resident memory, MiB"] = highest.get("resident", 0)


def build(folder: Path) -> dict[str, float]:
    """Preprocess, which builds the image store; count the images that are decoded."""
    from foldsmith.config import Experiment
    from foldsmith.data import statistics
    from foldsmith.project import ProjectFolder
    from foldsmith.steps.preprocess import preprocess

    decoded = 0
    original = statistics.decode_bytes

    def counting(data: Any, path: Path) -> Any:
        nonlocal decoded
        decoded += 1
        return original(data, path)

    statistics.decode_bytes = counting
    project = ProjectFolder.open(folder)
    facts: dict[str, float] = {}
    started = time.perf_counter()
    with watched("preprocess", facts), contextlib.redirect_stdout(io.StringIO()):
        preprocess(project, False, [Experiment.load(project, "exp_config/000.yml")])
    return {"seconds": time.perf_counter() - started, "decoded": decoded, **facts}


def stored(folder: Path) -> int:
    """Return the number of images in shards that are whole."""
    found = 0
    for index in (folder / ".foldsmith").rglob("shard_*.npz"):
        with np.load(index) as arrays:
            found += len(arrays["keys"])
    return found


def load(folder: Path) -> dict[str, float]:
    """Open the store, take batches, train; return images/s and memory."""
    from foldsmith.config import Context, Experiment
    from foldsmith.models.runtime import create_runtime, seed_everything
    from foldsmith.project import ProjectFolder
    from foldsmith.steps.image_store import open_store
    from foldsmith.steps.registry import types_of
    from foldsmith.training.pretrain_step import PretrainStep
    from foldsmith.utils.hashing import FileHashes

    project = ProjectFolder.open(folder)
    facts: dict[str, float] = {"imports alone: anonymous memory, MiB": memory_mib()["anonymous"]}

    def parts_of(file: str, **values: Any) -> Any:
        experiment = Experiment.load(project, file).with_values(values)
        seed_everything(0)
        runtime = create_runtime(experiment.globals)
        store = open_store(project, experiment.globals, FileHashes(project.hash_store))
        context = Context(images=store, runtime=runtime)
        return experiment.build(types_of(project), context), runtime

    def workers() -> list[int]:
        tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
        return [int(pid) for task in tasks for pid in task.read_text().split()]

    def take(loader: Any, count: int) -> float:
        batches = iter(loader)
        for _ in islice(batches, 20):
            pass
        started = time.perf_counter()
        n = sum(len(batch.rows) for batch in islice(batches, count))
        return n / (time.perf_counter() - started)

    with watched("main process", facts):
        started = time.perf_counter()
        loader = parts_of("plain.yml")[0]["loader/train"]
        facts["open the images, s"] = time.perf_counter() - started
        count = min(len(loader) - 21, 2000)
        facts["loader, images/s"] = take(loader, count)
        processes = [memory_mib(pid) for pid in workers()]
        for name in ("anonymous", "resident"):
            facts[f"loader process: {name} memory, MiB"] = max(p[name] for p in processes)
        facts["loader process: memory of its own, MiB"] = max(p["own"] for p in processes)
        del loader
        with contextlib.suppress(Exception):  # code from before there were windows
            values = {"loader/train/window": 5000}
            facts["loader, window of 5,000, images/s"] = take(
                parts_of("plain.yml", **values)[0]["loader/train"], count
            )
        values = {"loader/train/batch_size": 16}
        parts, runtime = parts_of("exp_config/000.yml", **values)
        loader, model = parts["loader/train"], runtime.place(parts["model"])
        step, optimizer = PretrainStep(model), parts["optimizer"]
        started, first = time.perf_counter(), 0
        for index, batch in enumerate(islice(loader, 300)):
            loss = step(runtime.transfer(batch, loader.on_device), 0, index)["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if index == 9:
                started, first = time.perf_counter(), 10
        facts["training, images/s"] = (index + 1 - first) * 16 / (time.perf_counter() - started)
    return facts


def command(folder: Path, name: str) -> dict[str, float]:
    """Time a command of foldsmith."""
    call = [sys.executable, "-m", "foldsmith", name]
    if name == "report":
        call += ["-cfg", "exp_config/000.yml"]
    started = time.perf_counter()
    with subprocess.Popen(call, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
        assert p.stdout is not None and p.stderr is not None
        out, err = p.stdout.read(), p.stderr.read()
        _, status, usage = os.wait4(p.pid, 0)
        p.returncode = os.waitstatus_to_exitcode(status)
    if p.returncode:
        raise RuntimeError(f"{call}: {out.decode()}{err.decode()}")
    return {
        f"foldsmith {name}, s": time.perf_counter() - started,
        f"foldsmith {name}: resident memory, MiB": usage.ru_maxrss / 1024,
    }


def in_a_process(step: str, folder: Path) -> "subprocess.Popen[str]":
    """Start one step."""
    call = [sys.executable, __file__, "--step", step, "--folder", str(folder)]
    return subprocess.Popen(call, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def result_of(process: "subprocess.Popen[str]") -> dict[str, float]:
    """Return what a step has found."""
    out = process.communicate()[0]
    if process.returncode:
        raise RuntimeError(f"{process.args}: exit code {process.returncode}")
    return dict(json.loads(out.splitlines()[-1]))


def measure(folder: Path, n: int) -> dict[str, float]:
    """Run all steps on n images."""
    say(f"{n} images: generating")
    if not (folder / "project.yml").exists():
        make(folder, n)
    shutil.rmtree(folder / ".foldsmith", ignore_errors=True)
    facts: dict[str, float] = {"images": n}
    # Killed when part of the store is there.
    say("building, to be killed")
    started = time.perf_counter()
    process = in_a_process("build", folder)
    while process.poll() is None and stored(folder) < 0.4 * n:
        time.sleep(0.2)
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.wait()
    kept = stored(folder)
    facts["killed after, s"] = time.perf_counter() - started
    facts["images kept of the killed build"] = kept
    say("building, resumed")
    again = result_of(in_a_process("build", folder))
    facts["resumed build, s"] = again["seconds"]
    facts["images decoded by the resumed build"] = again["decoded"]
    facts["images in the store"] = stored(folder)
    if again["decoded"] < n / 2:
        # Next to nothing was left to do: a small store is one shard.
        say("building, whole")
        shutil.rmtree(folder / ".foldsmith")
        again = result_of(in_a_process("build", folder))
    facts["preprocess and store, images/s"] = again["decoded"] / again["seconds"]
    facts |= {name: value for name, value in again.items() if "memory" in name}
    size = sum(file.stat().st_size for file in (folder / ".foldsmith").rglob("shard_*.bin"))
    facts["store, MiB"] = size / 2**20
    say("loading")
    facts |= result_of(in_a_process("load", folder))
    for name in ("status", "report"):
        say(name)
        facts |= command(folder, name)
    return facts


def say(text: str) -> None:
    """Print a line with the time."""
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def main() -> None:
    """Measure each number of images; print a table with ratios and write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--folder", type=Path, default=Path("build/million"))
    parser.add_argument("--keep", action="store_true", help="leave the images for another run")
    parser.add_argument("--step", choices=("build", "load"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps({"build": build, "load": load}[arguments.step](arguments.folder)))
        return
    results = []
    for n in arguments.images:
        folder = arguments.folder / str(n)
        try:
            results.append(measure(folder, n))
        finally:
            if not arguments.keep:
                shutil.rmtree(folder, ignore_errors=True)
        for key, value in results[-1].items():
            say(f"  {key}: {value:.6g}")
    table = pd.DataFrame(results).set_index("images").T
    table["ratio"] = table.iloc[:, -1] / table.iloc[:, 0]
    print(table.to_string(float_format=lambda value: f"{value:,.4g}"))
    report.write("million", results)


if __name__ == "__main__":
    main()
