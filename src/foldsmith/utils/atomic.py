"""Atomic writes: a file, or a folder, is either the old one or the whole new one.

A killed process leaves temporary files beside the file that it was writing. Their names contain
the process, so that the next process can remove the files of dead processes only.
"""

import ctypes
import glob
import json
import logging
import math
import os
import re
import shutil
import socket
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.errors import UNSUPPORTED
from foldsmith.utils.interrupts import uninterrupted

logger = logging.getLogger(__name__)

# Part of the name of every temporary file: it is followed by the process and its machine, by which
# those of killed processes are recognised.
_MARK = ".part-"
_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
_OF_PROCESS = re.compile(r"(\d+)-([0-9a-f]{8})")


@contextmanager
def replacing(path: Path, interruptible: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it over ``path`` if the block succeeds.

    Ctrl-C and SIGTERM wait until the file is written, see :mod:`foldsmith.utils.interrupts`.

    Args:
        path: The file to write. Its folder is created if need be.
        interruptible: Whether signals take effect at once: for a block that takes long, and in
            which a signal does no harm.

    Yields:
        The path to write to. It keeps the suffix of ``path``, since some writers look at it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with nullcontext() if interruptible else uninterrupted():
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}{_own_mark()}-", suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            # mkstemp makes the file private; give it the rights any other new file would have.
            umask = os.umask(0)
            os.umask(umask)
            with _as_far_as_it_can():
                temporary.chmod(0o666 & ~umask)
            with temporary.open("rb") as written, _as_far_as_it_can():
                os.fsync(written.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
            logger.debug(f"wrote {path}")
        except OSError as error:
            # A failed write (a full disk) knows a descriptor only; name the file.
            error.filename = error.filename or str(path)
            raise
        finally:
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Write a rename to the disk before any later write."""
    if os.name == "nt":  # Windows has no handles of folders
        return
    with _as_far_as_it_can():
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _as_far_as_it_can() -> Iterator[None]:
    """Ignore errors of unsupported operations of the file system; raise other errors."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def remove_leftovers(folder: Path, before: float = math.inf) -> None:
    """Remove the temporary files that killed processes left in a folder.

    Args:
        folder: The folder; no other process writes to it (its lock is held).
        before: Only files that were last written before this time, in seconds since 1970; required
            if other processes may be writing to the folder.
    """
    for path in folder.glob(f".*{_MARK}*"):
        with suppress(FileNotFoundError):
            if _process_of(path) is not None and path.stat().st_mtime < before:
                _remove(path)


def remove_leftovers_of(path: Path) -> None:
    """Remove what killed processes of this machine left beside a file, or folder, of theirs.

    Args:
        path: The file that they were writing; files of processes that are writing it now are kept.
    """
    for leftover in sorted(_beside(path)):
        process = _process_of(leftover)
        if process and process[1] == _HOST and not _is_alive(int(process[0])):
            _remove(leftover)


def _beside(path: Path) -> set[Path]:
    """Return the temporary files of a file, named by its stem, and of a folder, by its name."""
    names = {path.stem, path.name}
    return {p for name in names for p in path.parent.glob(f".{glob.escape(name)}{_MARK}*")}


def _own_mark() -> str:
    return f"{_MARK}{os.getpid()}-{_HOST}"


def _process_of(leftover: Path) -> tuple[str, str] | None:
    """Return process and machine from the name of a temporary file; None if it is none of ours."""
    found = _OF_PROCESS.match(leftover.name.rpartition(_MARK)[2])
    return None if found is None else (found[1], found[2])


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


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside ``folder``; put it in its place if the block succeeds.

    At every moment either the old folder or the whole new one has the name, where the system
    can exchange two names in one step (Linux). Elsewhere a kill between two renames leaves the
    old one under another name, and :func:`recover_folder` gives it back.

    Args:
        folder: The folder to write. The caller holds its lock. The contents of the old one are
            removed.

    Yields:
        The folder to write into.
    """
    recover_folder(folder)
    remove_leftovers_of(folder)
    begun = folder.with_name(f".{folder.name}{_own_mark()}")
    _remove(begun)
    begun.mkdir(parents=True)
    try:
        yield begun
        with uninterrupted():
            if not folder.exists():
                begun.rename(folder)
            elif not _exchange(begun, folder):
                folder.rename(_aside(folder))
                begun.rename(folder)
            _sync_folder(folder.parent)
    finally:
        _remove(begun)
        if folder.exists():
            _remove(_aside(folder))


def recover_folder(folder: Path) -> None:
    """Give a folder its name back if a process was killed while it replaced it."""
    if not folder.exists() and _aside(folder).is_dir():
        with suppress(OSError):  # another process does the same
            _aside(folder).rename(folder)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.replaced")


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two folders in one step; return False where that cannot be done."""
    if not sys.platform.startswith("linux"):
        return False
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    sys.audit("foldsmith.exchange", str(one), str(other))
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0:
        return True
    number = ctypes.get_errno()
    if number in UNSUPPORTED:
        return False  # a file system that does not know it
    raise OSError(number, os.strerror(number), str(other))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return pid != os.getpid()  # of another one that had this number before


def _remove(path: Path) -> None:
    """Remove a file, or a folder with all in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
