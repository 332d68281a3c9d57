import numpy as np
import pytest

from foldsmith.data.cache.image_store import ImageStore
from foldsmith.data.datasets import ImageDataset, stored_head
from foldsmith.data.images import decode
from foldsmith.data.loose_images import ImagesAtHand, find_images
from foldsmith.data.transforms import LongestMaxSize, Normalize, PadIfNeeded, Resize
from foldsmith.errors import DataError
from foldsmith.utils.hashing import FileHashes


def test_files_folders_and_patterns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.png", "b/10.PNG", "b/c/1.webp", "d/1.jpg", "[x].jpg", "b/.hidden.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b/notes.txt").touch()

    def found(*names):
        return [path.as_posix() for path in find_images(names)]

    assert found("b") == ["b/10.PNG", "b/2.png", "b/c/1.webp"]
    # What is named is taken whatever it is called, in this order, once.
    assert found("d/1.jpg", "none", "b/notes.txt", "./d/1.jpg") == [
        *("d/1.jpg", "none", "b/notes.txt")
    ]
    assert found("b/*.png") == ["b/2.png"]
    assert found("**/1.*") == ["b/c/1.webp", "d/1.jpg"]
    assert found("b/*") == ["b/10.PNG", "b/2.png", "b/notes.txt"]
    # Folders that a pattern fits are folders; brackets may be a name's own.
    assert found("[bd]") == ["b/10.PNG", "b/2.png", "b/c/1.webp", "d/1.jpg"]
    assert found("[x].jpg") == ["[x].jpg"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: holds no images \(jpg"):
        found("d", "empty")
    with pytest.raises(DataError, match=r"e\*/x: no file has such a name"):
        found("e*/x")


def test_images_are_those_of_a_store(write_images):
    paths = write_images(5, 30, 20)
    lists = [
        [LongestMaxSize(16), PadIfNeeded(16, 16), Normalize([0.5] * 3, [0.2] * 3)],
        [Resize(12, 12), Normalize([0.5] * 3, [0.2] * 3)],
        [LongestMaxSize(99)],
    ]
    at_hand = ImagesAtHand([stored_head(transforms) for transforms in lists])
    for path in paths:
        at_hand.add(at_hand.versions(decode(path)))
    assert len(at_hand) == 5
    assert at_hand.n_bytes == 5 * 3 * (16 * 11 + 12 * 12 + 30 * 20)
    store = ImageStore(None, FileHashes(paths[0].parent / "hashes.json"))
    keys = [(0, k) for k in range(5)]
    for transforms in lists:
        one, other = (
            ImageDataset(source, paths, np.arange(5), None, transforms, seed=0)
            for source in (at_hand, store)
        )
        assert one.images.sizes.tolist() == [list(one.images[0].shape[:2])] * 5
        found, wanted = one[keys[0]].views[0], other[keys[0]].views[0]
        np.testing.assert_array_equal(found, wanted)
        batch = one.__getitems__(keys), other.__getitems__(keys)
        np.testing.assert_array_equal(batch[0].views[0], batch[1].views[0])


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("far/1.jpg", "far/deep/2.jpg", "here/own/3.jpg", "here/own/4.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "here/a").symlink_to(tmp_path / "far", target_is_directory=True)
    # Back to itself, round about, and twice to one folder.
    (tmp_path / "here/own/back").symlink_to("..", target_is_directory=True)
    (tmp_path / "far/deep/round").symlink_to(tmp_path / "here", target_is_directory=True)
    (tmp_path / "here/z").symlink_to(tmp_path / "far/deep", target_is_directory=True)
    (tmp_path / "here/0").symlink_to("own", target_is_directory=True)
    (tmp_path / "here/nothing").symlink_to("nowhere", target_is_directory=True)
    (tmp_path / "here/5.jpg").symlink_to(tmp_path / "far/1.jpg")
    assert [path.as_posix() for path in find_images(["here"])] == [
        *("here/5.jpg", "here/a/1.jpg", "here/a/deep/2.jpg", "here/own/3.jpg", "here/own/4.jpg")
    ]
    (tmp_path / "there").symlink_to("far", target_is_directory=True)
    assert len(find_images(["there"])) == 5  # through far/deep/round, what is in here too
