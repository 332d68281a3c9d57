"""Collect wheels of foldsmith and of the packages that this Python lacks for it.

Run it where foldsmith is to be installed later, with the internet on: in a notebook on Kaggle or
Colab, say, which have torch already. Keep the folder (as a data set, on the Drive). Then this
installs without the internet: ``pip install --no-index --find-links FOLDER foldsmith``.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> None:
    """Build foldsmith's wheel; download the others, in the versions that pip chooses here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to")
    parser.add_argument(
        "--no-build-isolation",
        action="store_true",
        help="build with the setuptools that is installed, without the internet",
    )
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    build = ["--no-build-isolation"] if options.no_build_isolation else []
    for old in options.folder.glob("foldsmith-*.whl"):
        old.unlink()
    _pip("wheel", "--quiet", "--no-deps", *build, "-w", str(options.folder), str(REPOSITORY))
    (wheel,) = options.folder.glob("foldsmith-*.whl")
    plan = options.folder / "install.json"
    _pip("install", "--quiet", "--dry-run", "--report", str(plan), str(wheel))
    missing = [
        f"{item['metadata']['name']}=={item['metadata']['version']}"
        for item in json.loads(plan.read_text(encoding="utf-8"))["install"]
        if item["metadata"]["name"] != "foldsmith"
    ]
    plan.unlink()
    if missing:
        _pip("wheel", "--quiet", "--no-deps", "-w", str(options.folder), *missing)
    wheels = sorted(path.name for path in options.folder.glob("*.whl"))
    print(f"{len(wheels)} wheels in {options.folder}:", *wheels, sep="\n  ")


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
