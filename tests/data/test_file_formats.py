"""Images of every depth and form: decoded right, or named right; never a part in silence."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiff_files import tiff

from foldsmith.data.file_formats import has_more_images, is_deep
from foldsmith.data.images import decode_bytes, image_values
from foldsmith.data.intensity import DeepImageError, scaled
from foldsmith.data.intensity_proposal import first_range, proposed_range
from foldsmith.errors import DataError

NAME = Path("image")
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (24, 32), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)
SMOOTH = cv2.resize(COLOUR[:6, :8], (320, 240), interpolation=cv2.INTER_CUBIC)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(content, intensity=None):
    return decode_bytes(np.frombuffer(content, np.uint8), NAME, intensity)


DEEP = {
    "12 bits in a 16-bit PNG": (encoded(GREY.astype(np.uint16) * 16, "PNG"), GREY * 16.0),
    "16-bit colour PNG": (
        cv2.imencode(".png", COLOUR[..., ::-1].astype(np.uint16) * 16)[1].tobytes(),
        COLOUR * 16.0,
    ),
    "uint16": (tiff(GREY.astype(np.uint16) * 16), GREY * 16.0),
    "uint16, big-endian": (tiff(GREY.astype(np.uint16) * 16, order=">"), GREY * 16.0),
    "int16": (tiff((GREY.astype(np.int16) - 100) * 16), (GREY - 100.0) * 16),
    "uint32": (tiff(GREY.astype(np.uint32) * 9**6), GREY * 9.0**6),
    "int32": (tiff((GREY.astype(np.int32) - 99) * 9**6), (GREY - 99.0) * 9**6),
    "int8": (tiff((GREY.astype(np.int16) - 128).astype(np.int8)), GREY - 128.0),
    "float32": (tiff(GREY.astype(np.float32) / 255), GREY.astype(np.float32) / np.float32(255)),
    "float64": (tiff(GREY / 255), GREY / 255),
    "float32 colour": (tiff(COLOUR.astype(np.float32)), COLOUR * 1.0),
    "uint16 colour": (tiff(COLOUR.astype(np.uint16) * 16), COLOUR * 16.0),
    "uint16 colour and alpha": (
        tiff(np.dstack([COLOUR, GREY]).astype(np.uint16) * 16, extra=[2]),
        COLOUR * 16.0,
    ),
    "white is zero": (tiff(65535 - GREY.astype(np.uint16), photometric=0), GREY * 1.0),
    "turned": (tiff(GREY.astype(np.uint16), orientation=6), np.rot90(GREY, -1) * 1.0),
    "JPEG 2000": (encoded(GREY.astype(np.uint16) * 16, "JPEG2000"), GREY * 16.0),
    "portable map": (encoded(GREY.astype(np.uint16) * 16, "PPM"), GREY * 16.0),
}


# Formats that older versions of OpenCV do not read, and the version that is asked for.
NEWER = {"GIF": "4.12", "AVIF": "4.12", "uint32": "5.0"}


def skip_if_opencv_is_older(kind):
    """Skip the rest of a test if this OpenCV is too old for a format; the error tells so."""
    version = NEWER.get(kind, "0.0")
    here = tuple(map(int, cv2.__version__.split(".")[:2]))
    if here < tuple(map(int, version.split("."))):
        content = DEEP[kind][0] if kind in DEEP else encoded(SMOOTH, kind)
        words = rf"OpenCV {cv2.__version__}.* install opencv-python-headless {version} or later"
        with pytest.raises(DataError, match=words):
            decoded(content, (0.0, 1.0))
        pytest.skip(f"OpenCV {cv2.__version__} reads no {kind}, which the error tells")


@pytest.mark.parametrize("name", DEEP)
def test_deep_images_are_scaled_by_the_range_and_refused_without_one(name):
    skip_if_opencv_is_older(name)
    content, values = DEEP[name]
    low, high = float(values.min()), float(np.quantile(values, 0.9))
    expected = np.rint(np.clip((values - low) / (high - low), 0, 1) * 255)
    if expected.ndim == 2:
        expected = np.repeat(expected[..., None], 3, axis=2)
    np.testing.assert_array_equal(decoded(content, (low, high)), expected)
    with pytest.raises(DeepImageError, match=r"has u?(int|float)\d+ values.*intensity_range"):
        decoded(content)
    assert is_deep(content)


@pytest.mark.parametrize(
    "content",
    [
        encoded(GREY, "PNG"),
        encoded(COLOUR, "TIFF"),
        encoded(COLOUR, "JPEG"),
        encoded(COLOUR, "BMP"),
        encoded(COLOUR, "WEBP", lossless=True),
        encoded(COLOUR, "GIF"),
        encoded(COLOUR, "JPEG2000"),
        encoded(GREY > 99, "PNG"),
        encoded(GREY > 99, "TIFF", compression="group4"),
    ],
    ids=["png", "tiff", "jpeg", "bmp", "webp", "gif", "jp2", "1-bit png", "1-bit tiff"],
)
def test_images_of_8_bits_stay_as_opencv_decodes_them_whatever_the_range(content):
    skip_if_opencv_is_older("GIF" if content.startswith(b"GIF8") else "PNG")
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(decoded(content), expected)
    np.testing.assert_array_equal(decoded(content, (3.0, 7.0)), expected)


def test_alpha_is_dropped_alike_in_every_format():
    both = np.dstack([COLOUR, GREY])
    for content in (encoded(both, "PNG"), encoded(both, "TIFF"), tiff(both, extra=[2])):
        np.testing.assert_array_equal(decoded(content), COLOUR)


def test_an_avif_is_turned_as_its_exif_says():
    skip_if_opencv_is_older("AVIF")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = decoded(encoded(SMOOTH, "AVIF"))
    np.testing.assert_allclose(
        decoded(encoded(SMOOTH, "AVIF", exif=exif)), np.rot90(upright, -1), atol=2
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (bytes(5000), "zeros only"),
        (tiff(GREY.astype(np.float16)), "a TIFF of 16-bit floating-point numbers, grey"),
        (tiff(np.dstack([COLOUR, COLOUR[..., :2]]), extra=[0, 0]), "8-bit integers, 5 channels"),
        (tiff(COLOUR.astype(np.uint16), planar=2), "16-bit integers, 3 channels in separate"),
        (tiff(COLOUR[..., :2].astype(np.uint16), extra=[2]), "16-bit integers, 2 channels"),
        (encoded(COLOUR, "TGA"), "a TGA image"),
        (encoded(COLOUR, "ICO"), "an ICO image"),
        (bytes(128) + b"DICM" + bytes(99), "a DICOM file"),
        (b"\0\0\0\x18ftypheic" + bytes(99), "a HEIC image"),
        (b"\x93NUMPY" + bytes(99), "a NumPy array"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"no image at all", "not an image"),
        (tiff(np.full((4, 4), np.nan, np.float32)), "NaN"),
    ],
)
def test_other_files_are_called_by_their_names(content, words):
    with pytest.raises(DataError, match=words) as caught:
        decoded(content, (0.0, 1.0))
    assert "damaged" not in str(caught.value)


KINDS = {
    "baseline": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True}),
    "restart markers": ("JPEG", {"restart_marker_rows": 1}),
    "optimised 4:4:4": ("JPEG", {"optimize": True, "subsampling": 0}),
    "PNG": ("PNG", {}),
    "WebP": ("WEBP", {}),
    "GIF": ("GIF", {}),
    "BMP": ("BMP", {}),
    "TIFF": ("TIFF", {}),
    "LZW": ("TIFF", {"compression": "tiff_lzw"}),
    "AVIF": ("AVIF", {}),
    "JPEG 2000": ("JPEG2000", {}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["cut", "with its end mark"])
def test_truncated_images_are_refused(kind, end):
    skip_if_opencv_is_older(kind)
    format_, options = KINDS[kind]
    whole = encoded(SMOOTH, format_, **options)
    decoded(whole)
    mark = {"JPEG": b"\xff\xd9", "PNG": whole[-12:], "GIF": b";"}.get(format_, b"")
    for share in (0.34, 0.7, 0.95):
        # Of a JPEG the image data; a cut in its tables is a plain error.
        start = whole.rfind(b"\xff\xda") if format_ == "JPEG" and share > 0.5 else len(whole) // 9
        cut = whole[: start + int((len(whole) - start) * share)]
        with pytest.raises(DataError, match="truncated"):
            decoded(cut + mark if end != "cut" else cut)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    flat=st.booleans(),
    quality=st.integers(20, 100),
    subsampling=st.sampled_from([0, 1, 2]),
    progressive=st.booleans(),
    restart=st.integers(0, 3),
    grey=st.booleans(),
    junk=st.binary(max_size=40),
    fill=st.integers(0, 3),
)
def test_whole_jpegs_stay_as_opencv_decodes_them(
    height, width, flat, quality, subsampling, progressive, restart, grey, junk, fill
):
    image = np.full((height, width, 3), 128, np.uint8)
    if not flat:
        image = np.random.default_rng(height).integers(0, 256, image.shape, dtype=np.uint8)
    whole = encoded(
        image[..., 0] if grey else image,
        "JPEG",
        quality=quality,
        subsampling=subsampling,
        progressive=progressive,
        restart_marker_blocks=restart,
    )
    # Bytes 0xFF may precede a marker, and anything follow the last.
    content = whole[:-2] + b"\xff" * fill + whole[-2:] + junk
    expected = cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(decoded(content), expected)


def test_further_pages_and_frames_are_noticed():
    first, second = Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)
    for kind in ("TIFF", "GIF", "WEBP", "PNG"):
        for n, several in ((1, False), (2, True)):
            buffer = io.BytesIO()
            first.save(buffer, kind, save_all=True, append_images=[second] * (n - 1))
            assert has_more_images(buffer.getvalue()) is several, kind
    assert has_more_images(tiff(GREY, pages=3, order=">"))
    assert not has_more_images(encoded(GREY, "BMP"))


@settings(max_examples=50, deadline=None)
@given(
    dtype=st.sampled_from([np.uint16, np.int16, np.uint32, np.int32, np.float32, np.float64]),
    low=st.integers(-30_000, 30_000),
    width=st.integers(1, 70_000),
    seed=st.integers(0, 99),
)
def test_scaling_keeps_the_order_and_reaches_both_ends(dtype, low, width, seed):
    info = np.iinfo(np.int16)
    values = np.random.default_rng(seed).integers(info.min, info.max, 300)
    values = np.sort(np.append(values, [low, low + width]).clip(info.min, info.max))
    values = values.astype(dtype)
    intensity = float(low), float(low + width)
    result = scaled(values, intensity)
    wide = values.astype(np.float64)
    order = np.argsort(wide, kind="stable")
    assert (np.diff(result[order].astype(int)) >= 0).all()
    assert (result[wide <= low] == 0).all()
    assert (result[wide >= low + width] == 255).all()


def test_a_range_is_proposed_from_all_images_but_their_outliers(tmp_path):
    paths = []
    for k in range(6):
        values = np.full((40, 40), 1000 + 500 * k, np.uint16)
        values[:20] += 100
        if k == 3:
            values[0, 0] = 65535  # a hot pixel of the sensor
        paths.append(tmp_path / f"{k}.png")
        paths[-1].write_bytes(encoded(values, "PNG"))
    assert proposed_range(paths) == (1000, 3600)
    assert first_range(paths) == (1000, 3600)
    (tmp_path / "flat.tif").write_bytes(encoded((GREY / 255).astype(np.float32), "TIFF"))
    assert proposed_range([tmp_path / "flat.tif"]) == (0.0, 1.0)
    (tmp_path / "plain.png").write_bytes(encoded(GREY, "PNG"))
    (tmp_path / "none.png").write_bytes(b"")
    assert first_range([tmp_path / "plain.png", tmp_path / "none.png"]) is None
    assert image_values(paths[0]).dtype == np.uint16
