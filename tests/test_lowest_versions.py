import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# Packages of the extras; a module that needs one is left out where the package is missing.
EXTRAS = {"fastapi", "uvicorn", "starlette", "ray"}


def versions(lines, sign):
    """Return the version of each package in lines such as ``name>=1.2``, as numbers."""
    pairs = (line.split("#")[0].split(sign) for line in lines if sign in line.split("#")[0])
    return {
        name.strip(): [int(part) for part in re.sub(r"(\.0)+$", "", version.strip()).split(".")]
        for name, version in pairs
    }


def test_the_lowest_versions_are_those_that_were_tested():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pinned = (REPOSITORY / "constraints-lowest.txt").read_text().splitlines()
    tested = versions(pinned, "==")
    lowest = versions(project["dependencies"], ">=")
    assert len(lowest) == len(project["dependencies"])
    # The rest of the version counts patches and builds of the wheel.
    tested["opencv-python-headless"] = tested["opencv-python-headless"][:2]
    assert lowest == tested


def test_every_module_is_imported():
    code = """
import importlib, pkgutil, foldsmith
def failed(name):
    raise
for module in pkgutil.walk_packages(foldsmith.__path__, "foldsmith.", onerror=failed):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            print("missing:", error.name, module.name)
"""
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    missing = re.findall(r"missing: (\w+)", result.stdout)
    assert set(missing) <= EXTRAS, result.stdout
