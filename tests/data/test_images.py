import cv2
import numpy as np
import pytest

from foldsmith.data.images import decode
from foldsmith.errors import DataError


def write(path, array):
    assert cv2.imwrite(str(path), array)
    return path


def test_decoding_gives_rgb(tmp_path):
    path = write(tmp_path / "a.png", np.full((3, 5, 3), (10, 20, 30), np.uint8))  # OpenCV: BGR
    image = decode(path)
    assert image.shape == (3, 5, 3)
    assert image[0, 0].tolist() == [30, 20, 10]


@pytest.mark.parametrize(
    "array",
    [np.full((4, 4), 128, np.uint8), np.full((4, 4, 4), 128, np.uint8)],
    ids=["grey", "alpha"],
)
def test_other_kinds_become_8_bit_rgb(tmp_path, array):
    image = decode(write(tmp_path / "a.png", array))
    assert image.dtype == np.uint8
    assert image.shape == (4, 4, 3)
    assert np.unique(image).tolist() == [128]


def test_exif_orientation_is_applied(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    assert decode(tmp_path / "a.jpg").shape == (20, 10, 3)


def test_an_unreadable_image_is_named(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff but no image")
    with pytest.raises(DataError, match=r"bad\.jpg: not a readable image"):
        decode(tmp_path / "bad.jpg")
