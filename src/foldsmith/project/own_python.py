"""Python files that a project or an export brings: none runs before a person has accepted it.

Acceptance is by content: the SHA-256 of a file, kept for this user outside all projects
(:func:`state_dir`), so that a project that comes from elsewhere cannot bring its own. An edited
file is another content, and is asked about again.
"""

import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from foldsmith.errors import ConfigError, one_line
from foldsmith.project.own_files import MODULE_PREFIX
from foldsmith.utils.atomic import write_text
from foldsmith.utils.hashing import hash_bytes

logger = logging.getLogger(__name__)

# 1, or folders whose projects and exports may run their Python; processes that are started
# inherit it.
TRUST_VARIABLE = "FOLDSMITH_TRUST_PYTHON"

# Folder of a user's stored consents.
STATE_VARIABLE = "FOLDSMITH_STATE_DIR"

_ACCEPTED = "accepted_python"


def state_dir() -> Path:
    """Return the folder of this user's stored consents, outside all projects.

    ``$FOLDSMITH_STATE_DIR``, else ``foldsmith`` in ``$XDG_STATE_HOME`` or ``~/.local/state``.

    Raises:
        RuntimeError: This user has no home.
    """
    own = os.environ.get(STATE_VARIABLE)
    if own:
        return Path(own)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "foldsmith"


def read_sources(project_file: Path, names: Sequence[str]) -> dict[Path, bytes]:
    """Return the content of the Python files that a project file lists.

    Raises:
        ConfigError: One is not there, or cannot be read.
    """
    sources = {}
    for path in (project_file.parent / name for name in names):
        if not path.is_file():
            raise ConfigError(f"{project_file}: python: {path} does not exist")
        sources[path] = path.read_bytes()
    return sources


def require_accepted(
    project_file: Path, sources: Mapping[Path, bytes], trust: bool, remembered: bool
) -> None:
    """Make sure that a person has accepted the Python of a project or an export.

    Args:
        project_file: The project file that lists it.
        sources: Its files.
        trust: Whether it is accepted by this command or call.
        remembered: Whether the consent is stored for later commands.

    Raises:
        ConfigError: It was not; the message names the files.
    """
    if not sources or _trusted_by_environment(project_file.parent):
        return
    digests = {path: hash_bytes(source) for path, source in sources.items()}
    if trust:
        if remembered:
            _remember(digests)
        return
    folder = _accepted_folder()
    unknown = [
        path
        for path, digest in digests.items()
        if not remembered or folder is None or not (folder / digest).is_file()
    ]
    if not unknown:
        return
    names = ", ".join(os.path.relpath(path, project_file.parent) for path in unknown)
    again = "; that is remembered until a file changes" if remembered else ""
    raise ConfigError(
        f"{project_file}: python: wants to run its own Python, with your rights: {names}"
        f"{_edited(folder, unknown) if remembered else ''}; read it, then accept it with "
        f"--trust-python (in Python trust=True){again}"
    )


def load_types(path: Path, source: bytes) -> dict[str, Callable[..., Any]]:
    """Run a Python file of a project and return its ``TYPES``.

    Args:
        path: The file.
        source: Its content, which was accepted: neither the file is read again, nor a compiled
            form that lies beside it.

    Raises:
        ConfigError: It fails, or defines no ``TYPES``.
    """
    # A name of its own, known to pickle, so that loader workers can find its classes.
    name = f"{MODULE_PREFIX}{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except Exception as error:
        raise ConfigError(f"{path}: {type(error).__name__}: {one_line(error)}") from error
    types = getattr(module, "TYPES", None)
    if not isinstance(types, dict):
        raise ConfigError(f"{path}: must define TYPES, a dict of name -> class or function")
    return types


def _trusted_by_environment(folder: Path) -> bool:
    """Return whether the environment accepts the Python of a folder."""
    value = os.environ.get(TRUST_VARIABLE, "")
    if value in ("", "0"):
        return False
    if value == "1":
        return True
    trusted = [Path(text) for text in value.split(os.pathsep) if text]
    if not all(path.is_absolute() for path in trusted):
        raise ConfigError(
            f"{TRUST_VARIABLE}={value}: must be 1, 0 or absolute folders with {os.pathsep!r} "
            "between them"
        )
    real = folder.resolve()
    return any(real.is_relative_to(path.resolve()) for path in trusted)


def _accepted_folder() -> Path | None:
    try:
        return state_dir() / _ACCEPTED
    except RuntimeError:
        return None


def _remember(digests: Mapping[Path, str]) -> None:
    """Remember files as accepted: an entry each, named by the content, so that nothing locks."""
    folder = _accepted_folder()
    try:
        if folder is None:
            raise OSError("there is no home folder")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path, digest in digests.items():
            if not (folder / digest).is_file():
                day = datetime.now(timezone.utc).date().isoformat()
                write_text(folder / digest, f"{path}\naccepted {day}\n")
    except OSError as error:
        logger.warning(
            f"{folder or STATE_VARIABLE}: that the Python was accepted cannot be "
            f"remembered ({one_line(error.strerror or error)}); set {STATE_VARIABLE} to a folder "
            "that can be written to"
        )


def _edited(folder: Path | None, paths: Sequence[Path]) -> str:
    """Return a remark if files were accepted once, and have changed since."""
    if folder is None or not folder.is_dir():
        return ""
    known = set()
    for entry in folder.iterdir():
        try:
            known.add(entry.read_text(encoding="utf-8").partition("\n")[0])
        except (OSError, UnicodeDecodeError):
            continue
    return " (changed since it was accepted)" if all(str(p) in known for p in paths) else ""
