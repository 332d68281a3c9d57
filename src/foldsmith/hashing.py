"""Hashes of files and values: what a result was made from."""

import hashlib
import json
import os
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from foldsmith.atomic import write_npy
from foldsmith.keys import KeyTable
from foldsmith.paths import Paths

# A file this young may change again without its time showing it.
_SETTLED_NS = 2_000_000_000

# Bytes of a row of what is known: a file's name, size and time of change (their hash, shortened),
# then the SHA-256 of its content.
_STATE, _DIGEST = 16, 32

# New hashes are written after so many: a killed process has lost the last of them at most.
_UNSAVED = 2**16

# So many files of rows become one.
_FILES = 16

# Texts that are hashed at a time.
_TEXTS = 10_000


def hash_value(value: Any) -> str:
    """Return the SHA-256 of plain data: dicts (in any order), lists, numbers, text."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def hash_texts(lists: Iterable[Iterable[str]]) -> str:
    """Return :func:`hash_value` of lists of texts, of which few are in memory at a time."""
    digest = hashlib.sha256(b"[")
    for number, texts in enumerate(lists):
        digest.update(b", [" if number else b"[")
        rest, before = iter(texts), ""
        while part := list(islice(rest, _TEXTS)):
            text = before + json.dumps(part, ensure_ascii=False)[1:-1]
            digest.update(text.encode("utf-8", "surrogatepass"))
            before = ", "
        digest.update(b"]")
    digest.update(b"]")
    return digest.hexdigest()


def hash_bytes(data: Any) -> str:
    """Return the SHA-256 of a buffer."""
    return hashlib.sha256(data).hexdigest()


class FileHashes:
    """SHA-256 of files, remembered by name, size and time of change.

    A file whose size and time are those it was last read with is not read again. What is known
    lies in a few files of rows (``*.npy``, uint8, shape (n, 48)), which are written once, under
    names of their own, and put together when there are many: processes on several machines may
    write at the same time, and need no locks.

    Args:
        folder: Where the rows are kept between processes. It may be deleted at any time: all
            that is lost is the time to read the files again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._root = f"{folder.parent.parent}{os.sep}"
        self._known: list[tuple[KeyTable, npt.NDArray[np.uint8]]] | None = None
        self._unsaved: dict[bytes, str] = {}
        self._writing = threading.Lock()

    def of(self, path: Path) -> str:
        """Return the SHA-256 of one file, or ``missing`` if it cannot be read."""
        return self.of_all([path])[0]

    def of_all(self, paths: Iterable[Path]) -> list[str]:
        """Return the SHA-256 of files, on all cores; ``missing`` where one cannot be read."""
        return list(self.each(list(paths)))

    def each(self, paths: Sequence[Path]) -> Iterator[str]:
        """Yield what :meth:`of_all` returns; few of them are in memory at a time."""
        paths = Paths.of(paths)
        digests, known = self.known_of(paths)
        unknown = np.flatnonzero(~known)
        read: dict[int, str] = {}
        if len(unknown):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                found = pool.map(self._read, paths.take(unknown))
                read = dict(zip(unknown.tolist(), found, strict=True))
        for start in range(0, len(paths), _TEXTS):
            text = digests[start : start + _TEXTS].tobytes().hex()
            for k in range(start, min(len(paths), start + _TEXTS)):
                at = (k - start) * 2 * _DIGEST
                yield read.get(k) or text[at : at + 2 * _DIGEST]

    def known(self, path: Path) -> str | None:
        """Return the SHA-256 of a file that is as it was when it was last read.

        The file is not opened: None if it has changed, was never read, or is not there.
        """
        digests, known = self.known_of([path])
        return digests[0].tobytes().hex() if known[0] else None

    def known_of(
        self, paths: Sequence[Path]
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """Return what :meth:`known` says of many files.

        Returns:
            SHA-256 of each, uint8, shape (n, 32), and whether it is known, shape (n,).
        """
        states = bytearray()
        for text in Paths.of(paths).texts():
            states += self._state_of(text)
        keys = np.frombuffer(states, np.uint8).reshape(-1, _STATE)
        digests = np.zeros((len(keys), _DIGEST), np.uint8)
        known = np.zeros(len(keys), bool)
        for table, of_rows in self._tables():
            left = np.flatnonzero(~known)
            rows = table.find(keys[left])
            digests[left[rows >= 0]] = of_rows[rows[rows >= 0]]
            known[left[rows >= 0]] = True
        for k in np.flatnonzero(~known) if self._unsaved else ():
            digest = self._unsaved.get(keys[k].tobytes())
            if digest is not None:
                digests[k] = np.frombuffer(bytes.fromhex(digest), np.uint8)
                known[k] = True
        return digests, known

    def remember(self, path: Path, status: os.stat_result, digest: str) -> None:
        """Keep the hash of a file that was read elsewhere.

        Args:
            path: The file.
            status: Its status from before it was read.
            digest: SHA-256 of its content.
        """
        # Not of a file that was just written: its next change might not change its time.
        if time.time_ns() - status.st_mtime_ns > _SETTLED_NS:
            self._unsaved[self._state(str(path), status)] = digest
            if len(self._unsaved) >= _UNSAVED:
                self._save(_UNSAVED)

    def save(self) -> None:
        """Write what is new; a folder that takes no files is no error."""
        self._save(1)

    def _save(self, at_least: int) -> None:
        with self._writing:
            # Another thread may have been here first.
            if len(self._unsaved) < at_least:
                return
            new = dict(self._unsaved)
            content = b"".join(key + bytes.fromhex(digest) for key, digest in new.items())
            rows = np.frombuffer(content, np.uint8).reshape(-1, _STATE + _DIGEST)
            try:
                self._write(rows)
            except OSError:
                return
            self._tables().append(_table(rows))
            # Others may have added to them meanwhile.
            for key in new:
                self._unsaved.pop(key)

    def _write(self, rows: npt.NDArray[np.uint8]) -> None:
        write_npy(self._folder / f"{uuid.uuid4().hex}.npy", rows)
        files = sorted(self._folder.glob("*.npy"))
        if len(files) < _FILES:
            return
        # A process that looks for one of these now, and finds it gone, reads photos once more.
        whole = np.unique(np.concatenate([_rows_of(file) for file in files]), axis=0)
        write_npy(self._folder / f"{uuid.uuid4().hex}.npy", whole)
        for file in files:
            file.unlink(missing_ok=True)

    def _tables(self) -> list[tuple[KeyTable, npt.NDArray[np.uint8]]]:
        # Read when they are asked for the first time, into memory: another machine may remove a
        # file, and what was mapped of it would be gone.
        if self._known is None:
            found = [_rows_of(file) for file in sorted(self._folder.glob("*.npy"))]
            self._known = [_table(np.concatenate(found))] if found else []
        return self._known

    def _read(self, path: Path) -> str:
        try:
            status = path.stat()
            digest = hash_bytes(path.read_bytes())
        except (OSError, ValueError):
            return "missing"
        self.remember(path, status, digest)
        return digest

    def _state_of(self, path: str) -> bytes:
        try:
            return self._state(path, os.stat(path))
        except (OSError, ValueError):
            return bytes(_STATE)  # no file has it

    def _state(self, path: str, status: os.stat_result) -> bytes:
        # The same wherever the project lies.
        text = f"{path.removeprefix(self._root)}\0{status.st_size}\0{status.st_mtime_ns}"
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_STATE).digest()


def _table(rows: npt.NDArray[np.uint8]) -> tuple[KeyTable, npt.NDArray[np.uint8]]:
    return KeyTable(np.ascontiguousarray(rows[:, :_STATE])), rows[:, _STATE:]


def _rows_of(file: Path) -> npt.NDArray[np.uint8]:
    """Return the rows of a file; none if it is damaged or gone."""
    try:
        rows: npt.NDArray[np.uint8] = np.load(file, allow_pickle=False)
        if rows.dtype == np.uint8 and rows.ndim == 2 and rows.shape[1] == _STATE + _DIGEST:
            return rows
    except (OSError, ValueError, EOFError):
        pass
    return np.zeros((0, _STATE + _DIGEST), np.uint8)
