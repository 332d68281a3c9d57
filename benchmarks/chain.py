"""The whole job, from images to a blend: seconds and memory of foldsmith and of a plain script.

Both run as processes of their own, in turn, imports included: preprocessing, two epochs of
SimSiam on all images, five folds of classification and of regression for two epochs, inference,
and blend weights. The plain one is `benchmarks/plain_chain.py`; it takes 1,000 Optuna trials,
foldsmith the exact weights of the same search space, its default.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import report
from generated import generated_project

HERE = Path(__file__).resolve().parent


def measured(command: list[str], folder: Path) -> tuple[float, float]:
    """Run a command; return its seconds, and the largest memory of one process in MiB."""
    # Through a small process whose only children are this command's.
    code = (
        "import resource, subprocess, sys, time\n"
        "started = time.perf_counter()\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
        "seconds = time.perf_counter() - started\n"
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024\n"
        "print(done.returncode, seconds, peak)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *command],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(HERE)},
        check=True,
    )
    code_text, seconds, peak = result.stdout.split()
    if code_text != "0":
        raise SystemExit(f"{' '.join(command)} failed:\n{result.stderr}")
    return float(seconds), float(peak)


def main() -> None:
    """Measure in turn, print the table, write JSON and a plot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    python = sys.executable
    plain = [python, str(HERE / "plain_chain.py"), "."]
    overrides = [
        "000:globals/max_epoch=2",
        "[12]*:globals/max_epoch=2",
        "[12]*:model/pretrained=output/000_resnet18d_simsiam/backbone_epoch_2.pth",
        "000:loader/train/batch_size=32",
        "[12]*:loader/train/batch_size=32",
        "ensemble/method=box",
    ]
    run = ["run", "--no-report", "-cfg", "demo_config/900.yml"]
    ours = [python, "-m", "foldsmith", *run, *overrides]
    rounds: dict[str, list[tuple[float, float]]] = {"foldsmith": [], "plain": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            for name, command in (("foldsmith", ours), ("plain", plain)):
                base = Path(folder) / f"{name}{number}"
                project = generated_project(base, arguments.images, 100)
                rounds[name].append(measured(command, project.folder))
                shutil.rmtree(base)
    seconds = {n: statistics.median(s for s, _ in values) for n, values in rounds.items()}
    memory = {n: statistics.median(m for _, m in values) for n, values in rounds.items()}
    print(f"{'whole chain':<12} {'seconds':>8} {'peak MiB':>9}")
    for name in rounds:
        print(f"{name:<12} {seconds[name]:>8.1f} {memory[name]:>9.0f}")
    print(f"foldsmith: {seconds['plain'] / seconds['foldsmith']:.2f} times as fast")
    report.write("chain", [{"seconds": seconds, "peak_mib": memory, "rounds": rounds}])
    report.bars("chain", "Whole chain", {"seconds": seconds, "peak memory": memory}, "s, MiB")


if __name__ == "__main__":
    main()
