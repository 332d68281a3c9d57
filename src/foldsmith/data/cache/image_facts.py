"""Facts about images, kept by content: size, colours, values, hash, a tiny copy."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from foldsmith.data.cache.versions import DECODER, remove_other_versions, scale_name
from foldsmith.data.images import Image
from foldsmith.data.intensity import IntensityRange, ValueRange
from foldsmith.data.near_duplicates import THUMBNAIL_SIDE
from foldsmith.utils.atomic import remove_leftovers
from foldsmith.utils.key_index import KeyTable
from foldsmith.utils.row_files import RowFiles, Rows

# Another decoder may see other pixels.
_FORMAT = f"v2-{DECODER}"

# Images per file, and so the largest number that is lost when a process is killed.
_IMAGES = 2**15

_ROW = np.dtype(
    [
        ("digest", np.uint8, 32),
        ("values", np.float64, 8),
        # Of deeper images the lowest and highest value, and the share that is clipped; else NaN.
        ("range", np.float64, 3),
        # 1 if there are further pages or frames.
        ("more", np.uint64),
        ("hash", np.uint64),
        ("thumbnail", np.uint8, (THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)),
    ]
)


class ImageFacts(NamedTuple):
    """Facts about one image.

    Attributes:
        values: Height, width, means and standard deviations, 8 numbers.
        range: The values of an image with more than 8 bits per channel; None for others.
        more: Whether its file holds further pages or frames.
        hash: Perceptual hash.
        thumbnail: Tiny copy, uint8, shape (16, 16, 3).
    """

    values: Sequence[float]
    range: ValueRange | None
    more: bool
    hash: int
    thumbnail: Image


class KeptFacts:
    """Facts about images, in files of rows; one process at a time may have them.

    In memory is what all images are compared by, 150 bytes for each; the tiny copies are read from
    the files.

    Args:
        folder: Where they are kept, which may be deleted whenever nothing runs; None keeps them
            in memory, for this process alone.
        intensity: Scale of images with more than 8 bits per channel.
    """

    def __init__(self, folder: Path | None, intensity: IntensityRange | None = None) -> None:
        self._rows: RowFiles | None = None
        self._files: list[Path | Rows] = []
        # Rows up to the end of each file.
        self._ends: list[int] = []
        self._new: list[tuple[bytes, ImageFacts]] = []
        self._values = [np.zeros((0, 8))]
        self._hashes = [np.zeros(0, np.uint64)]
        self._ranges = [np.zeros((0, 3))]
        self._more = [np.zeros(0, bool)]
        digests = [np.zeros((0, 32), np.uint8)]
        if folder is not None:
            folder = folder / f"{_FORMAT}{scale_name(intensity)}"
            remove_other_versions(folder)
            remove_leftovers(folder)
            self._rows = RowFiles(folder, _ROW, "digest", mapped=True)
            self._rows.put_together()
            for file in self._rows.files():
                rows = self._rows.read(file)
                digests.append(np.array(rows["digest"]))
                # Rows of their own: some were damaged, and the file may still hold them.
                self._append(file if isinstance(rows, np.memmap) else rows, rows)
        self._table = KeyTable(np.concatenate(digests))

    @property
    def values(self) -> npt.NDArray[np.float64]:
        """Size, means and standard deviations of the flushed rows, shape (rows, 8)."""
        self._values = [np.concatenate(self._values)]
        return self._values[0]

    @property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """Perceptual hashes of the flushed rows, uint64, shape (rows,)."""
        self._hashes = [np.concatenate(self._hashes)]
        return self._hashes[0]

    @property
    def ranges(self) -> npt.NDArray[np.float64]:
        """Lowest and highest value and the clipped share, shape (rows, 3); NaN for 8-bit images."""
        self._ranges = [np.concatenate(self._ranges)]
        return self._ranges[0]

    @property
    def more(self) -> npt.NDArray[np.bool_]:
        """Whether the flushed rows have further pages or frames, shape (rows,)."""
        self._more = [np.concatenate(self._more)]
        return self._more[0]

    def find(self, digests: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """Return the rows of images that were known when this was made; -1 for others.

        Args:
            digests: SHA-256 of their files, uint8, shape (n, 32).
        """
        return self._table.find(digests)

    def find_one(self, digest: bytes) -> int:
        """Return :meth:`find` for one image."""
        return self._table.find_one(digest)

    def add(self, digest: bytes, facts: ImageFacts) -> int:
        """Keep the facts about an image; return its row.

        Args:
            digest: SHA-256 of its file.
            facts: The facts.
        """
        self._new.append((digest, facts))
        row = self._flushed + len(self._new) - 1
        if len(self._new) == _IMAGES:
            self.flush()
        return row

    def flush(self) -> None:
        """Write the added rows."""
        if not self._new:
            return
        rows = np.empty(len(self._new), _ROW)
        found = [facts for _, facts in self._new]
        digests = b"".join(digest for digest, _ in self._new)
        rows["digest"] = np.frombuffer(digests, np.uint8).reshape(-1, 32)
        rows["values"] = [facts.values for facts in found]
        nothing = (np.nan, np.nan, np.nan)
        rows["range"] = [
            nothing
            if facts.range is None
            else (facts.range.low, facts.range.high, facts.range.outside)
            for facts in found
        ]
        rows["more"] = [facts.more for facts in found]
        rows["hash"] = [facts.hash for facts in found]
        rows["thumbnail"] = np.stack([facts.thumbnail for facts in found])
        self._new = []
        self._append(rows if self._rows is None else self._rows.add(rows), rows)

    def thumbnails(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return the tiny copies of some images, shape (n, 16, 16, 3)."""
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
        self._ranges.append(np.array(rows["range"]))
        self._more.append(rows["more"] != 0)
