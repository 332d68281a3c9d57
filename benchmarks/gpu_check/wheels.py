"""Download the wheels that the check needs beside torch, timm and pandas, for a Python of choice.

    python benchmarks/gpu_check/wheels.py wheels --python-version 3.12

The folder goes to the machine with the card, which need not reach a package index:
``python benchmarks/gpu_check --wheels wheels``. Wheels for several Pythons may lie in one folder.
"""

import argparse
import platform
import subprocess
import sys
from pathlib import Path

# With what they need, which is small.
WITH_DEPENDENCIES = ("pydantic", "fastapi", "uvicorn", "python-multipart", "httpx")

# Without, since that would be torch; what is imported of it is in this list or on the machine.
ALONE = (
    *("lightly", "pytorch-pfn-extras", "optuna", "colorlog"),
    *("onnxscript", "onnx-ir", "ml-dtypes"),
    # The last version; it asks for this one of albucore.
    *("albumentations==2.0.8", "albucore==0.0.24", "stringzilla", "simsimd"),
)

PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def commands(folder: Path, python_version: str, platforms: tuple[str, ...]) -> list[list[str]]:
    """Return the calls of pip."""
    common = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
    common += ["--only-binary=:all:", "--python-version", python_version, "--dest", str(folder)]
    for name in platforms:
        common += ["--platform", name]
    return [[*common, *WITH_DEPENDENCIES], [*common, "--no-deps", *ALONE]]


def main() -> None:
    """Download into a folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    here = ".".join(platform.python_version_tuple()[:2])
    parser.add_argument("--python-version", default=here, metavar="3.12", help=f"default: {here}")
    parser.add_argument("--platform", nargs="+", default=PLATFORMS, help="pip's names")
    arguments = parser.parse_args()
    for command in commands(arguments.folder, arguments.python_version, tuple(arguments.platform)):
        code = subprocess.run(command, check=False).returncode
        if code:
            sys.exit(code)


if __name__ == "__main__":
    main()
