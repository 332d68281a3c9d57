"""The files of an image store: pixels in shards, with an index each."""

import mmap
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from foldsmith.data.images import Image
from foldsmith.data.transforms.base import Compose
from foldsmith.utils.key_index import KeyTable

# Bytes of a key: SHA-256 of the file, then the applied transforms (0: none).
DIGEST, HEAD = 32, 8

# Shards that a process maps at a time: each holds a file open, of which a system may allow a
# thousand.
_MAPPED = 256

# Mapped bytes after which all pages are released. The system maps 64 KiB around each page that is
# read.
_HELD, _AROUND = 128 * 2**20, 2**16


class ShardIndex:
    """Index of the shards of a folder, as sorted numbers: 100 bytes for each image.

    Args:
        folder: The folder; it need not exist. Shards that are damaged are as if not there.

    Attributes:
        shards: Files of pixels.
        where: Shard, offset, height, width and checksum (CRC-32 of the pixels) of each version of
            an image, int64, shape (n, 5).
    """

    def __init__(self, folder: Path) -> None:
        self.shards: list[Path] = []
        keys, where = [np.zeros((0, DIGEST + HEAD), np.uint8)], [np.zeros((0, 5), np.int64)]
        for file in sorted(folder.glob("shard_*.npz")):
            pixels = file.with_suffix(".bin")
            found = _read_index(file, pixels)
            if found is None:
                continue
            of_shard, sizes, checksums = found
            ends = np.cumsum(sizes.prod(axis=1) * 3)
            starts = np.concatenate([[0], ends[:-1]])
            number = np.full(len(sizes), len(self.shards))
            self.shards.append(pixels)
            keys.append(of_shard)
            where.append(np.column_stack([number, starts, sizes, checksums]))
        self.where = np.concatenate(where)
        self._keys = KeyTable(np.concatenate(keys))

    def find(
        self, digests: npt.NDArray[np.uint8], head_key: bytes, head: Compose
    ) -> npt.NDArray[np.int64]:
        """Return the rows of ``where`` of images in the version that a head gives.

        Args:
            digests: SHA-256 of their files, uint8, shape (n, 32).
            head_key: The part of the keys that identifies the applied transforms.
            head: The head.

        Returns:
            Shape (n,); -1 for images that are not there.
        """
        rows = self._rows(digests, bytes(HEAD))
        sizes, of_image = np.unique(self.where[rows[rows >= 0], 2:4], axis=0, return_inverse=True)
        keeps = np.array([head.keeps(*size) for size in sizes.tolist()], bool)
        # A whole image is the version of a head that leaves it as it is.
        rows[rows >= 0] = np.where(keeps[of_image.ravel()], rows[rows >= 0], -1)
        left = rows < 0
        rows[left] = self._rows(digests[left], head_key)
        return rows

    def has(self, digest: bytes, head_key: bytes, head: Compose) -> bool:
        """Return whether one image is there in the version that a head gives."""
        row = self._keys.find_one(digest + bytes(HEAD))
        if row >= 0 and head.keeps(*self.where[row, 2:4].tolist()):
            return True
        return self._keys.find_one(digest + head_key) >= 0

    def _rows(self, digests: npt.NDArray[np.uint8], head: bytes) -> npt.NDArray[np.int64]:
        keys = np.empty((len(digests), DIGEST + HEAD), np.uint8)
        keys[:, :DIGEST], keys[:, DIGEST:] = digests, np.frombuffer(head, np.uint8)
        return self._keys.find(keys)


def _read_index(
    file: Path, pixels: Path
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.uint32]] | None:
    """Return keys, sizes and checksums of a shard.

    None if its index is damaged, whose archive carries checksums of its own, or its pixels are
    too few or too many.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            keys, sizes, checksums = arrays["keys"], arrays["sizes"], arrays["checksums"]
        whole = (
            (keys.dtype, keys.shape) == (np.uint8, (len(sizes), DIGEST + HEAD))
            and (sizes.dtype, sizes.shape) == (np.int64, (len(keys), 2))
            and (checksums.dtype, checksums.shape) == (np.uint32, (len(keys),))
            and pixels.stat().st_size == int(sizes.prod(axis=1).sum()) * 3 > 0
        )
    # A flipped byte may lead anywhere: no archive, another compression, a password, no memory.
    except Exception:
        return None
    return (keys, sizes, checksums) if whole else None


class ShardReader:
    """Reads pixels from shards, which are mapped when they are first read from.

    Mapped pages count as memory of the process until the system wants them back, so that a process
    would seem to grow to the size of the store. They are let go of after every so many bytes; the
    system keeps them in its cache if it has room. Plain reads hold nothing, but take two times (of
    3 KB) to thirty times (of 800 KB) as long, for each needs memory of its own.

    Args:
        shards: Files of pixels.
    """

    def __init__(self, shards: Sequence[Path]) -> None:
        self._shards = list(shards)
        self._maps: OrderedDict[int, tuple[mmap.mmap, Image]] = OrderedDict()
        self._mapped = 0

    def read(self, shard: int, offset: int, height: int, width: int) -> Image:
        """Return one image, shape (height, width, 3), read-only."""
        size = height * width * 3
        self._mapped += size + _AROUND
        if self._mapped > _HELD:
            self._let_go()
        mapped = self._maps.get(shard) or self._map(shard)
        return mapped[1][offset : offset + size].reshape(height, width, 3)

    def __getstate__(self) -> dict[str, Any]:
        # A process that does not share memory maps the files itself.
        return self.__dict__ | {"_maps": OrderedDict(), "_mapped": 0}

    def _map(self, shard: int) -> tuple[mmap.mmap, Image]:
        if len(self._maps) >= _MAPPED:
            self._maps.popitem(last=False)
        with self._shards[shard].open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # A plain array: slicing a memmap object costs ten times as much.
        self._maps[shard] = mapped, np.frombuffer(mapped, np.uint8)
        return self._maps[shard]

    def _let_go(self) -> None:
        self._mapped = 0
        if hasattr(mmap, "MADV_DONTNEED"):
            for mapped, _ in self._maps.values():
                mapped.madvise(mmap.MADV_DONTNEED)
