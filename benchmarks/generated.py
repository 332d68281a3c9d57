"""Photos to measure on: those of the demo, in the bundled project."""

import contextlib
import importlib.util
import io
import shutil
from pathlib import Path

from foldsmith.config import Project

REPOSITORY = Path(__file__).resolve().parents[1]
ATMACUP = REPOSITORY / "competitions" / "atmacup11"


def generated_project(folder: Path, n_train: int, n_test: int = 20) -> Project:
    """Return the bundled project with generated photos in it, not yet preprocessed."""
    spec = importlib.util.spec_from_file_location("demo_data", ATMACUP / "make_demo_data.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    project = folder / "project"
    shutil.copytree(ATMACUP, project, ignore=shutil.ignore_patterns("input", "output", ".fold*"))
    with contextlib.redirect_stdout(io.StringIO()):
        module.make_demo_data(project / "input" / "atmaCup-11", n_train, n_test, seed=1)
    return Project.open(project)
