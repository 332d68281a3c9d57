"""What was found out about photos, kept by content: size, colours, hash, a tiny copy."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from foldsmith.atomic import remove_leftovers
from foldsmith.data.duplicates import THUMBNAIL_SIDE
from foldsmith.data.images import Image
from foldsmith.keys import KeyTable
from foldsmith.rows import RowFiles, Rows

# Another decoder may see other pixels.
_FORMAT = f"v1-opencv{cv2.__version__}"

# Photos per file: so many are lost at most when a process is killed.
_PHOTOS = 2**15

_ROW = np.dtype(
    [
        ("digest", np.uint8, 32),
        ("values", np.float64, 8),
        ("hash", np.uint64),
        ("thumbnail", np.uint8, (THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)),
    ]
)


class KeptFacts:
    """Facts about photos, in files of rows; one process at a time may have them.

    In memory is what all photos are compared by, 120 bytes for each; the tiny copies are read from
    the files.

    Args:
        folder: Where they are kept, which may be deleted whenever nothing runs; None keeps them
            in memory, for this process alone.
    """

    def __init__(self, folder: Path | None) -> None:
        self._rows: RowFiles | None = None
        self._files: list[Path | Rows] = []
        # Rows up to the end of each file.
        self._ends: list[int] = []
        self._new: list[tuple[npt.NDArray[np.uint8], Sequence[float], int, Image]] = []
        self._values = [np.zeros((0, 8))]
        self._hashes = [np.zeros(0, np.uint64)]
        digests = [np.zeros((0, 32), np.uint8)]
        if folder is not None:
            remove_leftovers(folder / _FORMAT)
            self._rows = RowFiles(folder / _FORMAT, _ROW, "digest", mapped=True)
            self._rows.put_together()
            for file in self._rows.files():
                rows = self._rows.read(file)
                digests.append(np.array(rows["digest"]))
                self._append(file, rows)
        self._table = KeyTable(np.concatenate(digests))

    @property
    def values(self) -> npt.NDArray[np.float64]:
        """Size, means and standard deviations, shape (rows, 8); of what was flushed."""
        self._values = [np.concatenate(self._values)]
        return self._values[0]

    @property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """Perceptual hashes, uint64, shape (rows,); of what was flushed."""
        self._hashes = [np.concatenate(self._hashes)]
        return self._hashes[0]

    def find(self, digests: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """Return the rows of photos that were known when this was made; -1 for others.

        Args:
            digests: SHA-256 of their files, uint8, shape (n, 32).
        """
        return self._table.find(digests)

    def find_one(self, digest: bytes) -> int:
        """Return what :meth:`find` does, of one photo."""
        return self._table.find_one(digest)

    def add(self, digest: bytes, values: Sequence[float], hash_: int, thumbnail: Image) -> int:
        """Keep what was found out about a photo; return its row."""
        self._new.append((np.frombuffer(digest, np.uint8), values, hash_, thumbnail))
        row = self._flushed + len(self._new) - 1
        if len(self._new) == _PHOTOS:
            self.flush()
        return row

    def flush(self) -> None:
        """Write what was added."""
        if not self._new:
            return
        rows = np.empty(len(self._new), _ROW)
        for name, column in zip(_ROW.names or (), zip(*self._new, strict=True), strict=True):
            rows[name] = np.stack(column)
        self._new = []
        self._append(rows if self._rows is None else self._rows.add(rows), rows)

    def thumbnails(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return the tiny copies of some photos, shape (n, 16, 16, 3)."""
        found = np.zeros((len(rows), *_ROW["thumbnail"].shape), np.uint8)
        in_file = np.searchsorted(self._ends, rows, side="right")
        for k in np.unique(in_file).tolist():
            start, file = (self._ends[k - 1] if k else 0), self._files[k]
            of_file = np.load(file, mmap_mode="r") if isinstance(file, Path) else file
            found[in_file == k] = of_file["thumbnail"][rows[in_file == k] - start]
        return found

    @property
    def _flushed(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _append(self, file: Path | Rows, rows: Rows) -> None:
        self._files.append(file)
        self._ends.append(self._flushed + len(rows))
        self._values.append(np.array(rows["values"]))
        self._hashes.append(np.array(rows["hash"]))
