"""The whole job on generated photos: `make demo`.

Copies this project to build/demo, generates artwork-like photos in the competition's layout,
and runs the five stages with shrunken versions of the published experiments 000, 100, 200
and 900: smaller photos, fewer epochs, everything else as published.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

HERE = Path(__file__).resolve().parent
FOLDSMITH = [sys.executable, "-m", "foldsmith"]

# What makes the published experiments small enough for two CPU cores.
SMALL = ["dataset/img_size=64", "loader/train/num_workers=0"]
SIMSIAM = [
    *SMALL,
    "globals/max_epoch=8",
    "globals/snapshot_interval=4",
    "loader/train/batch_size=64",
]
FINE_TUNE = [
    *SMALL,
    "globals/max_epoch=10",
    "model/pretrained=output/000_resnet18d_simsiam/backbone_epoch_8.pth",
]
BLEND = "ensemble/experiments=[output/100_resnet18d_cls, output/200_resnet18d_reg]"
STAGES = [
    ("preprocess", ["preprocess"]),
    ("pretrain", ["pretrain", "-cfg", "exp_config/000.yml", *SIMSIAM]),
    (
        "train cls",
        [
            *["train", "-cfg", "exp_config/100.yml", *FINE_TUNE],
            *["dataset/mixup/start_epoch=2", "dataset/mixup/end_epoch=-3"],
        ],
    ),
    ("infer cls", ["infer", "-e", "output/100_resnet18d_cls"]),
    ("train reg", ["train", "-cfg", "exp_config/200.yml", *FINE_TUNE]),
    ("infer reg", ["infer", "-e", "output/200_resnet18d_reg"]),
    ("ensemble", ["ensemble", "-cfg", "exp_config/900.yml", BLEND]),
]


def run(command: list[str], folder: Path) -> float:
    """Show and run one command in ``folder``; return its seconds, or end with its exit code."""
    shown = command[len(FOLDSMITH) :] if command[: len(FOLDSMITH)] == FOLDSMITH else command
    words = [f"'{word}'" if " " in word else word for word in shown]
    print(f"\n$ foldsmith {' '.join(words)}", flush=True)
    started = time.perf_counter()
    result = subprocess.run(command, cwd=folder, check=False)
    if result.returncode:
        sys.exit(result.returncode)
    return time.perf_counter() - started


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("build/demo"))
    parser.add_argument("--train", type=int, default=400, help="labelled photos to generate")
    parser.add_argument("--test", type=int, default=200, help="photos to predict to generate")
    arguments = parser.parse_args()
    project = arguments.output.resolve()
    data = project / "input" / "atmaCup-11"

    # A fresh copy of the project; only what an earlier demo made is replaced.
    if project.exists() and not (data / "GENERATED.txt").exists():
        sys.exit(f"{project} exists and is no earlier demo; name another folder with --output")
    shutil.rmtree(project, ignore_errors=True)
    shutil.copytree(HERE, project, ignore=shutil.ignore_patterns("input", "output", "__pycache__"))
    generate = [sys.executable, str(HERE / "make_demo_data.py"), "--output", str(data)]
    subprocess.run(
        [*generate, "--train", str(arguments.train), "--test", str(arguments.test)], check=True
    )

    seconds = {name: run([*FOLDSMITH, *stage], project) for name, stage in STAGES}

    print("\nseconds: " + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()))
    table = pd.read_csv(project / "output/900_ensemble/ensemble_scores.csv")
    best = table.set_index("name")["rmse"]
    print(f"the plain average of both models: OOF RMSE {best['avg-all']:.4f}")
    shown = Path(os.path.relpath(project))
    print(f"submissions: {shown}/output/900_ensemble/submission_*.csv")
    print(f"plots:       {shown}/output/*/loss.png, std.png, {shown}/output/*/fold*/*.png")


if __name__ == "__main__":
    main()
