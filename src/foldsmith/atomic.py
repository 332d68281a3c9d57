"""Atomic writes: a file is either the old one or the whole new one, never a part of it."""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

# Part of the name of every temporary file, by which those of a killed process are recognised.
_MARK = ".part-"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it over ``path`` if the block succeeds.

    Args:
        path: The file to write. Its folder is created if need be.

    Yields:
        The path to write to. It keeps the suffix of ``path``, since some writers look at it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f".{path.stem}{_MARK}", suffix=path.suffix, dir=path.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes the file private; give it the rights any other new file would have.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        # A failed write (a full disk) knows a descriptor only; name the file.
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Bring a rename to the disk, so that what is written later cannot get there before it."""
    if os.name == "nt":  # Windows has no handles of folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: Path, before: float = math.inf) -> None:
    """Remove the temporary files that a killed process left in a folder.

    Args:
        folder: The folder.
        before: Only those that were last written before this time, in seconds since 1970; to be
            given if other processes may be writing to the folder.
    """
    for path in folder.glob(f".*{_MARK}*"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < before:
                path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, table: pd.DataFrame, *, index: bool = False) -> None:
    """Write ``table`` as CSV; floats keep all their digits."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=index)


def write_npy(path: Path, array: npt.NDArray[Any]) -> None:
    """Write ``array`` in numpy's ``.npy`` format, without pickles."""
    with replacing(path) as temporary:
        np.save(temporary, array, allow_pickle=False)


def copy_file(source: Path, target: Path) -> None:
    """Copy the content of ``source`` to ``target``."""
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
