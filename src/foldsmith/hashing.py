"""Hashes of files and values: what a result was made from."""

import hashlib
import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from foldsmith.atomic import write_text
from foldsmith.errors import OutputError
from foldsmith.locking import lock

# A file this young may change again without its time showing it.
_SETTLED_NS = 2_000_000_000

# Seconds to wait for another process that writes the same store.
_WAIT_S = 30.0


def hash_value(value: Any) -> str:
    """Return the SHA-256 of plain data: dicts (in any order), lists, numbers, text."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def hash_bytes(data: Any) -> str:
    """Return the SHA-256 of a buffer."""
    return hashlib.sha256(data).hexdigest()


class FileHashes:
    """SHA-256 of files, remembered by size and time of change.

    A file whose size and time are those it was last read with is not read again.

    Args:
        store: JSON file in which they are kept between processes. It may be deleted at any
            time: all that is lost is the time to read the files again.
    """

    def __init__(self, store: Path) -> None:
        self._store = store
        self._root = store.parent.parent
        self._known = self._read()
        self._changed = False

    def of(self, path: Path) -> str:
        """Return the SHA-256 of one file, or ``missing`` if it cannot be read."""
        return self.of_all([path])[0]

    def of_all(self, paths: Iterable[Path]) -> list[str]:
        """Return the SHA-256 of files, on all cores; ``missing`` where one cannot be read."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(self._of_file, paths))

    def known(self, path: Path) -> str | None:
        """Return the SHA-256 of a file that is as it was when it was last read.

        The file is not opened: None if it has changed, was never read, or is not there.
        """
        try:
            return self._unchanged(path, path.stat())
        except (OSError, ValueError):
            return None

    def remember(self, path: Path, status: os.stat_result, digest: str) -> None:
        """Keep the hash of a file that was read elsewhere.

        Args:
            path: The file.
            status: Its status from before it was read.
            digest: SHA-256 of its content.
        """
        # Not of a file that was just written: its next change might not change its time.
        if time.time_ns() - status.st_mtime_ns > _SETTLED_NS:
            self._known[self._key(path)] = [status.st_size, status.st_mtime_ns, digest]
            self._changed = True

    def save(self) -> None:
        """Write what is known, if it has changed; a folder that takes no files is no error."""
        if self._changed:
            self._changed = False
            try:
                with lock(self._store, _WAIT_S):
                    # With what another process has found out meanwhile.
                    self._known = self._read() | self._known
                    write_text(self._store, json.dumps(self._known))
            except (OSError, OutputError):
                return

    def _read(self) -> dict[str, list[Any]]:
        try:
            known = json.loads(self._store.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(known, dict):
            return {}
        return {k: v for k, v in known.items() if isinstance(v, list) and len(v) == 3}

    def _of_file(self, path: Path) -> str:
        try:
            status = path.stat()
            known = self._unchanged(path, status)
            if known is not None:
                return known
            digest = hash_bytes(path.read_bytes())
        except (OSError, ValueError):
            return "missing"
        self.remember(path, status, digest)
        return digest

    def _unchanged(self, path: Path, status: os.stat_result) -> str | None:
        known = self._known.get(self._key(path))
        if known is not None and known[:2] == [status.st_size, status.st_mtime_ns]:
            return str(known[2])
        return None

    def _key(self, path: Path) -> str:
        return str(path.relative_to(self._root)) if path.is_relative_to(self._root) else str(path)
