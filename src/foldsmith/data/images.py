"""Decoding photos."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from foldsmith.data.transforms import Compose
from foldsmith.errors import DataError, one_line
from foldsmith.hashing import hash_bytes

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
    return decode_bytes(_content(path), path)


class FileRead(NamedTuple):
    """What reading a file tells of it, for :meth:`FileHashes.remember`.

    Attributes:
        status: From before it was read.
        digest: SHA-256 of its content.
    """

    status: os.stat_result
    digest: str


def read_bytes(path: Path) -> tuple[npt.NDArray[np.uint8], FileRead]:
    """Read a file, once, for its content and the hash of it.

    Args:
        path: The file.

    Returns:
        The content, uint8, shape (size,), and what is to be remembered of the file.

    Raises:
        DataError: The file is missing or cannot be read.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):
        _content(path)  # says what is wrong
        return read_bytes(path)  # unless it has come this very moment
    data = _content(path)
    return data, FileRead(status, hash_bytes(data))


def _content(path: Path) -> npt.NDArray[np.uint8]:
    try:
        return np.fromfile(path, dtype=np.uint8)
    except FileNotFoundError:
        raise DataError(f"{path}: no such photo") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise DataError(f"{path}: cannot be read: {reason}") from None


def decode_bytes(data: npt.NDArray[np.uint8], path: Path) -> Image:
    """Decode the content of a file; as :func:`decode`."""
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


def read_photo(path: Path, prepare: Compose) -> Image:
    """Decode one photo and run the deterministic transforms on it."""
    # They take a generator like all transforms, but draw nothing from it.
    image: npt.NDArray[Any] = prepare(decode(path), np.random.default_rng(0))
    return image.astype(np.uint8, copy=False)
