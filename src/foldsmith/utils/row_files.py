"""Rows in files of a folder: added by many processes without locks, put together when many."""

import hashlib
import logging
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from foldsmith.utils.atomic import remove_leftovers, replacing, write_npy
from foldsmith.utils.key_index import KeyTable

logger = logging.getLogger(__name__)

Rows = npt.NDArray[np.void]

# So many files become one.
_FILES = 16

# Age after which an unfinished file counts as abandoned.
_LEFT_S = 24 * 3600.0

# Rows that are copied at a time.
_ROWS = 2**15

# Field of the checksum that each row ends with.
_CHECK = "row_checksum"


class RowFiles:
    """Rows of a kind in files (``*.npy``) of a folder, each written once and then only read.

    A file's name begins with a number, one more than the largest when it was written: of rows with
    the same key the one in the file of the largest number counts. Processes on several machines may
    write at the same time, and no clock is asked who was first.

    Each row carries a checksum, verified when its file is read: a row that has changed is as if it
    were not there, and taken out of its file.

    Args:
        folder: The folder; it need not exist, and may be deleted whenever nothing runs.
        kind: Type of a row, a structured dtype whose size is a multiple of 8 bytes.
        key: The field that identifies a row: bytes, a multiple of 8 of them.
        mapped: Whether files are memory-mapped. Only if no other machine may remove a file
            meanwhile, since its mapping would become invalid.
    """

    def __init__(self, folder: Path, kind: np.dtype[Any], key: str, mapped: bool = False) -> None:
        self._folder = folder
        self._kind = _with_check(kind)
        self._factors, self._start = _factors(kind)
        self._key = key
        self._mode: Literal["r"] | None = "r" if mapped else None

    def files(self) -> list[Path]:
        """Return the files, the newest first."""
        # Unfinished files begin with a dot.
        return sorted(self._folder.glob("[0-9]" * 10 + "-*.npy"), reverse=True)

    def read(self, file: Path) -> Rows:
        """Return the sound rows of a file, shape (n,); none if it is damaged or gone.

        They are a ``memmap`` of the file, if that is asked for, or an array of their own.
        """
        with suppress(OSError):
            rows = self._read(file)
            sound = self._sound(rows)
            if sound.all():
                return rows
            logger.warning(
                f"{file}: {np.count_nonzero(~sound)} of {len(rows)} rows are damaged; they are "
                "left out, and their content is computed anew"
            )
            kept: Rows = np.array(rows[sound])
            del rows
            with suppress(OSError):
                write_npy(file, kept)
            return kept
        return np.zeros(0, self._kind)

    def add(self, rows: Rows) -> Path:
        """Write rows as a new file; return it.

        Args:
            rows: Shape (n,), no key twice.

        Raises:
            OSError: The folder takes no files.
        """
        newest = next(iter(self.files()), None)
        number = 1 if newest is None else int(newest.name[:10]) + 1
        file = self._named(f"{number:010d}")
        checked = np.empty(len(rows), self._kind)
        for name in rows.dtype.names or ():
            checked[name] = rows[name]
        checked[_CHECK] = self._checks(checked)
        write_npy(file, checked)
        return file

    def put_together(self) -> None:
        """Make one file of many; remove what killed writers have left."""
        files = self.files()
        if len(files) < _FILES:
            return
        # Another process may be at it too, or the disk may be full: all of it stays as it was.
        with suppress(OSError):
            parts = [self._read(file) for file in files]
            keys = np.concatenate([part[self._key] for part in parts])
            counts = KeyTable(keys).find(keys) == np.arange(len(keys))
            counts &= np.concatenate([self._sound(part) for part in parts])
            # It is as new as the newest in it, and no newer than what others write meanwhile.
            with replacing(self._named(files[0].name[:10])) as temporary:
                self._write(temporary, parts, counts)
            for file in files:
                file.unlink(missing_ok=True)
            remove_leftovers(self._folder, time.time() - _LEFT_S)

    def _sound(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Return which rows have the checksum that they were written with, shape (n,)."""
        sound = np.empty(len(rows), bool)
        for start in range(0, len(rows), _ROWS):
            some = rows[start : start + _ROWS]
            sound[start : start + _ROWS] = self._checks(some) == some[_CHECK]
        return sound

    def _checks(self, rows: Rows) -> npt.NDArray[np.uint64]:
        """Return the checksum of each row, shape (n,), from all its fields but the checksum."""
        words = np.ascontiguousarray(rows).view(np.uint64).reshape(len(rows), -1)[:, :-1]
        # Each word is mixed so that no bit can be made up for by the same bit of another word. The
        # start makes rows of zeros, such as a lost page, different from their checksum.
        mixed = (words ^ (words >> np.uint64(32))) * self._factors
        checks: npt.NDArray[np.uint64] = mixed.sum(axis=1, dtype=np.uint64) + self._start
        return checks

    def _named(self, number: str) -> Path:
        return self._folder / f"{number}-{uuid.uuid4().hex}.npy"

    def _read(self, file: Path) -> Rows:
        try:
            rows: Rows = np.load(file, mmap_mode=self._mode, allow_pickle=False)
            # Others are of another version.
            if rows.dtype == self._kind and rows.ndim == 1:
                return rows
        except (ValueError, EOFError):
            logger.warning(f"{file}: is damaged; it is removed, and its content is computed anew")
            file.unlink(missing_ok=True)
        return np.zeros(0, self._kind)

    def _write(self, path: Path, parts: list[Rows], counts: npt.NDArray[np.bool_]) -> None:
        # A part at a time: all of them may be more than fits into memory.
        header = {
            "descr": np.lib.format.dtype_to_descr(self._kind),
            "fortran_order": False,
            "shape": (int(counts.sum()),),
        }
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            first = 0
            for part in parts:
                for start in range(0, len(part), _ROWS):
                    some = part[start : start + _ROWS]
                    file.write(some[counts[first : first + len(some)]].tobytes())
                    first += len(some)


def _with_check(kind: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype([*np.lib.format.dtype_to_descr(kind), (_CHECK, np.uint64)])


def _factors(kind: np.dtype[Any]) -> tuple[npt.NDArray[np.uint64], np.uint64]:
    """Return odd factors, one for each word of a row, and the start of a sum; by the row's type."""
    words = kind.itemsize // 8
    seed = repr(np.lib.format.dtype_to_descr(kind)).encode()
    bits = hashlib.shake_256(seed).digest(8 * (words + 1))
    drawn = np.frombuffer(bits, np.uint64) | np.uint64(1)
    return drawn[:-1], drawn[-1]
