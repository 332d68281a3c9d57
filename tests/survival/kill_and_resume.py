"""Kill a run at random moments, go on, and compare everything with an uninterrupted run.

python tests/survival/kill_and_resume.py --kills 20 --seed 0
"""

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from die_at_write import die_at_write  # noqa: E402
from small_project import fresh, make_project  # noqa: E402
from warm import Command, foldsmith  # noqa: E402

RUN = ["run", "--no-report", "-cfg", "exp_config/900.yml"]
MOMENTS = ("before", "after", "torn")

# What measures time and memory, and so differs from run to run.
TIMES = {
    *("images_per_s", "data_wait", "elapsed_time", "finished", "wall_s", "epoch_s"),
    *("host_mib", "cuda_mib"),
}


# The first words above the values that `new` has planned by measured speeds.
_PLANNED = b"# Planned for "


def compare(clean: Path, other: Path) -> list[str]:
    """Return how the files of two projects differ; all must be equal byte for byte.

    In JSON and in the file to resume from, values that measure time and memory are left out.
    """
    names = [files_of(folder) for folder in (clean, other)]
    problems = [f"{name}: only in one" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        if content(clean / name) != content(other / name):
            problems.append(f"{name}: differs")
    return problems


def files_of(folder: Path) -> set[str]:
    """Return a project's files, without locks, their last holders, remembered hashes and events."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file()
        and not path.name.endswith((".lock", ".owner.json"))
        and not {".foldsmith", "tensorboard"} & set(path.parts)
    }


def content(path: Path) -> Any:
    """Return what is compared of a file."""
    if path.name == "time_plan.json":
        return sorted(json.loads(path.read_text()))
    if _PLANNED in (text := path.read_bytes()):
        # Numbers of epochs follow from the speed of the machine at that moment.
        return text.partition(_PLANNED)[0]
    if path.suffix == ".json":
        value = json.loads(path.read_text())
        if path.name.startswith(("manifest", "preprocess_manifest", "features")):
            # The log's own hash covers its times, and so does the manifest's.
            value["outputs"].pop("log.json", None)
            value.pop("sha256", None)
            value["facts"]["files"] = without_events(value["facts"]["files"])
        if path.name in ("foldsmith.json", "preprocess_files.json"):
            value = {"files": {k: value["files"][k] for k in without_events(value["files"])}}
        return timeless(value)
    if path.suffix == ".html":
        return re.sub(r"written \d{4}-\d\d-\d\d \d\d:\d\d", "", path.read_text())
    if path.name == "resume.pth":
        return str(timeless(torch.load(path, weights_only=True)))
    return path.read_bytes()


def without_events(names: Iterable[str]) -> list[str]:
    """Return names of files but TensorBoard's, which contain the time and the process."""
    return [name for name in names if not name.startswith("tensorboard/")]


def timeless(value: Any) -> Any:
    """Return a value without what measures time; tensors become their bytes."""
    if isinstance(value, dict):
        kept = {k: timeless(v) for k, v in value.items() if k not in TIMES}
        return kept | ({"_log": timeless(json.loads(kept["_log"]))} if "_log" in kept else {})
    if isinstance(value, (list, tuple)):
        return [timeless(item) for item in value]
    return value.cpu().numpy().tobytes() if torch.is_tensor(value) else value


def killed_run(project: Path, rng: np.random.Generator, seconds: float, writes: int) -> str | None:
    """Run until a random moment; return where it was killed, None if it ended before."""
    if rng.random() < 0.5:
        at, moment = int(rng.integers(1, writes + 1)), str(rng.choice(MOMENTS))
        process = Command(project, *RUN, before=(die_at_write, at, moment))
        process.wait(timeout=300)
        where = f"{moment} file {at}"
    else:
        wait = float(rng.uniform(0, seconds))
        process = Command(project, *RUN)
        try:
            process.wait(timeout=wait)
        except subprocess.TimeoutExpired:
            process.kill()
        where = f"after {wait:.1f} s"
    if process.returncode == -signal.SIGKILL:
        return where
    assert process.returncode == 0, process.read()
    return None


def survive(folder: Path, images: Path, kills: int, seed: int) -> Counter:
    """Kill and resume; raise AssertionError at the first difference.

    Args:
        folder: Where to work.
        images: Generated tables and images.
        kills: Number of kills.
        seed: Seed of the moments.

    Returns:
        Number of kills by kind, of finished runs, of compared files.
    """
    clean = make_project(folder / "clean", images)
    started = time.perf_counter()
    result = foldsmith(clean, *RUN)
    seconds = time.perf_counter() - started
    assert result.returncode == 0, result.stdout + result.stderr
    # About as many renames as a whole run makes; one that is never reached is no kill.
    writes = len(files_of(clean)) + 20
    rng = np.random.default_rng(seed)
    counts: Counter = Counter()
    project = None
    while counts["kills"] < kills or project is not None:
        if project is None:
            project = make_project(folder / f"killed{counts['compared runs']}", images)
        where = None
        if counts["kills"] < kills:
            where = killed_run(project, rng, seconds, writes)
        else:
            # A new interpreter, with another seed of hashes than the clean run's.
            result = fresh(project, *RUN)
            assert result.returncode == 0, result.stdout + result.stderr
        if where is not None:
            counts["kills"] += 1
            counts["by " + ("the clock" if "s" in where.split()[-1] else where.split()[0])] += 1
            print(f"kill {counts['kills']}: {where}", flush=True)
            continue
        problems = compare(clean, project)
        assert not problems, problems
        counts["compared runs"] += 1
        counts["compared files"] += len(files_of(clean))
        print(f"run {counts['compared runs']}: equal to the clean one", flush=True)
        project = None
    return counts


def main() -> None:
    """Generate images, kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.path.insert(0, str(HERE.parents[1] / "competitions" / "atmacup11"))
    from make_demo_data import make_demo_data

    with tempfile.TemporaryDirectory() as name:
        images = Path(name) / "photos"
        make_demo_data(images, n_train=24, n_test=8, seed=3, long_side=48)
        counts = survive(Path(name), images, arguments.kills, arguments.seed)
    print(", ".join(f"{name} {count}" for name, count in sorted(counts.items())))


if __name__ == "__main__":
    main()
