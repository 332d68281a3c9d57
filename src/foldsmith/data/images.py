"""Decoding photos, once each."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from foldsmith.data.transforms import Compose
from foldsmith.errors import DataError, one_line

Image = npt.NDArray[np.uint8]


# OpenCV writes a paragraph to stderr for every damaged photo; decode() says it in one line.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

# First bytes of the usual formats: tells a damaged photo from a file that is none.
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"II*\0", b"MM\0*", b"BM", b"GIF8")


def decode(path: Path) -> Image:
    """Decode a photo, its EXIF orientation applied.

    Args:
        path: Any file that OpenCV reads.

    Returns:
        RGB, uint8, shape (H, W, 3). Grey and palette photos have three channels; CMYK is
        converted; alpha is dropped; 16-bit photos are scaled to 8 bits.

    Raises:
        DataError: The file is missing, empty, damaged or not a photo.
    """
    return decode_bytes(read_bytes(path), path)


def read_bytes(path: Path) -> npt.NDArray[np.uint8]:
    """Return a file's content, uint8, shape (size,).

    Raises:
        DataError: The file is missing or cannot be read.
    """
    try:
        return np.fromfile(path, dtype=np.uint8)
    except FileNotFoundError:
        raise DataError(f"{path}: no such photo") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise DataError(f"{path}: cannot be read: {reason}") from None


def decode_bytes(data: npt.NDArray[np.uint8], path: Path) -> Image:
    """Decode what :func:`read_bytes` returned; as :func:`decode`."""
    image = None
    if data.size:
        try:
            image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
        except cv2.error:
            image = None  # for instance a size beyond OpenCV's limit
    if image is None:
        if not data.size:
            reason = "an empty file"
        elif data[:4].tobytes().startswith(_SIGNATURES):
            reason = "damaged or cut short"
        else:
            reason = "not a photo"
        raise DataError(f"{path}: not a readable photo ({reason}); replace it or take its row out")
    return image.astype(np.uint8, copy=False)


class ImageStore:
    """Decoded photos in memory, shared by the folds and loader workers of one run.

    A photo is decoded once, shrunk and padded by the deterministic head of its transforms,
    and kept as long as there is room; what does not fit is decoded each time.

    Args:
        max_gb: Room in GiB; 0 keeps nothing.
    """

    def __init__(self, max_gb: float) -> None:
        self._free = int(max_gb * 2**30)
        self._kept: dict[tuple[Path, str], Image] = {}

    def load(self, paths: Sequence[Path], prepare: Compose, label: str) -> "Photos":
        """Decode photos on all cores, if there is room to keep them.

        Args:
            paths: The photos.
            prepare: Deterministic transforms to run once per photo.
            label: Text for the progress bar.

        Raises:
            DataError: A photo cannot be decoded.
        """
        key = repr(prepare)
        missing = [path for path in paths if (path, key) not in self._kept]
        if missing and self._free > 0:
            # Threads: OpenCV decodes without the interpreter lock.
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                images = pool.map(lambda path: read_photo(path, prepare), missing)
                bar = tqdm(
                    zip(missing, images, strict=True),
                    desc=label,
                    total=len(missing),
                    unit="photo",
                    leave=False,
                    disable=None,
                )
                for path, image in bar:
                    if image.nbytes > self._free:
                        self._free = 0
                        pool.shutdown(cancel_futures=True)
                        break
                    self._free -= image.nbytes
                    self._kept[path, key] = image
        return Photos(paths, [self._kept.get((path, key)) for path in paths], prepare)


class Photos:
    """A sequence of prepared photos; ``photos[i]`` is uint8 RGB, shape (H, W, 3), read-only."""

    def __init__(
        self, paths: Sequence[Path], kept: Sequence[Image | None], prepare: Compose
    ) -> None:
        self.paths = list(paths)
        self._kept = list(kept)
        self._prepare = prepare

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Image:
        kept = self._kept[index]
        return read_photo(self.paths[index], self._prepare) if kept is None else kept


def read_photo(path: Path, prepare: Compose) -> Image:
    """Decode one photo and run the deterministic transforms on it."""
    # They take a generator like all transforms, but draw nothing from it.
    image: npt.NDArray[Any] = prepare(decode(path), np.random.default_rng(0))
    return image.astype(np.uint8, copy=False)
