"""The whole job on generated images: `make demo`.

Copies this project to build/demo, generates artwork-like images in the competition's layout,
and runs everything with shrunken versions of the published experiments 000, 100, 200 and 900
(demo_config): smaller images, fewer epochs, everything else as published.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd

HERE = Path(__file__).resolve().parent
FOLDSMITH = [sys.executable, "-m", "foldsmith"]

COMMANDS = [["run", "-cfg", "demo_config/900.yml"], ["status", "-cfg", "demo_config/900.yml"]]


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("build/demo"))
    parser.add_argument("--train", type=int, default=400, help="labelled images to generate")
    parser.add_argument("--test", type=int, default=200, help="images to predict to generate")
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

    for command in COMMANDS:
        print(f"\n$ foldsmith {' '.join(command)}", flush=True)
        result = subprocess.run([*FOLDSMITH, *command], cwd=project, check=False)
        if result.returncode:
            sys.exit(result.returncode)
    table = pd.read_csv(project / "output/900_ensemble/ensemble_scores.csv")
    best = table.set_index("name")["rmse"]
    print(f"\nthe plain average of both models: OOF RMSE {best['avg-all']:.4f}")
    shown = Path(os.path.relpath(project))
    print(f"report:      {shown}/reports/900.html")
    print(f"submissions: {shown}/output/900_ensemble/submission_*.csv")
    print(f"plots:       {shown}/output/*/loss.png, std.png, {shown}/output/*/fold*/*.png")


if __name__ == "__main__":
    main()
