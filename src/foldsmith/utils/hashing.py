"""Hashes of files and values, for the inputs of a result."""

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from foldsmith.utils.key_index import KeyTable
from foldsmith.utils.machine import cores_here
from foldsmith.utils.path_list import Paths
from foldsmith.utils.row_files import RowFiles, Rows

# A file this young may change again without its time showing it.
_SETTLED_NS = 2_000_000_000

# Bytes of a file's state (name, size, times of change: their hash, shortened), and of a SHA-256.
_STATE, _DIGEST = 16, 32

_ROW = np.dtype([("state", np.uint8, _STATE), ("digest", np.uint8, _DIGEST)])

# New hashes are written after so many: a killed process has lost the last of them at most.
_UNSAVED = 2**16

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


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, which is read; see :class:`FileHashes` for many files."""
    # hashlib.file_digest needs Python 3.11.
    digest = hashlib.sha256()
    block = memoryview(bytearray(2**18))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
    return digest.hexdigest()


def digest_texts(digests: npt.NDArray[np.uint8], there: npt.NDArray[np.bool_]) -> Iterator[str]:
    """Yield SHA-256 as text, ``missing`` for files that were not there.

    Args:
        digests: uint8, shape (n, 32).
        there: Which files could be read, shape (n,).
    """
    for start in range(0, len(digests), _TEXTS):
        text = digests[start : start + _TEXTS].tobytes().hex()
        for k, found in enumerate(there[start : start + _TEXTS].tolist()):
            yield text[k * 2 * _DIGEST : (k + 1) * 2 * _DIGEST] if found else "missing"


class FileHashes:
    """SHA-256 of files, remembered by name, size and times of change.

    A file that is as it was when it was last read is not read again: its content has the same size
    and time of change, and so has its entry in the file system (``ctime``), which no program can
    set. So an image that was replaced by one of the same size and time (by ``tar``, ``cp -p``,
    ``rsync -t``) is read; one that was merely moved from another file system, linked or given
    other rights is read once more than need be.

    Known hashes are stored in a few files of rows (:class:`RowFiles`, 48 bytes per row), which
    processes on several machines may share.

    Args:
        folder: Where the rows are kept between processes. It may be deleted at any time: all
            that is lost is the time to read the files again.
    """

    def __init__(self, folder: Path) -> None:
        self._rows = RowFiles(folder, _ROW, "state")
        self._root = f"{folder.parent.parent}{os.sep}"
        # The newest first.
        self._known: list[tuple[KeyTable, npt.NDArray[np.uint8]]] | None = None
        self._unsaved: dict[bytes, str] = {}
        self._save_at = _UNSAVED
        self._writing = threading.Lock()

    def of(self, path: Path) -> str:
        """Return the SHA-256 of one file, or ``missing`` if it cannot be read."""
        return self.of_all([path])[0]

    def of_all(self, paths: Iterable[Path]) -> list[str]:
        """Return the SHA-256 of files, on all cores; ``missing`` where one cannot be read."""
        return list(self.each(list(paths)))

    def each(self, paths: Sequence[Path]) -> Iterator[str]:
        """Return what :meth:`of_all` does; few of the texts are in memory at a time."""
        paths = Paths.of(paths)
        digests, known = self.known_of(paths)
        unknown = np.flatnonzero(~known)
        if len(unknown):
            with ThreadPoolExecutor(cores_here()) as pool:
                found = pool.map(self._read, paths.take(unknown))
                for k, digest in zip(unknown.tolist(), found, strict=True):
                    if digest is not None:
                        digests[k] = np.frombuffer(bytes.fromhex(digest), np.uint8)
                        known[k] = True
        return digest_texts(digests, known)

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
        # The newest first: a later entry replaces an earlier one. (Entries that another thread
        # saves meanwhile are in the tables then.)
        for k in range(len(keys)) if self._unsaved else ():
            digest = self._unsaved.get(keys[k].tobytes())
            if digest is not None:
                digests[k] = np.frombuffer(bytes.fromhex(digest), np.uint8)
                known[k] = True
        for table, of_rows in list(self._tables()):
            left = np.flatnonzero(~known)
            rows = table.find(keys[left])
            digests[left[rows >= 0]] = of_rows[rows[rows >= 0]]
            known[left[rows >= 0]] = True
        return digests, known

    def remember(self, path: Path, status: os.stat_result, digest: str) -> None:
        """Keep the hash of a file that was read elsewhere.

        Args:
            path: The file.
            status: Its status from before it was read.
            digest: SHA-256 of its content.
        """
        # Not of a file that was just written: its next change might not change its times.
        changed_ns = max(status.st_mtime_ns, status.st_ctime_ns)
        if time.time_ns() - changed_ns > _SETTLED_NS:
            self._unsaved[self._state(str(path), status)] = digest
            if len(self._unsaved) >= self._save_at:
                self._save(self._save_at)

    def save(self) -> None:
        """Write new entries; a folder that is not writable is not an error."""
        self._save(1)

    def _save(self, at_least: int) -> None:
        with self._writing:
            # Another thread may have been here first.
            if len(self._unsaved) < at_least:
                return
            new = dict(self._unsaved)
            rows = np.empty(len(new), _ROW)
            rows["state"] = _bytes_of(new.keys(), _STATE)
            rows["digest"] = _bytes_of(map(bytes.fromhex, new.values()), _DIGEST)
            try:
                self._rows.add(rows)
            except OSError:
                # Not for every further one: to join them takes longer the more they are.
                self._save_at = 2 * len(new)
                return
            self._save_at = _UNSAVED
            self._tables().insert(0, _table(rows))
            # Others may have added to them meanwhile, or corrected one.
            for key, digest in new.items():
                if self._unsaved[key] == digest:
                    del self._unsaved[key]
            self._rows.put_together()

    def _tables(self) -> list[tuple[KeyTable, npt.NDArray[np.uint8]]]:
        # Read when they are asked for the first time.
        if self._known is None:
            found = [self._rows.read(file) for file in self._rows.files()]
            self._known = [_table(np.concatenate(found))] if found else []
        return self._known

    def _read(self, path: Path) -> str | None:
        try:
            status = path.stat()
            digest = hash_bytes(path.read_bytes())
        except (OSError, ValueError):
            return None
        self.remember(path, status, digest)
        return digest

    def _state_of(self, path: str) -> bytes:
        try:
            return self._state(path, os.stat(path))
        except (OSError, ValueError):
            return bytes(_STATE)  # no file has it

    def _state(self, path: str, status: os.stat_result) -> bytes:
        # The same wherever the project lies.
        text = f"{path.removeprefix(self._root)}\0{status.st_size}\0{status.st_mtime_ns}\0"
        text += str(status.st_ctime_ns)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_STATE).digest()


def _table(rows: Rows) -> tuple[KeyTable, npt.NDArray[np.uint8]]:
    # Of equal states the first counts.
    return KeyTable(np.ascontiguousarray(rows["state"])), np.ascontiguousarray(rows["digest"])


def _bytes_of(values: Iterable[bytes], width: int) -> npt.NDArray[np.uint8]:
    return np.frombuffer(b"".join(values), np.uint8).reshape(-1, width)
