"""Which files of a folder are images: one list for all commands."""

import os

import cv2
import numpy as np
import pytest

from foldsmith.data.images import decode
from foldsmith.data.loose_images import find_images
from foldsmith.errors import DataError
from foldsmith.project.image_files import IMAGE_SUFFIXES, LeftOut, walk_images

# Names under which OpenCV writes the same format.
SAME = {".jfif": ".jpg"}


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_suffix_is_of_a_format_that_is_decoded(tmp_path, suffix):
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    grey = suffix in (".pgm", ".pbm")
    _, data = cv2.imencode(SAME.get(suffix, suffix), image[..., 0] if grey else image)
    path = tmp_path / f"x{suffix}"
    path.write_bytes(data.tobytes())
    assert decode(path).shape == (64, 64, 3)


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_hidden_and_systems_files_are_no_images_and_others_are_counted(tmp_path):
    kept = ["a.JPG", "b/c.jfif", "b/d.GIF", "e.f.png"]
    touch(tmp_path, *kept, "._a.jpg", "b/.x.png", ".cache/y.jpg", "@eaDir/a.jpg", "Thumbs.db")
    touch(tmp_path, "__MACOSX/._a.jpg", ".DS_Store", "x.heic", "b/y.HEIC", "notes", "t.csv")
    left_out = LeftOut()
    found = sorted(
        path.relative_to(tmp_path).as_posix() for path in walk_images(tmp_path, left_out)
    )
    assert found == kept
    assert str(left_out) == "2 .heic, 1 without suffix, 1 .csv, 2 hidden images"


def test_links_to_folders_are_followed_once(tmp_path):
    touch(tmp_path, "far/1.jpg", "here/2.jpg")
    os.symlink(tmp_path / "far", tmp_path / "here/link")
    os.symlink(tmp_path / "here", tmp_path / "here/loop")
    found = [path.name for path in walk_images(tmp_path / "here", LeftOut())]
    assert sorted(found) == ["1.jpg", "2.jpg"]


def test_predict_names_what_it_leaves_out(tmp_path, capsys):
    touch(tmp_path, "a.jfif", "b.heic", "c.heic")
    assert [path.name for path in find_images([tmp_path])] == ["a.jfif"]
    assert f"warning: {tmp_path}: not taken for images: 2 .heic" in capsys.readouterr().err
    touch(tmp_path / "none", "b.heic")
    with pytest.raises(DataError, match=r"holds no images \(jpg, .*; it holds 1 \.heic"):
        find_images([tmp_path / "none"])
