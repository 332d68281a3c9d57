import cv2
import numpy as np
import pytest

from foldsmith.data import images
from foldsmith.data.images import ImageStore, decode
from foldsmith.data.transforms import Compose, LongestMaxSize
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
    [
        np.full((4, 4), 128, np.uint8),
        np.full((4, 4, 3), 128 * 257, np.uint16),
        np.full((4, 4, 4), 128, np.uint8),
    ],
    ids=["grey", "16 bit", "alpha"],
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


def test_a_photo_is_decoded_once(tmp_path, monkeypatch):
    paths = [write(tmp_path / f"{k}.png", np.full((9, 9, 3), k, np.uint8)) for k in range(4)]
    calls = []
    monkeypatch.setattr(images, "decode", lambda path: calls.append(path) or decode(path))
    store = ImageStore(max_gb=0.1)
    prepare = Compose([LongestMaxSize(5)])
    for chosen in (paths[:3], paths[1:], paths):
        photos = store.load(chosen, prepare, "decode")
        assert [int(photos[k][0, 0, 0]) for k in range(len(photos))] == [
            int(path.stem) for path in chosen
        ]
    assert sorted(calls) == paths
    assert photos[0].shape == (5, 5, 3)


@pytest.mark.parametrize("room", [0, 2.5 * 300 / 2**30])
def test_photos_are_the_same_without_room_to_keep_them(tmp_path, room):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 255, (10, 10, 3), np.uint8) for _ in range(4)]
    paths = [write(tmp_path / f"{k}.png", a[:, :, ::-1]) for k, a in enumerate(arrays)]
    photos = ImageStore(room).load(paths, Compose([]), "decode")
    for k, array in enumerate(arrays):
        np.testing.assert_array_equal(photos[k], array)


def test_an_unreadable_photo_is_named(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff but no photo")
    with pytest.raises(DataError, match=r"bad\.jpg: not a readable photo"):
        ImageStore(1).load([tmp_path / "bad.jpg"], Compose([]), "decode")
