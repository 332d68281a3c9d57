"""Inspect the bytes of an image file: JPEG scans, TIFF tags, the names of other formats."""

import io
import re
import struct
import warnings
from dataclasses import dataclass

# First bytes of the formats that OpenCV reads here.
_SIGNATURES = (
    *(b"\xff\xd8\xff", b"\x89PNG", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM", b"GIF8"),
    *(
        b"\0\0\0\x0cjP  ",
        b"\xff\x4f\xff\x51",
        b"P1",
        b"P2",
        b"P3",
        b"P4",
        b"P5",
        b"P6",
        b"Pf",
        b"PF",
    ),
    *(b"#?RADIANCE", b"#?RGBE"),
)

# Formats that people have among their images, by their first bytes: (offset, bytes, name).
_OTHERS = (
    (0, b"%PDF", "a PDF document"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"SIMPLE  =", "a FITS file"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"v/1\x01", "an OpenEXR image"),
    (0, b"\0\0\x01\0", "an ICO image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (128, b"DICM", "a DICOM file"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")


def is_jpeg(data: bytes) -> bool:
    """Return whether a file begins as a JPEG."""
    return data[:3] == b"\xff\xd8\xff"


def is_tiff(data: bytes) -> bool:
    """Return whether a file begins as a TIFF, BigTIFF included."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_avif(data: bytes) -> bool:
    """Return whether a file begins as an AVIF."""
    return data[4:8] == b"ftyp" and data[8:12] in _AVIF_BRANDS


def is_deep(data: bytes) -> bool:
    """Return whether an image has more than 8 bits per channel, as far as its header tells.

    Args:
        data: The content of the file.
    """
    if data[:4] == b"\x89PNG":
        return data[24:25] == b"\x10"
    if is_tiff(data):
        tags = tiff_tags(data)
        return tags is not None and (tags.bits > 8 or tags.kind == 2)
    # JPEG 2000, portable maps and Radiance: only decoding them tells.
    return data[4:8] == b"jP  " or data[:2] in (b"P5", b"P6", b"PF", b"Pf", b"#?")


def why_unreadable(data: bytes) -> str:
    """Return why a file that OpenCV cannot decode is not an image, or which image it is.

    Args:
        data: The content of the file.

    Returns:
        Words for parentheses, such as ``truncated or damaged`` or ``a DICOM file; convert it``.
    """
    if not data:
        return "an empty file"
    if not data.strip(b"\0"):
        return "a file of zeros only: its content was never written or is lost"
    for offset, first, name in _OTHERS:
        if data[offset : offset + len(first)] == first:
            return f"{name}; convert it to PNG or TIFF"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return "a HEIC image; convert it to JPEG or PNG"
    known = data.startswith(_SIGNATURES) or is_avif(data) or _is_webp(data)
    if known:
        return "truncated or damaged"
    text = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page, not an image; download it again"
    if text.startswith((b"<svg", b"<?xml")) and b"<svg" in data[:4096].lower():
        return "an SVG drawing; convert it to PNG"
    if text.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the image; run 'git lfs pull'"
    name_of_pillow = _format_by_pillow(data)
    if name_of_pillow is not None:
        return f"a {name_of_pillow} image, which is not supported; convert it to PNG or TIFF"
    return "not an image"


def _is_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def _format_by_pillow(data: bytes) -> str | None:
    # Here, not above: only a file that cannot be read needs it.
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                return image.format
    except Exception:  # whatever a format's reader makes of odd bytes
        return None


# A marker in the entropy-coded data of a JPEG: 0xFF, but not a stuffed zero, a restart marker or
# a fill byte.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")

# Frames whose scans are Huffman-coded: baseline, extended, progressive.
_HUFFMAN = (0xC0, 0xC1, 0xC2)


@dataclass(frozen=True)
class JpegScans:
    """Where the image data of a JPEG ends.

    Attributes:
        end: Position behind the data of the last scan.
        scans: Number of scans.
    """

    end: int
    scans: int


def jpeg_scans(data: bytes) -> JpegScans | None:
    """Return where a JPEG's last scan ends.

    Args:
        data: The content of the file.

    Returns:
        None if the file ends before its end marker, or is coded otherwise than by Huffman.
    """
    position, scans = 2, 0
    while True:
        found = _MARKER.search(data, position)
        if found is None:
            return None
        marker, position = data[found.start() + 1], found.end()
        if marker == 0xD9:
            end = found.start()
            # Bytes 0xFF may fill the room before a marker.
            while data[end - 1] == 0xFF:
                end -= 1
            return JpegScans(end, scans) if scans else None
        if 0xC0 <= marker <= 0xCF and marker not in (*_HUFFMAN, 0xC4, 0xC8, 0xCC):
            return None
        if marker not in (0x01, 0xD8):
            if position + 2 > len(data):
                return None
            position += int.from_bytes(data[position : position + 2], "big")
        scans += marker == 0xDA


@dataclass(frozen=True)
class TiffTags:
    """The tags of the first image of a TIFF that decide how it is to be decoded.

    Attributes:
        bits: Bits per sample.
        samples: Samples per pixel.
        kind: Sample format: 1 unsigned, 2 signed, 3 floating point, others undefined or complex.
        photometric: 0 white is zero, 1 black is zero, 2 RGB, 3 palette, 5 CMYK, 6 YCbCr, ...
        planar: 1 if the samples of a pixel lie side by side, 2 if each has a plane of its own.
        more: Whether another image of full size follows the first.
    """

    bits: int = 1
    samples: int = 1
    kind: int = 1
    photometric: int = 1
    planar: int = 1
    more: bool = False

    @property
    def as_text(self) -> str:
        """The form of the samples, for people."""
        kind = {1: "integers", 2: "signed integers", 3: "floating-point numbers"}
        channels = "grey" if self.samples == 1 else f"{self.samples} channels"
        channels += " in separate planes" if self.samples > 1 and self.planar == 2 else ""
        return f"{self.bits}-bit {kind.get(self.kind, 'samples of an unknown kind')}, {channels}"


def tiff_tags(data: bytes) -> TiffTags | None:
    """Return the tags of a TIFF's first image; None if they cannot be read.

    Args:
        data: The content of the file.
    """
    try:
        order = "<" if data[:2] == b"II" else ">"
        big = struct.unpack_from(order + "H", data, 2)[0] == 43
        start = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
        tags, following = _directory(data, order, big, start)
        more = False
        if following:
            # Bit 0 of NewSubfileType: a smaller copy of another image.
            more = not _directory(data, order, big, following)[0].get(254, 0) & 1
    except struct.error:
        return None
    names = {258: "bits", 277: "samples", 339: "kind", 262: "photometric", 284: "planar"}
    return TiffTags(**{names[tag]: value for tag, value in tags.items() if tag in names}, more=more)


def _directory(data: bytes, order: str, big: bool, start: int) -> tuple[dict[int, int], int]:
    """Return the first value of each integer tag of an image, and where the next image is."""
    count_of, entry, offset = ("Q", 20, "Q") if big else ("H", 12, "I")
    count = struct.unpack_from(order + count_of, data, start)[0]
    first = start + struct.calcsize(order + count_of)
    tags = {}
    for position in range(first, first + entry * min(count, 4096), entry):
        tag, kind = struct.unpack_from(order + "HH", data, position)
        number = struct.unpack_from(order + offset, data, position + 4)[0]
        letter = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind)
        if letter is None or not number:
            continue
        at = position + 4 + struct.calcsize(order + offset)
        if number * struct.calcsize(letter) > struct.calcsize(offset):
            at = struct.unpack_from(order + offset, data, at)[0]
        tags[tag] = struct.unpack_from(order + letter, data, at)[0]
    return tags, struct.unpack_from(order + offset, data, first + entry * count)[0]


def has_more_images(data: bytes) -> bool:
    """Return whether a file holds further pages or frames after the first.

    Args:
        data: The content of a file that can be decoded.
    """
    if is_tiff(data):
        tags = tiff_tags(data)
        return tags is not None and tags.more
    if _is_webp(data):
        return data[12:16] == b"VP8X" and bool(data[20] & 2)
    if data[:4] == b"\x89PNG":
        return data.find(b"acTL", 0, data.find(b"IDAT")) > 0
    return data[:4] == b"GIF8" and _gif_frames(data) > 1


def _gif_frames(data: bytes) -> int:
    """Return the number of frames of a GIF; counting stops at the second."""
    try:
        position = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
        frames = 0
        while frames < 2 and data[position] != 0x3B:
            if data[position] == 0x2C:
                frames += 1
                packed = data[position + 9]
                position += 11 + (3 << (packed & 7) + 1 if packed & 0x80 else 0)
            elif data[position] == 0x21:
                position += 2
            else:
                break
            while size := data[position]:
                position += size + 1
            position += 1
    except IndexError:
        return frames
    return frames
