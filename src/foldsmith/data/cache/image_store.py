"""Decoded images on disk: decoded once for all folds, experiments and loader workers."""

import inspect
import logging
import mmap
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from foldsmith.data.cache.shards import DIGEST, HEAD, ShardIndex, ShardReader
from foldsmith.data.cache.versions import DECODER, remove_other_versions, scale_name
from foldsmith.data.images import FileRead, Image, decode_bytes, read_bytes, read_image
from foldsmith.data.intensity import IntensityRange
from foldsmith.data.parallel import on_all_cores
from foldsmith.data.transforms.base import Compose
from foldsmith.errors import DataError, OutputError
from foldsmith.utils.atomic import remove_leftovers, replacing
from foldsmith.utils.formatting import counted, size_text
from foldsmith.utils.hashing import FileHashes, hash_value
from foldsmith.utils.locking import holder, lock
from foldsmith.utils.path_list import Paths

logger = logging.getLogger(__name__)

# Another decoder, or another form of these files, begins a store of its own.
_FORMAT = f"v3-{DECODER}"

# A shard is renamed into place when it is full: so much is lost at most when a build is killed.
_SHARD_BYTES = 256 * 2**20

_SYNC_BYTES = 16 * 2**20

# Images decoded to estimate how large a store will be.
_SAMPLE = 16

# Another process may be building the same store for hours.
_WAIT_S = 24 * 3600.0


class ImageStore:
    """Images as they come out of the stored head of their transforms, memory-mapped.

    The pixels lie one image after another, each in its own size, in shards
    (``shard_00000.bin``, uint8) with an index each (``shard_00000.npz``: ``keys``, uint8,
    shape (n, 40); ``sizes``, int64, shape (n, 2), height and width; ``checksums``, uint32, shape
    (n,), the CRC-32 of the pixels of each, verified when they are first read). The key of an image
    contains the hash of its file and the transforms that were applied, so that a changed file is
    decoded again, and an image that the transforms do not change is stored once for all of them.
    Shards are
    only ever added, each renamed into place when whole. The folder may be deleted whenever
    nothing runs.

    Args:
        folder: Folder of the store; None decodes an image every time it is asked for.
        hashes: Hashes of the images' files.
        intensity: Scale of images with more than 8 bits per channel. Another scale begins a store
            of its own.
    """

    def __init__(
        self, folder: Path | None, hashes: FileHashes, intensity: IntensityRange | None = None
    ) -> None:
        name = f"{_FORMAT}{scale_name(intensity)}"
        self.folder = None if folder is None else folder / name
        self.hashes = hashes
        self.intensity = intensity

    def load(self, paths: Sequence[Path], prepare: Compose, label: str) -> "Images":
        """Return images; missing ones are decoded into the store on all cores.

        Args:
            paths: The images.
            prepare: Transforms to run once per image.
            label: Text for the progress bar.

        Raises:
            DataError: An image cannot be decoded.
            OutputError: There is too little room for the store.
        """
        paths = Paths.of(paths)
        if self.folder is None:
            return Images(paths, prepare, None, self.intensity)
        index = ShardIndex(self.folder)
        digests, known = self.hashes.known_of(paths)
        rows = np.where(known, _find(index, digests, prepare), -1)
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            with self.writer([prepare]) as writer:
                digests[missing] = writer.images(paths.take(missing), label)
            self.hashes.save()
            index = ShardIndex(self.folder)
            rows = _find(index, digests, prepare)
        if (rows < 0).any():
            raise OutputError(
                f"{self.folder}: images that were just written cannot be read; delete the folder "
                "and run the command again"
            )
        stored = Stored(index.where[rows], digests, index.shards)
        return Images(paths, prepare, stored, self.intensity)

    @contextmanager
    def writer(self, heads: Sequence[Compose]) -> Iterator["StoreWriter"]:
        """Hold the store to add images to it; waits for another process that does.

        Args:
            heads: Transforms to run once per image; each gives a version to keep.

        Yields:
            A writer for the images. They are in the store when the block ends.
        """
        assert self.folder is not None, "a store that keeps nothing cannot be filled"
        other = holder(self.folder)
        if other is not None:
            logger.info(f"waiting for process {other['pid']}, which decodes images")
        with lock(self.folder, _WAIT_S):
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.folder)
            remove_other_versions(self.folder)
            _remove_without_index(self.folder)
            with ExitStack() as stack:
                writer = StoreWriter(self.folder, self.hashes, heads, self.intensity)
                stack.push(writer.close)
                yield writer


class StoreWriter:
    """Images on their way into a store; made by :meth:`ImageStore.writer`."""

    def __init__(
        self,
        folder: Path,
        hashes: FileHashes,
        heads: Sequence[Compose],
        intensity: IntensityRange | None,
    ) -> None:
        self.heads = list(heads)
        self._intensity = intensity
        self._folder = folder
        self._hashes = hashes
        self._index = ShardIndex(folder)
        self._shard = ExitStack()
        self._file: BinaryIO | None = None
        self._keys: list[bytes] = []
        self._sizes: list[tuple[int, int]] = []
        self._checksums: list[int] = []
        # Brings pixels to the disk while the next images are decoded: at the end of a shard all
        # would have to wait for it.
        self._syncing = ThreadPoolExecutor(1)
        self._synced: Future[None] | None = None
        self._unsynced = 0

    def announce(self, paths: Sequence[Path]) -> None:
        """Say how much the store will grow, from a sample of the images.

        Args:
            paths: Images that it may lack.

        Raises:
            OutputError: There is not so much room.
        """
        paths = Paths.of(paths)
        digests, known = self._hashes.known_of(paths)
        paths = paths.take(np.flatnonzero(~(known & self.holds(digests))))
        if not len(paths):
            return
        size, read = 0, 0
        for path in paths[:: -(-len(paths) // _SAMPLE)]:
            try:
                image = read_image(path, Compose([]), self._intensity)
            except DataError:
                continue  # said when its turn comes
            read += 1
            # Versions that leave the image as it is are one.
            versions = {_head_key(head, image): head for head in self.heads}
            size += sum(_apply(head, image).nbytes for head in versions.values())
        estimate = size / max(read, 1) * len(paths)
        free = shutil.disk_usage(self._folder.parents[1]).free
        if estimate > free:
            raise OutputError(
                f"{self._folder}: {len(paths)} decoded images take about {size_text(estimate)}, "
                f"but {size_text(free)} are free; make room, lower the size of LongestMaxSize, or "
                "set globals/image_store=false, which decodes an image every time"
            )
        logger.info(f"image store: {counted(len(paths), 'image')}, about {size_text(estimate)}")

    def images(self, paths: Sequence[Path], label: str) -> npt.NDArray[np.uint8]:
        """Decode images and add them; return the hashes of their files, shape (n, 32).

        Raises:
            DataError: An image cannot be decoded.
            OutputError: There is too little room.
        """
        self.announce(paths)

        def read(path: Path) -> tuple[FileRead, list[tuple[bytes, Image]]]:
            data, file = read_bytes(path)
            if self.has(bytes.fromhex(file.digest)):
                return file, []
            return file, self.versions(file.digest, decode_bytes(data, path, self._intensity))

        digests = np.empty((len(paths), DIGEST), np.uint8)
        results = on_all_cores(read, paths, label, leave=False)
        for k, (path, (file, versions)) in enumerate(zip(paths, results, strict=True)):
            self._hashes.remember(path, *file)
            self.add(versions)
            digests[k] = np.frombuffer(bytes.fromhex(file.digest), np.uint8)
        return digests

    def holds(self, digests: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """Return of which files, uint8, shape (n, 32), the store had all versions before."""
        there = [_find(self._index, digests, head) >= 0 for head in self.heads]
        held: npt.NDArray[np.bool_] = np.all(there, axis=0)
        return held

    def has(self, digest: bytes) -> bool:
        """Return :meth:`holds` for one file."""
        return all(self._index.has(digest, _named(head), head) for head in self.heads)

    def versions(self, digest: str, image: Image) -> list[tuple[bytes, Image]]:
        """Return the versions of an image that the store lacks; called on all cores."""
        content = bytes.fromhex(digest)
        return [
            (content + key, _apply(head, image))
            for key, head in {_head_key(head, image): head for head in self.heads}.items()
            if not self._index.has(content, _named(head), head)
        ]

    def add(self, versions: Sequence[tuple[bytes, Image]]) -> None:
        """Write the versions returned by :meth:`versions`."""
        for key, image in versions:
            if self._file is None:
                self._file = self._start()
            self._file.write(image.data)
            self._keys.append(key)
            self._sizes.append((image.shape[0], image.shape[1]))
            self._checksums.append(zlib.crc32(image.data))
            self._unsynced += image.nbytes
            if self._unsynced >= _SYNC_BYTES:
                self._file.flush()
                self._synced = self._syncing.submit(os.fsync, self._file.fileno())
                self._unsynced = 0
            if self._file.tell() >= _SHARD_BYTES:
                self._finish()

    def close(self, kind: Any, error: Any, trace: Any) -> None:
        """Put the last shard into place; after an error leave it out."""
        self._syncing.shutdown()
        if kind is None and self._file is not None:
            self._finish()
        else:
            self._shard.__exit__(kind, error, trace)

    def _start(self) -> BinaryIO:
        taken = [int(path.stem[6:]) for path in self._folder.glob("shard_*.npz")]
        self._path = self._folder / f"shard_{max(taken, default=-1) + 1:05d}.bin"
        temporary = self._shard.enter_context(replacing(self._path, interruptible=True))
        return self._shard.enter_context(temporary.open("wb"))

    def _finish(self) -> None:
        if self._synced is not None:
            self._synced.result()  # before its file is closed
        # Closes and renames the file of pixels; the index comes last and makes it count.
        self._shard.close()
        keys = np.frombuffer(b"".join(self._keys), np.uint8).reshape(-1, DIGEST + HEAD)
        with replacing(self._path.with_suffix(".npz")) as temporary:
            np.savez(
                temporary,
                keys=keys,
                sizes=np.array(self._sizes, dtype=np.int64),
                checksums=np.array(self._checksums, dtype=np.uint32),
            )
        self._file, self._keys, self._sizes, self._checksums = None, [], [], []


@dataclass(frozen=True)
class Stored:
    """Where images lie in a store.

    Attributes:
        where: Shard, offset, height, width and checksum of each, int64, shape (n, 5).
        digests: SHA-256 of their files, uint8, shape (n, 32).
        shards: Files of pixels.
    """

    where: npt.NDArray[np.int64]
    digests: npt.NDArray[np.uint8]
    shards: Sequence[Path]


class Images:
    """A sequence of prepared images; ``images[i]`` is uint8 RGB, shape (H, W, 3), read-only.

    The checksum of a stored image is verified when it is read for the first time. Processes that
    share the object by a fork verify it once between them. A damaged image is decoded from its file
    each time; its shard is taken out of the store, and the next command that needs the shard
    decodes its images again.

    Args:
        paths: The images.
        prepare: The transforms that each went, or is to go, through.
        stored: Where they are stored; None if they are not.
        intensity: Scale of images with more than 8 bits per channel.
    """

    def __init__(
        self,
        paths: Paths,
        prepare: Compose,
        stored: Stored | None,
        intensity: IntensityRange | None,
    ) -> None:
        self.paths = paths
        self._prepare = prepare
        self._stored = stored
        self._intensity = intensity
        self._shards = ShardReader([] if stored is None else stored.shards)
        self._damaged: set[int] = set()
        self._verified = self._none_verified()

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def sizes(self) -> npt.NDArray[np.int64] | None:
        """Height and width of each, int64, shape (n, 2); None if they are not stored."""
        return None if self._stored is None else self._stored.where[:, 2:4]

    def __getitem__(self, index: int) -> Image:
        if self._stored is None:
            return read_image(self.paths[index], self._prepare, self._intensity)
        shard, offset, height, width, checksum = self._stored.where[index].tolist()
        try:
            image = self._shards.read(shard, offset, height, width)
            sound = self._verified[index] or zlib.crc32(image.data) == checksum
        except (OSError, ValueError):  # the shard is missing or truncated
            sound = False
        if not sound:
            return self._decoded_anew(index, shard)
        self._verified[index] = 1
        return image

    def __getstate__(self) -> dict[str, Any]:
        # Shared memory goes along with a fork alone.
        return {key: value for key, value in self.__dict__.items() if key != "_verified"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._verified = self._none_verified()

    def _none_verified(self) -> mmap.mmap:
        """Return a byte for each image, all 0, in memory that forked processes share."""
        return mmap.mmap(-1, max(1, len(self.paths)))

    def _decoded_anew(self, index: int, shard: int) -> Image:
        """Return an image from its file, as the store was made from it.

        Raises:
            DataError: The file has changed since, or cannot be decoded.
        """
        assert self._stored is not None, "only a stored image can be damaged"
        path = self.paths[index]
        if shard not in self._damaged:
            self._damaged.add(shard)
            _take_out(self._stored.shards[shard], path)
        data, file = read_bytes(path)
        if bytes.fromhex(file.digest) != self._stored.digests[index].tobytes():
            raise DataError(f"{path}: was changed while it was in use; run the command again")
        return _apply(self._prepare, decode_bytes(data, path, self._intensity))


def _take_out(pixels: Path, path: Path) -> None:
    """Take a damaged shard out of its store, by removing its index, and say so."""
    try:
        pixels.with_suffix(".npz").unlink()
    except FileNotFoundError:
        return  # another process has found the damage
    except OSError:
        pass
    logger.warning(
        f"{pixels}: is damaged, at the image {path}; its damaged images are decoded from their "
        "files, and the next command rebuilds it (if this happens again, check disk and memory)"
    )


def _remove_without_index(folder: Path) -> None:
    """Remove files of pixels that were damaged, or whose writer was killed."""
    for pixels in folder.glob("shard_*.bin"):
        if not pixels.with_suffix(".npz").exists():
            with suppress(OSError):
                pixels.unlink()


# Transforms take a generator, but those of a head draw nothing from it.
_UNUSED = np.random.default_rng(0)


def _apply(head: Compose, image: Image) -> Image:
    if head.keeps(image.shape[0], image.shape[1]):
        return image
    version: Image = head(image, _UNUSED).astype(np.uint8, copy=False)
    return version


def _head_key(head: Compose, image: Image) -> bytes:
    """Return the part of an image's key that identifies the transforms applied to it."""
    return bytes(HEAD) if head.keeps(image.shape[0], image.shape[1]) else _named(head)


def _find(
    index: ShardIndex, digests: npt.NDArray[np.uint8], head: Compose
) -> npt.NDArray[np.int64]:
    return index.find(digests, _named(head), head)


@lru_cache(maxsize=64)
def _named(head: Compose) -> bytes:
    # Once per list of transforms, not per image: they do not change.
    own = [
        inspect.getsource(type(step))
        for step in head.transforms
        # Of those of the package the format knows; a project's may be edited at any time.
        if not type(step).__module__.startswith("foldsmith.")
    ]
    return bytes.fromhex(hash_value([repr(head), *own]))[:HEAD]
