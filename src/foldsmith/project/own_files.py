"""The Python files that a project brings, as results depend on them."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from foldsmith.errors import ConfigError
from foldsmith.utils.flatten import flatten
from foldsmith.utils.hashing import FileHashes, hash_bytes

# Prefix of the module name of a project's file.
MODULE_PREFIX = "foldsmith_project_"

# The name under which a file lists the data that it reads, relative to the project folder.
DATA_FILES = "FILES"

# Modules in the project folder that were imported by its own files: Python imports them once in a
# process, so that the first content counts. Name of the module -> path and SHA-256.
_imported: dict[str, tuple[Path, str]] = {}


@dataclass(frozen=True)
class OwnFile:
    """A Python file of a project, as this process has run it.

    Attributes:
        path: The file.
        offers: The names by which experiments use it: the keys of its ``TYPES``, and the models
            that it registers with timm. If there are none, it is imported for its side effects,
            and every experiment depends on it.
        sources: Paths of the file and of the project's modules that it imports, with the SHA-256
            of the executed code.
        data: The data files that it reads, relative to the project folder.
    """

    path: Path
    offers: frozenset[str]
    sources: Mapping[Path, str]
    data: tuple[str, ...]


def own_file(folder: Path, path: Path, source: bytes) -> OwnFile:
    """Describe a Python file of a project that was just run.

    Args:
        folder: The project folder.
        path: The file.
        source: The executed code.

    Raises:
        ConfigError: Its ``FILES`` are no list of names.
    """
    module = sys.modules[f"{MODULE_PREFIX}{path.stem}"]
    data = getattr(module, DATA_FILES, ())
    if not isinstance(data, list | tuple) or not all(isinstance(file, str) for file in data):
        raise ConfigError(
            f"{path}: {DATA_FILES} must be a list of file names, relative to the project folder"
        )
    offers = frozenset(map(str, module.TYPES)) | _timm_models(module)
    sources = {path: hash_bytes(source)} | dict(_imports(module, folder, {module.__name__}))
    return OwnFile(path, offers, sources, tuple(data))


def files_behind(own: Iterable[OwnFile], tree: Any) -> list[OwnFile]:
    """Return the files of a project that an experiment, or a part of one, depends on.

    Args:
        own: All of them.
        tree: The part of the experiment that is read.
    """
    named = {value for value in flatten(tree).values() if isinstance(value, str)}
    return [file for file in own if not file.offers or file.offers & named]


def check_unedited(file: OwnFile) -> None:
    """Check that the code of this process equals the files on the disk.

    Raises:
        ConfigError: A file was edited since it was imported.
    """
    for path, digest in file.sources.items():
        try:
            today = hash_bytes(path.read_bytes())
        except OSError:
            today = "missing"
        if today != digest:
            raise ConfigError(
                f"{path}: was changed since this command has imported it; run the command again"
            )


def hashes_of(folder: Path, files: Iterable[OwnFile], hashes: FileHashes) -> dict[str, str]:
    """Return the hashes of Python files of a project, and of the data files that they read.

    Args:
        folder: The project folder.
        files: The Python files.
        hashes: Hashes of files.

    Raises:
        ConfigError: One was edited since it was imported, or a data file does not exist.
    """
    of_python: dict[str, str] = {}
    of_data: dict[str, str] = {}
    for own in files:
        check_unedited(own)
        for path, digest in own.sources.items():
            inside = path.is_relative_to(folder)
            of_python[str(path.relative_to(folder) if inside else path)] = digest
        for name in own.data:
            if not (folder / name).is_file():
                raise ConfigError(f"{own.path}: {DATA_FILES}: {folder / name}: no such file")
            of_data[name] = hashes.of(folder / name)
    return of_python | of_data


def _timm_models(module: ModuleType) -> frozenset[str]:
    registry = sys.modules.get("timm.models._registry")
    entries = getattr(registry, "_model_entrypoints", {})
    return frozenset(
        name for name, made in entries.items() if getattr(made, "__module__", "") == module.__name__
    )


def _imports(module: ModuleType, folder: Path, seen: set[str]) -> Iterator[tuple[Path, str]]:
    """Yield path and SHA-256 of the project's modules that a module has taken names from."""
    for value in list(vars(module).values()):
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")
        if not isinstance(name, str) or name in seen:
            continue
        seen.add(name)
        other = sys.modules.get(name)
        file = getattr(other, "__file__", None)
        if other is None or not isinstance(file, str):
            continue
        path = Path(file).resolve()
        # An environment may lie in the project folder.
        inside = path.is_relative_to(folder) and "site-packages" not in path.parts
        if not inside or path.suffix != ".py":
            continue
        # A file of the project's own list is run anew whenever the project is opened.
        if name.startswith(MODULE_PREFIX):
            yield path, hash_bytes(path.read_bytes())
        else:
            if name not in _imported:
                _imported[name] = path, hash_bytes(path.read_bytes())
            yield _imported[name]
        yield from _imports(other, folder, seen)
