"""Images per second of a training: the model alone, foldsmith, and what else one would use.

For SimSiam and fine-tuning, each at some sizes, measures one epoch of every contender in turn,
for some rounds; the ratios are taken round by round, so that a machine whose speed drifts does
not blur them. The median counts.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import report
from contender_process import Case, Process
from contenders import CONFIGS, CUDA
from generated import generated_project

from foldsmith.config import Experiment
from foldsmith.steps.preprocess import preprocess
from foldsmith.utils.machine import cores_here


def main() -> None:
    """Measure, print the table, write JSON and a plot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=4096 if CUDA else 192)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=256 if CUDA else 64)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224] if CUDA else [64, 128])
    parser.add_argument("--kinds", nargs="+", default=list(CONFIGS), choices=list(CONFIGS))
    arguments = parser.parse_args()

    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        project = generated_project(Path(folder), arguments.images)
        with contextlib.redirect_stdout(io.StringIO()):
            preprocess(project, False, [Experiment.load(project, CONFIGS[k]) for k in CONFIGS])
        print(
            f"{'training':<12} {'px':>4}  {'contender':<22} {'workers':>7} {'images/s':>9}  ratio"
        )
        for kind in arguments.kinds:
            names = ("foldsmith", *contenders_of(kind))
            running = {name: Process(name, project.folder) for name in names}
            for size in arguments.sizes:
                results += compare(running, (kind, size, arguments.batch), arguments.rounds)
            for process in running.values():
                process.end()
    groups: dict[str, dict[str, float]] = {}
    for row in results:
        case = f"{row['training']}, {row['img_size']} px"
        groups.setdefault(case, {})[row["contender"]] = row["images_per_s"]
    report.write("training", results)
    report.bars("training", "Images per second", groups, "images/s")


def compare(running: dict[str, Process], case: Case, rounds: int) -> list[dict[str, Any]]:
    """Measure all contenders of one case; return a row for each.

    Args:
        running: Name -> process of each contender.
        case: Kind of training, side of the images in px, batch size.
        rounds: How often each is measured.
    """
    kind, size, batch = case[:3]
    for process in running.values():
        if process.workers is None:
            choose_workers(process, case)
        else:
            # What is fastest at the first size is taken at the others too.
            process.begin(case, process.workers)
    measures: dict[str, Callable[[], float]] = {
        "model only": lambda: running["foldsmith"].measure("floor"),
        **{name: process.measure for name, process in running.items()},
    }
    measures["model only"]()  # warm up
    speeds: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            speeds[name].append(measure())
    rows = []
    for name in measures:
        pairs = zip(speeds["foldsmith"], speeds[name], strict=True)
        row = {
            "training": kind,
            "img_size": size,
            "batch_size": batch,
            "contender": name,
            "workers": running.get(name, running["foldsmith"]).workers,
            "images_per_s": statistics.median(speeds[name]),
            "rounds": speeds[name],
            "foldsmith_ratio": statistics.median(ours / other for ours, other in pairs),
        }
        rows.append(row)
        print(
            f"{kind:<12} {size:>4}  {name:<22} {row['workers']:>7} {row['images_per_s']:>9.1f}  "
            f"foldsmith: {row['foldsmith_ratio']:.3f} times as fast",
            flush=True,
        )
    return rows


def contenders_of(kind: str) -> tuple[str, ...]:
    """Return what else one would train with, and where there is a choice both ways to augment."""
    ways = ("augmenting on the CPU", "augmenting on the GPU") if CUDA else ()
    return (*ways, "plain", "lightly" if kind == "SimSiam" else "timm")


def choose_workers(process: Process, case: Case) -> None:
    """Get a contender ready with the number of loader processes that is fastest for it."""
    found = {}
    for workers in sorted({0, min(cores_here(), 8)}):
        process.begin(case, workers)
        found[workers] = process.measure()
    best = max(found, key=lambda workers: found[workers])
    if best != process.workers:
        process.begin(case, best)


if __name__ == "__main__":
    main()
