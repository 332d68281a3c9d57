"""Decoding images to RGB of 8 bits."""

import io
import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from foldsmith.data.file_formats import (
    TiffTags,
    has_more_images,
    is_avif,
    is_jpeg,
    is_tiff,
    jpeg_scans,
    tiff_tags,
    why_unreadable,
)
from foldsmith.data.intensity import (
    DeepImageError,
    IntensityRange,
    ValueRange,
    scaled,
    value_range,
)
from foldsmith.data.transforms.base import Compose
from foldsmith.errors import DataError, one_line
from foldsmith.utils.hashing import hash_bytes

Image = npt.NDArray[np.uint8]

# Values of any type, as they are in the file: shape (H, W) or (H, W, 3), RGB.
_Values = npt.NDArray[Any]

# OpenCV writes a paragraph to stderr for every damaged image; decode() names it in one line.
# The call moved in OpenCV 4.13; level 0 is silent in both.
_set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
_set_log_level(0)

# Entropy-coded bytes that take the place of a JPEG's end marker. Without the marker, libjpeg fails
# when it runs out of data and does not fill the rest with grey. It reads up to 8 bytes ahead.
_FILLER = bytes((0x55, 0xAA, 0x33, 0xCC, 0x5A, 0xA5, 0x3C, 0xC3, 0x96, 0x69, 0x0F, 0xF0))


def decode(path: Path, intensity: IntensityRange | None = None) -> Image:
    """Decode an image, its EXIF orientation applied.

    Args:
        path: Any file that OpenCV reads.
        intensity: Scale of images with more than 8 bits per channel.

    Returns:
        RGB, uint8, shape (H, W, 3). Grey and palette images have three channels; CMYK is
        converted; alpha is dropped; the first of several pages or frames is returned. Deeper
        images are scaled by the range.

    Raises:
        DeepImageError: The image has more than 8 bits per channel, and there is no range.
        DataError: The file is missing, empty, truncated, damaged or not an image.
    """
    return decode_bytes(_content(path), path, intensity)


class FileRead(NamedTuple):
    """State of a file when it was read, for :meth:`FileHashes.remember`.

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
        The content, uint8, shape (size,), and the state of the file.

    Raises:
        DataError: The file is missing or cannot be read.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):
        _content(path)  # reports the problem
        return read_bytes(path)  # unless it has come this very moment
    data = _content(path)
    return data, FileRead(status, hash_bytes(data))


def _content(path: Path) -> npt.NDArray[np.uint8]:
    try:
        return np.fromfile(path, dtype=np.uint8)
    except FileNotFoundError:
        raise DataError(f"{path}: no such image") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise DataError(f"{path}: cannot be read: {reason}") from None


class Decoded(NamedTuple):
    """An image and properties of its file.

    Attributes:
        image: RGB, uint8, shape (H, W, 3).
        values: The values of an image with more than 8 bits per channel; None for others.
        more: Whether the file holds further pages or frames, which are left out.
    """

    image: Image
    values: ValueRange | None
    more: bool


def decode_bytes(
    data: npt.NDArray[np.uint8], path: Path, intensity: IntensityRange | None = None
) -> Image:
    """Decode the content of a file; as :func:`decode`."""
    return as_bytes(_values_of(data, path), path, intensity)


def decode_fully(
    data: npt.NDArray[np.uint8], path: Path, intensity: IntensityRange | None = None
) -> Decoded:
    """Decode the content of a file like :func:`decode`, and return properties of the file too."""
    values = _values_of(data, path)
    image = as_bytes(values, path, intensity)
    deep = None
    if values.dtype != np.uint8 and intensity is not None:
        deep = value_range(values, intensity)
    return Decoded(image, deep, has_more_images(data.tobytes()))


def image_values(path: Path) -> npt.NDArray[Any]:
    """Return the values of an image as they are in its file, before they are scaled to 8 bits.

    Returns:
        Shape (H, W) or (H, W, 3), RGB; uint8 for images of 8 bits per channel.

    Raises:
        DataError: The file cannot be decoded.
    """
    return _values_of(_content(path), path)


def as_bytes(values: _Values, name: object, intensity: IntensityRange | None) -> Image:
    """Return values as RGB of 8 bits.

    Args:
        values: Grey or RGB, shape (H, W) or (H, W, 3). Other dtypes than uint8 are scaled.
        name: Name of the image, for errors.
        intensity: The scale.

    Raises:
        DeepImageError: A scale is needed and missing.
        DataError: A value is NaN or infinite.
    """
    if values.dtype != np.uint8:
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DataError(
                f"{name}: has NaN or infinite values; write numbers in their place, or take its "
                "row out"
            )
        if intensity is None:
            raise DeepImageError(name, str(values.dtype))
        values = scaled(values, intensity)
    if values.ndim == 2:
        values = np.repeat(values[..., None], 3, axis=2)
    return np.ascontiguousarray(values)


def _values_of(data: npt.NDArray[np.uint8], path: Path) -> _Values:
    """Decode an image to its values as they are in the file: uint8 in RGB, or deeper ones."""
    content = data.tobytes()
    if is_jpeg(content):
        return _jpeg(content, path)
    if is_tiff(content):
        return _tiff(content, path)
    if is_avif(content):
        # Deeper ones have a known white, so that OpenCV's 8 bits are those of the format.
        values = _opencv(content, cv2.IMREAD_COLOR_RGB)
        values = None if values is None else _turned(values, _orientation(content))
    else:
        values = _opencv(content, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH)
    if values is None:
        raise _unreadable(path, _not_in_this_opencv(content) or why_unreadable(content))
    return values


def _not_in_this_opencv(content: bytes) -> str | None:
    """Return why this OpenCV reads no file of such a format, None if it does."""
    suffix = ".avif" if is_avif(content) else ".gif" if content.startswith(b"GIF8") else None
    if suffix is None or cv2.haveImageWriter(suffix):
        return None
    return (
        f"OpenCV {cv2.__version__} reads no {suffix[1:].upper()}; install "
        "opencv-python-headless 4.12 or later, or convert the image to PNG"
    )


def _jpeg(content: bytes, path: Path) -> _Values:
    """Decode a JPEG; one whose data ends before its end marker is refused."""
    scans = jpeg_scans(content)
    if scans is not None and scans.scans == 1:
        values = _opencv(content[: scans.end] + _FILLER, cv2.IMREAD_COLOR_RGB)
        if values is not None:
            return values
    values = _opencv(content, cv2.IMREAD_COLOR_RGB)
    if values is None:
        raise _unreadable(path, why_unreadable(content))
    if scans is not None and (scans.scans == 1 or not _ends_whole(content, scans.end, values)):
        raise _unreadable(path, "truncated: its data ends before the end of the image")
    return values


def _ends_whole(content: bytes, end: int, values: _Values) -> bool:
    """Return whether the last scan of a JPEG with several is whole.

    Libjpeg reads these to the end marker before it decodes. If the last scan is whole, further
    bytes before the marker do not change the image. By Pillow, as OpenCV prints a line about them.
    """
    filled = _pillow(content[:end] + _FILLER + b"\xff\xd9")
    if filled is None or np.array_equal(values, filled):
        return filled is not None
    # It is turned, CMYK, or this Pillow rounds otherwise than OpenCV.
    whole = _pillow(content)
    return whole is not None and np.array_equal(whole, filled)


def _tiff(content: bytes, path: Path) -> _Values:
    """Decode the first image of a TIFF."""
    tags = tiff_tags(content)
    if tags is None:
        raise _unreadable(path, why_unreadable(content))
    if tags.bits <= 8 and tags.kind != 2:
        values = _tiff_of_bytes(content, tags)
        supported = tags.samples <= (4 if tags.photometric in (2, 5) else 3)
    else:
        supported = _is_supported(tags)
        values = _tiff_of_numbers(content, tags) if supported else None
    if values is None:
        raise _unreadable(path, _tiff_problem(tags, supported))
    return values


def _tiff_of_bytes(content: bytes, tags: TiffTags) -> _Values | None:
    """Decode a TIFF of at most 8 bits per sample; None if it cannot be."""
    if tags.photometric != 2 or tags.samples != 4:
        return _opencv(content, cv2.IMREAD_COLOR_RGB)
    # OpenCV multiplies colours by alpha.
    values = _pillow(content)
    return None if values is None else values[..., :3]


def _is_supported(tags: TiffTags) -> bool:
    """Return whether a TIFF of more than 8 bits per sample, or of signed numbers, is decoded."""
    colour = tags.photometric == 2 and tags.samples in (3, 4) and tags.planar == 1
    grey = tags.photometric in (0, 1) and tags.samples == 1
    if not (colour or grey) or (tags.bits, tags.kind) == (16, 3):
        return False
    return tags.photometric != 0 or tags.kind == 1


def _tiff_of_numbers(content: bytes, tags: TiffTags) -> _Values | None:
    """Decode a supported TIFF of more than 8 bits per sample, or of signed numbers."""
    values = _opencv(content, cv2.IMREAD_UNCHANGED)
    if values is not None and values.ndim == 3:
        values = values[..., 2::-1]
    if values is not None and tags.photometric == 0:
        values = (2**tags.bits - 1 - values.astype(np.int64)).astype(values.dtype)
    return values


def _tiff_problem(tags: TiffTags, supported: bool) -> str:
    """Return why a TIFF was not decoded."""
    if not supported:
        return f"a TIFF of {tags.as_text}, which is not supported; convert it to grey or RGB"
    if (tags.bits, tags.kind) == (32, 1) and int(cv2.__version__.split(".")[0]) < 5:
        return (
            f"a TIFF of {tags.as_text}, which OpenCV {cv2.__version__} does not read; install "
            "opencv-python-headless 5.0 or later, or convert it to floating-point numbers"
        )
    return "truncated or damaged"


def _opencv(content: bytes, flags: int) -> _Values | None:
    try:
        values: _Values | None = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        return None  # an empty file, or for instance a size beyond OpenCV's limit
    return values


def _pillow(content: bytes) -> Image | None:
    # Here, not above: few images need it.
    from PIL import Image as PillowImage

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PillowImage.open(io.BytesIO(content)) as image:
                return np.array(image).astype(np.uint8, copy=False)
    except Exception:  # whatever a format's reader makes of odd bytes
        return None


def _orientation(content: bytes) -> int:
    """Return the EXIF orientation of an AVIF, 1 to 8: Pillow knows it, OpenCV does not."""
    from PIL import Image as PillowImage

    try:
        with PillowImage.open(io.BytesIO(content)) as image:
            return int(image.getexif().get(0x0112, 1))
    except Exception:  # a Pillow without AVIF
        return 1


def _turned(values: _Values, orientation: int) -> _Values:
    """Return an image as an EXIF orientation shows it."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values


def _unreadable(path: Path, reason: str) -> DataError:
    return DataError(f"{path}: not a readable image ({reason}); replace it or take its row out")


def read_image(path: Path, prepare: Compose, intensity: IntensityRange | None = None) -> Image:
    """Decode one image and run the deterministic transforms on it."""
    # They take a generator like all transforms, but draw nothing from it.
    image: npt.NDArray[Any] = prepare(decode(path, intensity), np.random.default_rng(0))
    return image.astype(np.uint8, copy=False)
