"""The output folder of a run: claiming it, and the record of what was run."""

import shutil
from pathlib import Path

import timm
import torch

from foldsmith import __version__
from foldsmith.atomic import copy_file, write_json, write_text
from foldsmith.config import Experiment
from foldsmith.errors import OutputError

RESOLVED_CONFIG = "resolved_config.yml"
SOURCES = "sources"
RECORD = "record.json"


def shown(path: Path) -> str:
    """Return a path as it is printed: relative to the working folder if it is below it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def claim(folder: Path, force: bool) -> None:
    """Create an output folder.

    Raises:
        OutputError: It exists and ``force`` is not given.
    """
    if folder.exists() and not force:
        raise OutputError(f"{folder}: exists already; add -f to replace what is in it")
    folder.mkdir(parents=True, exist_ok=True)


def save_sources(folder: Path, experiment: Experiment) -> None:
    """Write the resolved experiment and copies of the files it came from.

    ``resolved_config.yml`` is what was run, imports and overrides applied; ``sources`` holds
    the experiment file and its imports, the project file and the project's own Python.
    """
    write_text(folder / RESOLVED_CONFIG, experiment.dump())
    sources = folder / SOURCES
    if sources.exists():
        shutil.rmtree(sources)
    root = experiment.project.folder
    for source in dict.fromkeys([*experiment.sources, *experiment.project.source_files]):
        path = source.resolve()
        # Files of the project keep their place in it; recipes of the package come beside them.
        inside = path.relative_to(root) if path.is_relative_to(root) else Path("recipes", path.name)
        copy_file(path, sources / inside)


def save_record(folder: Path, **facts: object) -> None:
    """Write ``record.json``: versions, and the facts a stage knows about its run."""
    versions = {"foldsmith": __version__, "torch": torch.__version__, "timm": timm.__version__}
    write_json(folder / RECORD, {"versions": versions, **facts})
