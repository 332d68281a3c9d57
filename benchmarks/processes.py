"""Images per second of one training on 1, 2, ... processes, started by torchrun.

On a machine without a GPU one process has as many threads as there are cores, or one; several
have one thread each. On GPUs each process has a card. Every way is measured in turn, for some
rounds, as the whole command: the last epoch counts. The ratios are taken round by round.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import report
import torch
from generated import generated_project

from foldsmith.config import Experiment
from foldsmith.project import ProjectFolder
from foldsmith.steps.preprocess import preprocess

CUDA = torch.cuda.is_available()
COMMANDS = {
    "SimSiam": ("pretrain", "-cfg", "exp_config/000.yml"),
    "fine-tuning": ("train", "-cfg", "exp_config/100.yml", "-v", "0", "model/pretrained=null"),
}


def main() -> None:
    """Measure, print the table, write JSON and a plot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=8192 if CUDA else 256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=512 if CUDA else 64)
    parser.add_argument("--size", type=int, default=224 if CUDA else 64)
    arguments = parser.parse_args()

    results = []
    groups: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        project = generated_project(Path(folder), arguments.images)
        with contextlib.redirect_stdout(io.StringIO()):
            experiments = [Experiment.load(project, command[2]) for command in COMMANDS.values()]
            preprocess(project, False, experiments)
        print(f"{'training':<12} {'processes':>9} {'threads':>7} {'images/s':>9}  ratio")
        for kind in COMMANDS:
            speeds: dict[tuple[int, int], list[float]] = {way: [] for way in ways()}
            for _ in range(arguments.rounds):
                for way, measured in speeds.items():
                    measured.append(images_per_s(project, kind, way, arguments))
            first = next(iter(speeds.values()))
            for (processes, threads), measured in speeds.items():
                ratio = statistics.median(a / b for a, b in zip(measured, first, strict=True))
                speed = statistics.median(measured)
                print(f"{kind:<12} {processes:>9} {threads:>7} {speed:>9.1f}  {ratio:.2f}")
                results.append(
                    {
                        **{"training": kind, "processes": processes, "threads": threads},
                        **{"images_per_s": speed, "ratio": ratio, "rounds": measured},
                    }
                )
                name = f"{processes} x {'GPU' if CUDA else f'{threads} threads'}"
                groups.setdefault(kind, {})[name] = speed
    report.write("processes", results)
    report.bars("processes", "One training on several processes", groups, "images/s")


def ways() -> list[tuple[int, int]]:
    """Return processes and threads of each to measure; ratios are to the first."""
    cores = len(os.sched_getaffinity(0))
    if CUDA:
        cards = torch.cuda.device_count()
        counts = [n for n in (1, 2, 4, 8) if n <= cards]
        return [(n, max(1, cores // n)) for n in counts]
    return list(dict.fromkeys([(1, 1), (1, cores), (cores, 1)]))


def images_per_s(
    project: ProjectFolder, kind: str, way: tuple[int, int], arguments: argparse.Namespace
) -> float:
    """Run a command to its end, and return what its last epoch has logged."""
    processes, threads = way
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    if processes == 1:
        launch = []
    command = [
        *(sys.executable, *launch, "-m", "foldsmith", *COMMANDS[kind], "-f"),
        *("globals/max_epoch=2", f"dataset/img_size={arguments.size}", "globals/loggers=[]"),
        *(f"loader/train/batch_size={arguments.batch}", "loader/train/drop_last=true"),
        f"loader/train/num_workers={4 if CUDA else 0}",
    ]
    done = subprocess.run(
        command,
        cwd=project.folder,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    (log,) = (project.folder / "output").rglob("log.json")
    entries = json.loads(log.read_text(encoding="utf-8"))
    log.unlink()
    return float(entries[-1]["images_per_s"])


if __name__ == "__main__":
    main()
