"""The check on a GPU: is foldsmith right there, is it fast, is it good. In under nine minutes.

    python benchmarks/gpu_check                     on a machine with a CUDA device
    python benchmarks/gpu_check --images DIR        with images (train.csv, images/) for `good`
    python benchmarks/gpu_check --wheels DIR        packages that the machine lacks, from wheels
    python benchmarks/gpu_check --rehearse          the same, small, on the CPU, in a minute

Each part is a process with a time limit of its own; what fails or takes too long does not stop
the others. What a part measures is in `OUT/PART.json` at once, its output in `OUT/PART.log`, and
all of it as a table in the end. Nothing is downloaded and nothing is installed; foldsmith is taken
from the source tree. Exit code 0: every part has passed; 1: one has not; 2: the check cannot begin.
"""

import argparse
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from environment import HERE, REPOSITORY, environment_of, fail, missing_line, python_path, unpack
from figures import read, write
from time_limits import ended

# Seconds: together under nine minutes, with what the start takes.
LIMITS = {"right": 120, "fast": 210, "good": 180}


@dataclass(frozen=True)
class Part:
    """A part of the check.

    Attributes:
        name: Its files are ``NAME.json`` and ``NAME.log``.
        command: What runs it; ``--out FILE`` and ``--limit SECONDS`` are added.
        limit_s: After so many seconds it is ended.
    """

    name: str
    command: list[str]
    limit_s: float


def main() -> None:
    """Check the machine, run the parts, print the table."""
    arguments = parse()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu_check_") as scratch:
        packages = None
        if arguments.wheels is not None:
            packages = unpack(arguments.wheels, Path(scratch) / "packages")
        variables = os.environ | {
            "PYTHONPATH": python_path(packages),
            "FOLDSMITH_CHECK_DEVICE": "cpu" if arguments.rehearse else "cuda",
            "FOLDSMITH_STATE_DIR": str(Path(scratch) / "state"),
            "FOLDSMITH_TRUST_PYTHON": "1",
            "TMPDIR": scratch,
            "PYTHONUNBUFFERED": "1",
            # So that processes forked after a question about the device may use it.
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        }
        if arguments.rehearse:
            # One thread each, so that tests may fork; no card, if there is one.
            variables |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        machine = environment_of(variables, quick=arguments.rehearse)
        write(out / "machine.json", machine)
        print(f"machine: {machine['line']}", flush=True)
        problem = missing_line(machine, arguments.rehearse)
        if problem:
            fail(problem)
        failed = check(parts_of(arguments), out, variables)
    print(f"results are in {out}")
    sys.exit(1 if failed else 0)


def parse() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("build/gpu_check"), help="folder")
    parser.add_argument("--images", type=Path, help="train.csv, images/; generated if left out")
    parser.add_argument("--wheels", type=Path, help="folder of wheels of missing packages")
    parser.add_argument("--rehearse", action="store_true", help="small, on the CPU")
    parser.add_argument(
        "--parts", nargs="+", choices=list(LIMITS), default=list(LIMITS), metavar="PART"
    )
    arguments = parser.parse_args()
    for name in ("images", "wheels"):
        folder = getattr(arguments, name)
        if folder is not None and not folder.is_dir():
            parser.error(f"--{name}: {folder}: no such folder")
    return arguments


def parts_of(arguments: argparse.Namespace) -> list[Part]:
    """Return the parts that are to run, with their commands."""
    more = ["--rehearse"] if arguments.rehearse else []
    images = [] if arguments.images is None else ["--images", str(arguments.images.resolve())]
    return [
        Part(
            name,
            [
                *(sys.executable, str(HERE / f"{name}.py"), *more),
                *(images if name == "good" else []),
            ],
            LIMITS[name],
        )
        for name in LIMITS
        if name in arguments.parts
    ]


def check(parts: list[Part], out: Path, variables: dict[str, str]) -> bool:
    """Run parts one after another, and print what they have found; return whether one failed.

    Args:
        parts: The parts.
        out: Folder of the results.
        variables: The environment of their processes.
    """
    out.mkdir(parents=True, exist_ok=True)
    for part in parts:
        for suffix in ("json", "log"):
            (out / f"{part.name}.{suffix}").unlink(missing_ok=True)
    for part in parts:
        print(f"\n{part.name}: at most {part.limit_s:.0f} s", flush=True)
        file = out / f"{part.name}.json"
        command = [*part.command, "--out", str(file.resolve()), "--limit", f"{part.limit_s:g}"]
        end = ended(command, out / f"{part.name}.log", part.limit_s, variables, REPOSITORY)
        # What it had measured until then is in the file.
        write(file, read(file) | {"outcome": end.text, "seconds": round(end.seconds, 1)})
        print(f"{part.name}: {end.text} after {end.seconds:.0f} s", flush=True)
    found = {part.name: read(out / f"{part.name}.json") for part in parts}
    write(out / "summary.json", {name: each["outcome"] for name, each in found.items()})
    print_table(found)
    return any(each["outcome"] != "passed" for each in found.values())


def print_table(found: dict[str, dict]) -> None:
    """Print a line for each part, and below it the lines that it has for the table."""
    print("\n" + "=" * min(79, shutil.get_terminal_size().columns - 1))
    for name, each in found.items():
        print(f"{name:<6} {each['outcome']} ({each['seconds']:.0f} s)")
        for line in each.get("table", []):
            print(f"  {line}")
    print(flush=True)
