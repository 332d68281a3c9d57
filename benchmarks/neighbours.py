"""How fast trainings are alone, beside a busy process and beside each other, on the cores of a CPU.

Threads of one operation wait for each other. How they wait (spinning, or giving the core away)
may decide what happens when another process needs a core too. Torch's own default, which foldsmith
leaves as it is, is compared with two other policies and with one thread (``globals/threads: 1``),
in turn, in processes of their own.

Then the folds of one training are run by ``foldsmith run`` one after another with torch's own
threads, and side by side with one thread each, alone and beside a busy process.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_POLICIES = {
    "torch's default": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
_BATCH, _SIDE = 64, 64


def train(seconds: float) -> None:
    """Train a ResNet18-D on one batch; print images per second."""
    import timm
    import torch

    torch.manual_seed(0)
    model = timm.create_model("resnet18d", num_classes=1).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    images = torch.randn(_BATCH, 3, _SIDE, _SIDE).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(images).float().square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step()
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()
        steps += 1
    print(json.dumps(_BATCH * steps / (time.perf_counter() - started)))


def start(policy: dict[str, str], seconds: float) -> subprocess.Popen:
    """Start a training in a process of its own."""
    others = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
    environment = {k: v for k, v in os.environ.items() if k not in others} | policy
    command = [sys.executable, __file__, "--train", str(seconds)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def rate(training: subprocess.Popen) -> float:
    """Wait for a training; return its images per second."""
    return float(json.loads(training.communicate()[0]))


@contextlib.contextmanager
def busy_process() -> Iterator[None]:
    """Keep a core busy."""
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


def folds_s(folder: Path, threads: str, epochs: int) -> float:
    """Return the seconds in which a run trains all folds, its start included."""
    shutil.rmtree(folder / "output", ignore_errors=True)
    command = [
        *(sys.executable, "-m", "foldsmith", "run", "--no-report", "-cfg", "exp_config/440.yml"),
        *("--until", "train", f"globals/max_epoch={epochs}", f"globals/threads={threads}"),
        *("globals/device=cpu", "globals/loggers=[]"),
    ]
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return time.perf_counter() - started


def run_folds(rounds: int, epochs: int, images: int) -> None:
    """Measure whole runs of the folds of a training, and print a table."""
    from generated import generated_project

    from foldsmith.project import ProjectFolder
    from foldsmith.steps.preprocess import preprocess

    found: dict[str, list[tuple[float, float]]] = {"null": [], "1": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = generated_project(Path(temporary), images).folder
        settings = folder / "project.yml"
        # The small network at 64 px.
        text = settings.read_text(encoding="utf-8").replace("time: large", "time: small")
        settings.write_text(text, encoding="utf-8")
        project = ProjectFolder.open(folder)
        with contextlib.redirect_stdout(io.StringIO()):
            preprocess(project)
        for _ in range(rounds):
            for threads, measured in found.items():
                alone = folds_s(project.folder, threads, epochs)
                with busy_process():
                    measured.append((alone, folds_s(project.folder, threads, epochs)))
    print(f"seconds of the {project.n_splits} folds of a training; medians of {rounds}")
    print("| `globals/threads` | alone | beside a busy process |")
    print("|---|---|---|")
    for threads, rows in found.items():
        medians = [statistics.median(values) for values in zip(*rows, strict=True)]
        print(f"| {threads} | {' | '.join(f'{value:.0f}' for value in medians)} |")


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--epochs", type=int, default=6, help="of each fold")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--train", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train(arguments.train)
        return
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in _POLICIES}
    for _ in range(arguments.rounds):
        for name, policy in _POLICIES.items():
            alone = rate(start(policy, arguments.seconds))
            with busy_process():
                beside = rate(start(policy, arguments.seconds))
            two = sum(map(rate, [start(policy, arguments.seconds) for _ in range(2)]))
            found[name].append((alone, beside, two))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"images/s of a ResNet18-D at {_SIDE} px, {cores} cores; medians")
    print("| how threads wait | alone | beside a busy process | two trainings, their sum |")
    print("|---|---|---|---|")
    for name, rounds in found.items():
        alone, *others = (statistics.median(values) for values in zip(*rounds, strict=True))
        shares = (f"{value:.1f} ({value / alone:.2f})" for value in others)
        print(f"| {name} | {alone:.1f} | {' | '.join(shares)} |")
    run_folds(arguments.rounds, arguments.epochs, arguments.images)


if __name__ == "__main__":
    main()
