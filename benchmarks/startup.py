"""CPU seconds of the commands that should answer at once, in a small project that has been run.

Each command is a process of its own. The time is user and system together, its children included,
and the least of several rounds; the commands take turns, so that a busy neighbour disturbs all of
them alike. The last column lists the large packages that a command has imported.
"""

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import report
import yaml
from generated import generate_images

PROJECT = {
    "name": "startup",
    "image_path": "photos/{object_id}.jpg",
    "id_column": "object_id",
    "target_column": "target",
    "group_column": "art_series_id",
    "target_range": [0, 3],
    "n_classes": 4,
    "folds": {"method": "GroupKFold", "n_splits": 2, "seed": 1},
}
TRAINING = {
    "globals/max_epoch": 2,
    "model/base_name": "resnet10t",
    "model/pretrained": None,
    "dataset/img_size": 32,
    "loader/train/batch_size": 8,
}
EXPERIMENTS = {
    "100": {
        "import": "foldsmith:multi_class.yml",
        "globals/output_root": "output/100",
        **TRAINING,
    },
    "200": {
        "import": "foldsmith:regression.yml",
        "globals/output_root": "output/200",
        **TRAINING,
    },
    "900": {
        "import": "foldsmith:ensemble.yml",
        "globals/output_path": "output/900",
        "ensemble/experiments": ["output/100", "output/200"],
        "ensemble/n_trials": 20,
    },
}
COMMANDS = {
    "--help": ["--help"],
    "run --help": ["run", "--help"],
    "status": ["status"],
    "run --dry-run": ["run", "-cfg", "exp_config/900.yml", "--dry-run"],
    "check": ["check", "-cfg", "exp_config/100.yml"],
    "predict": ["predict", "--run", "output/900", "IMAGE", "-o", "one.csv"],
}
LARGE = ("cv2", "pandas", "pytorch_pfn_extras", "scipy", "sklearn", "timm", "torch", "torchvision")


def finished_project(folder: Path) -> Path:
    """Write a project of two trainings and an ensemble, and run it."""
    project = folder / "project"
    generate_images(project / "input", n_train=24, n_test=8, long_side=48)
    (project / "exp_config").mkdir()
    (project / "project.yml").write_text(yaml.safe_dump(PROJECT, sort_keys=False))
    for name, content in EXPERIMENTS.items():
        (project / "exp_config" / f"{name}.yml").write_text(yaml.safe_dump(content))
    run(project, ["run", "-cfg", "exp_config/900.yml", "--no-report"])
    return project


def run(project: Path, arguments: list[str], *python: str) -> str:
    """Run a command in a project; return the last line of its stderr."""
    result = subprocess.run(
        [sys.executable, *(python or ("-m", "foldsmith")), *arguments],
        cwd=project,
        check=True,
        capture_output=True,
        text=True,
    )
    return result.stderr.rpartition("\n")[2]


def cpu_seconds(project: Path, arguments: list[str]) -> float:
    """Return the CPU time of a command, user and system."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(project, arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def large_packages(project: Path, arguments: list[str]) -> str:
    """Return the large packages that a command imports."""
    code = (
        "import atexit, sys\n"
        f"loaded = lambda: [name for name in {LARGE!r} if name in sys.modules]\n"
        "atexit.register(lambda: sys.stderr.write(chr(10) + ' '.join(loaded())))\n"
        "sys.argv[0] = 'foldsmith'\n"
        "from foldsmith.cli.main import main\n"
        "main()"
    )
    return run(project, arguments, "-c", code)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="Runs of each command.")
    parser.add_argument("--project", type=Path, help="A finished project of an earlier call.")
    parser.add_argument("--before", type=Path, help="startup.json of an earlier version.")
    parser.add_argument("--keep", type=Path, help="Folder to make the project in, and keep.")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        project = options.project
        if project is None:
            folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            project = finished_project(folder)
        image = sorted((project / "input" / "photos").glob("*.jpg"))[0].relative_to(project)
        commands = {
            name: [str(image) if part == "IMAGE" else part for part in arguments]
            for name, arguments in COMMANDS.items()
        }
        for arguments in commands.values():  # compiled files and remembered hashes
            run(project, arguments)
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, arguments in commands.items():
                seconds[name].append(cpu_seconds(project, arguments))
        results = [
            {
                "command": name,
                "cpu_s": round(min(seconds[name]), 2),
                "imports": large_packages(project, arguments),
            }
            for name, arguments in commands.items()
        ]
    before = {}
    if options.before is not None:
        content = json.loads(options.before.read_text())
        before = {row["command"]: row["cpu_s"] for row in content["results"]}
    print(f"CPU seconds, the least of {options.rounds} rounds")
    print(f"{'command':<15}{'before':>8}{'now':>8}  imports")
    for row in results:
        earlier = before.get(row["command"], "")
        print(f"{row['command']:<15}{earlier:>8}{row['cpu_s']:>8.2f}  {row['imports']}")
    report.write("startup", results)


if __name__ == "__main__":
    main()
