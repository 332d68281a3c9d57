import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from foldsmith.data.cache import image_store as store_module
from foldsmith.data.cache import shards
from foldsmith.data.cache.image_store import ImageStore
from foldsmith.data.images import decode
from foldsmith.data.transforms import CenterCrop, Compose, LongestMaxSize
from foldsmith.errors import DataError, OutputError
from foldsmith.utils.hashing import FileHashes

SMALL = Compose([LongestMaxSize(20)])


@pytest.fixture
def paths(tmp_path, settled):
    """Images of 12 to 41 px."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    found = []
    for k in range(30):
        found.append(tmp_path / "photos" / f"{k}.jpg")
        cv2.imwrite(str(found[-1]), rng.integers(0, 255, (12 + k, 41 - k, 3), np.uint8))
    return found


def open_store(folder):
    return ImageStore(folder / "store", FileHashes(folder / "hidden" / "hashes.json"))


def expected(path, head):
    return head(decode(path), np.random.default_rng(0))


def assert_holds(images, paths, head):
    assert len(images) == len(paths)
    for k, path in enumerate(paths):
        np.testing.assert_array_equal(images[k], expected(path, head))


def sizes(folder):
    return sorted(path.stat().st_size for path in folder.rglob("shard_*.bin"))


@pytest.mark.parametrize("head", [SMALL, Compose([]), Compose([CenterCrop(9, 9)])])
def test_stored_images_are_those_that_are_decoded(tmp_path, paths, head):
    assert_holds(open_store(tmp_path).load(paths, head, "decode"), paths, head)
    # Those of another process, in another order.
    assert_holds(open_store(tmp_path).load(paths[::-2], head, "decode"), paths[::-2], head)
    none = ImageStore(None, FileHashes(tmp_path / "hidden" / "hashes.json"))
    assert_holds(none.load(paths, head, "decode"), paths, head)


def test_a_image_is_decoded_once(tmp_path, paths, monkeypatch):
    decoded = []
    original = store_module.decode_bytes
    monkeypatch.setattr(
        store_module,
        "decode_bytes",
        lambda data, path, *args: decoded.append(path) or original(data, path, *args),
    )
    for chosen in (paths[:20], paths[10:], paths):
        images = open_store(tmp_path).load(chosen, SMALL, "decode")
        assert_holds(images, chosen, SMALL)
    assert sorted(decoded) == sorted(paths)


def test_a_image_that_two_experiments_leave_as_it_is_lies_there_once(tmp_path, paths):
    store = open_store(tmp_path)
    with store.writer([Compose([LongestMaxSize(41)]), Compose([LongestMaxSize(30)])]) as writer:
        writer.images(paths, "decode")
    arrays = [decode(path) for path in paths]
    shrunk = [expected(path, Compose([LongestMaxSize(30)])) for path in paths]
    assert sizes(tmp_path) == [
        sum(a.nbytes for a in arrays)
        + sum(s.nbytes for a, s in zip(arrays, shrunk, strict=True) if a.shape != s.shape)
    ]
    for side in (41, 30, 100):
        head = Compose([LongestMaxSize(side)])
        assert_holds(open_store(tmp_path).load(paths, head, "decode"), paths, head)
    # Nothing was added: every version was there.
    assert len(sizes(tmp_path)) == 1


def test_a_changed_image_is_decoded_anew(tmp_path, paths):
    open_store(tmp_path).load(paths, SMALL, "decode")
    cv2.imwrite(str(paths[3]), np.full((15, 15, 3), 200, np.uint8))
    images = open_store(tmp_path).load(paths, SMALL, "decode")
    assert images[3].shape == (15, 15, 3)
    assert_holds(images, paths, SMALL)


def test_a_image_of_the_same_content_is_found_under_another_name(tmp_path, paths):
    open_store(tmp_path).load(paths, SMALL, "decode")
    before = sizes(tmp_path)
    renamed = paths[0].rename(paths[0].with_name("other.jpg"))
    assert_holds(open_store(tmp_path).load([renamed], SMALL, "decode"), [renamed], SMALL)
    assert sizes(tmp_path) == before


@pytest.mark.parametrize("damage", ["cut", "gone", "index"])
def test_a_damaged_shard_is_built_again(tmp_path, paths, damage):
    open_store(tmp_path).load(paths, SMALL, "decode")
    (pixels,) = tmp_path.rglob("shard_*.bin")
    if damage == "cut":
        pixels.write_bytes(pixels.read_bytes()[:-100])
    elif damage == "gone":
        pixels.unlink()
    else:
        pixels.with_suffix(".npz").write_bytes(b"no archive")
    assert_holds(open_store(tmp_path).load(paths, SMALL, "decode"), paths, SMALL)


def test_an_index_that_is_damaged_anywhere_is_as_if_not_there(tmp_path, paths):
    open_store(tmp_path).load(paths[:3], SMALL, "decode")
    (pixels,) = tmp_path.rglob("shard_*.bin")
    index = pixels.with_suffix(".npz")
    whole = index.read_bytes()
    cut = [whole[:size] for size in (0, 1, len(whole) // 2, len(whole) - 1)]
    zeros = [whole[:size] + bytes(len(whole) - size) for size in (0, len(whole) // 2)]
    flipped = [
        whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :]
        for at in range(len(whole))
        for bit in (1, 16)
    ]
    where = shards.ShardIndex(pixels.parent).where
    dropped = 0
    for content in [*cut, *zeros, *flipped]:
        index.write_bytes(content)
        found = shards.ShardIndex(pixels.parent)
        # Some bytes mean nothing, as the time that the archive was made.
        assert not len(found.where) or np.array_equal(found.where, where)
        dropped += not len(found.where)
    assert dropped > 0.5 * len(flipped)
    for content in (whole[: len(whole) // 2], zeros[1], b""):
        index.write_bytes(content)
        assert_holds(open_store(tmp_path).load(paths[:3], SMALL, "decode"), paths[:3], SMALL)
        index.unlink()


@pytest.fixture
def damaged(tmp_path, paths, request):
    """A store of which something was changed behind its back; its shards."""
    open_store(tmp_path).load(paths[:15], SMALL, "decode")
    open_store(tmp_path).load(paths[15:], SMALL, "decode")
    first, second = sorted(tmp_path.rglob("shard_*.bin"))
    content = bytearray(first.read_bytes())
    if request.param == "a byte":
        content[len(content) // 2] ^= 1
    elif request.param == "a page of zeros":
        content[100:4196] = bytes(len(content[100:4196]))
    elif request.param == "the pixels of others":
        other = second.read_bytes()
        content = (other * 9)[: len(content)]
    else:
        first.with_suffix(".npz").write_bytes(second.with_suffix(".npz").read_bytes())
        content = second.read_bytes()
    first.write_bytes(content)
    return [first, second]


DAMAGE = ["a byte", "a page of zeros", "the pixels of others", "another's index and pixels"]


@pytest.mark.parametrize("damaged", DAMAGE, indirect=True)
def test_damaged_images_are_never_used(tmp_path, paths, damaged, capsys):
    images = open_store(tmp_path).load(paths, SMALL, "decode")
    assert_holds(images, paths, SMALL)
    assert_holds(images, paths, SMALL)
    lines = capsys.readouterr().err.splitlines()
    told = [line for line in lines if "is damaged, at the image" in line]
    # A shard that was replaced as a whole is sound, and its images are decoded anew.
    assert len(told) == (0 if damaged[0].with_suffix(".npz").exists() else 1)
    # The next command rebuilds the shard, and finds nothing to say.
    assert_holds(open_store(tmp_path).load(paths, SMALL, "decode"), paths, SMALL)
    assert "damaged" not in capsys.readouterr().err
    kept = sum(len(np.load(index)["keys"]) for index in tmp_path.rglob("shard_*.npz"))
    assert kept >= len(paths)


def test_processes_that_share_memory_verify_a_image_once(tmp_path, paths):
    images = open_store(tmp_path).load(paths, SMALL, "decode")

    def read():
        assert_holds(images, paths, SMALL)

    process = multiprocessing.get_context("fork").Process(target=read)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert bytes(images._verified) == b"\1" * len(paths)


def test_a_image_that_was_changed_meanwhile_does_not_stand_in_for_a_damaged_one(tmp_path, paths):
    images = open_store(tmp_path).load(paths, SMALL, "decode")
    (pixels,) = tmp_path.rglob("shard_*.bin")
    pixels.write_bytes(bytes(pixels.stat().st_size))
    paths[3].write_bytes(paths[4].read_bytes())
    with pytest.raises(DataError, match=r"3\.jpg: was changed while it was in use"):
        images[3]
    pixels.unlink()  # mapped or not, an image whose shard is gone is decoded
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(images))[4], expected(paths[4], SMALL))


def test_another_range_has_a_store_of_its_own_and_the_old_one_goes(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.full((8, 8), 1000, np.uint16))
    for intensity, value in (((0, 2000), 128), ((0, 4000), 64), ((0, 4000), 64)):
        hashes = FileHashes(tmp_path / "hidden" / "hashes.json")
        store = ImageStore(tmp_path / "store", hashes, intensity)
        assert (store.load([path], SMALL, "decode")[0] == value).all()
        assert [folder for folder in store.folder.parent.iterdir() if folder.is_dir()] == [
            store.folder
        ]


def test_many_shards(tmp_path, paths, monkeypatch):
    monkeypatch.setattr(store_module, "_SHARD_BYTES", 2000)
    images = open_store(tmp_path).load(paths, SMALL, "decode")
    assert len(sizes(tmp_path)) > 5
    assert_holds(images, paths, SMALL)
    assert_holds(open_store(tmp_path).load(paths, SMALL, "decode"), paths, SMALL)


def test_few_shards_are_mapped_at_a_time_and_none_before_it_is_read(tmp_path, paths, monkeypatch):
    monkeypatch.setattr(store_module, "_SHARD_BYTES", 2000)
    monkeypatch.setattr(shards, "_MAPPED", 3)
    # Pages are let go of after every other image, while views of them are held.
    monkeypatch.setattr(shards, "_HELD", 1500)
    monkeypatch.setattr(shards, "_AROUND", 0)
    images = open_store(tmp_path).load(paths, SMALL, "decode")
    maps = images._shards._maps
    assert len(maps) == 0
    held = [images[k] for k in range(len(paths))]
    assert len(maps) == 3
    for image, path in zip(held, paths, strict=True):
        np.testing.assert_array_equal(image, expected(path, SMALL))
    assert_holds(images, paths, SMALL)


def test_neighbours_of_the_table_are_neighbours_in_the_store(tmp_path, paths, monkeypatch):
    monkeypatch.setattr(store_module, "_SHARD_BYTES", 2000)
    images = open_store(tmp_path).load(paths, SMALL, "decode")
    places = [tuple(row) for row in images._stored.where[:, :2].tolist()]
    assert places == sorted(places)


def test_a_process_that_shares_no_memory_maps_the_files(tmp_path, paths):
    images = open_store(tmp_path).load(paths, SMALL, "decode")
    packed = pickle.dumps(images)
    assert len(packed) < sum(sizes(tmp_path)) / 2
    assert_holds(pickle.loads(packed), paths, SMALL)


def _load(folder, paths, results):
    images = open_store(folder).load(paths, SMALL, "decode")
    results.put([images[k].tobytes() for k in range(len(images))])


def test_two_processes_build_one_store(tmp_path, paths):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_load, args=(tmp_path, paths, results)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found[0] == found[1] == found[2] == [expected(p, SMALL).tobytes() for p in paths]
    assert sizes(tmp_path) == [sum(expected(path, SMALL).nbytes for path in paths)]


BUILD = """
import sys, time
from pathlib import Path
from foldsmith.data.cache import image_store as store
from tests_store import open_store, SMALL

store._SHARD_BYTES = 2000
original = store.StoreWriter.add
def slow(self, versions):
    original(self, versions)
    time.sleep(0.05)
store.StoreWriter.add = slow
folder = Path(sys.argv[1])
open_store(folder).load(sorted((folder / "photos").glob("*.jpg")), SMALL, "decode")
"""


def test_a_build_that_is_killed_goes_on_with_the_next(tmp_path, paths):
    shutil.copyfile(__file__, tmp_path / "tests_store.py")
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD, str(tmp_path)], cwd=tmp_path, env={**os.environ}
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.rglob("shard_*.npz"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = sizes(tmp_path)
    images = open_store(tmp_path).load(paths, SMALL, "decode")
    assert_holds(images, paths, SMALL)
    # What was whole has been kept, what was not is gone.
    after = sizes(tmp_path)
    assert sum(after) == sum(expected(path, SMALL).nbytes for path in paths)
    assert all(size in after for size in before)
    assert not list(tmp_path.rglob("*.part-*"))


def test_the_size_is_said_before(tmp_path, paths, capsys):
    open_store(tmp_path).load(paths, SMALL, "decode")
    assert capsys.readouterr().out == "image store: 30 images, about 0 MiB\n"
    open_store(tmp_path).load(paths, SMALL, "decode")
    assert capsys.readouterr().out == ""


def test_too_little_room_is_said_before_anything_is_written(tmp_path, paths, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match="30 decoded images take about .*image_store=false"):
        open_store(tmp_path).load(paths, SMALL, "decode")
    assert sizes(tmp_path) == []


def test_an_unreadable_image_is_named(tmp_path, paths):
    paths[4].write_bytes(b"\xff\xd8\xff but no image")
    with pytest.raises(DataError, match=r"4\.jpg: not a readable image"):
        open_store(tmp_path).load(paths, SMALL, "decode")
    paths[4].unlink()
    with pytest.raises(DataError, match=r"4\.jpg: no such image"):
        open_store(tmp_path).load(paths, SMALL, "decode")
    rest = paths[:4] + paths[5:]
    assert_holds(open_store(tmp_path).load(rest, SMALL, "decode"), rest, SMALL)
