import multiprocessing
import os
import signal
import time

import cv2
import numpy as np
import pytest

from foldsmith.data import statistics
from foldsmith.data.cache import image_facts as facts_module
from foldsmith.data.cache import image_store as store_module
from foldsmith.data.cache.image_facts import ImageFacts, KeptFacts
from foldsmith.data.cache.image_store import ImageStore, StoreWriter
from foldsmith.data.images import decode
from foldsmith.data.near_duplicates import miniature, thumbnail
from foldsmith.data.statistics import measured_images
from foldsmith.data.transforms import Compose, LongestMaxSize
from foldsmith.utils.hashing import FileHashes

HEAD = Compose([LongestMaxSize(20)])


@pytest.fixture
def paths(tmp_path):
    """Images; the last is none."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    found = [tmp_path / "photos" / f"{k}.jpg" for k in range(40)]
    for k, path in enumerate(found):
        cv2.imwrite(str(path), rng.integers(0, 255, (14 + k % 9, 25 - k % 5, 3), np.uint8))
    found[-1].write_bytes(b"no image")
    return found


@pytest.fixture(autouse=True)
def small_files(monkeypatch, settled):
    monkeypatch.setattr(facts_module, "_IMAGES", 8)
    monkeypatch.setattr(store_module, "_SHARD_BYTES", 6000)
    # One image after another: what is done when a process is killed is known.
    monkeypatch.setattr("foldsmith.data.parallel._CHUNK", 1)
    monkeypatch.setattr("foldsmith.data.parallel._AHEAD", 1)


@pytest.fixture
def decoded(monkeypatch):
    found = []
    original = statistics.decode_fully

    def counting(data, path, intensity):
        found.append(path)
        return original(data, path, intensity)

    monkeypatch.setattr(statistics, "decode_fully", counting)
    return found


@pytest.fixture
def read(monkeypatch):
    found = []
    original = statistics.read_bytes

    def counting(path):
        found.append(path)
        return original(path)

    monkeypatch.setattr(statistics, "read_bytes", counting)
    return found


def run(folder, paths):
    hashes = FileHashes(folder / "state/hashes")
    with ImageStore(folder / "state/store", hashes).writer([HEAD]) as writer:
        found = measured_images(paths, hashes, writer, KeptFacts(folder / "state/facts"))
    hashes.save()
    return found


def assert_same(one, other):
    assert one.table.equals(other.table)
    assert one.problems == other.problems
    np.testing.assert_array_equal(one.hashes, other.hashes)
    rows = np.arange(len(one.hashes) - 1)[::-2]
    np.testing.assert_array_equal(one.thumbnails(rows), other.thumbnails(rows))


def plain(paths, folder):
    return measured_images(paths, FileHashes(folder / "none/none"))


def test_what_is_known_is_not_read_again(tmp_path, paths, decoded, read):
    expected = plain(paths, tmp_path)
    rows = np.array([30, 3, 17])
    copies = [thumbnail(miniature(decode(paths[k]))) for k in rows]
    np.testing.assert_array_equal(expected.thumbnails(rows), copies)
    decoded.clear()
    assert_same(run(tmp_path, paths), expected)
    assert sorted(decoded) == sorted(paths)
    decoded.clear()
    read.clear()
    assert_same(run(tmp_path, paths), expected)
    # What cannot be read is looked at again: it may have been mended.
    assert decoded == read == [paths[-1]]


def test_a_changed_image_is_measured_anew(tmp_path, paths, decoded):
    run(tmp_path, paths)
    cv2.imwrite(str(paths[3]), np.full((15, 15, 3), 200, np.uint8))
    # The same content under another name is known.
    paths[4] = paths[4].rename(paths[4].with_name("other.jpg"))
    decoded.clear()
    found = run(tmp_path, paths)
    assert sorted(decoded) == sorted([paths[3], paths[-1]])
    assert_same(found, plain(paths, tmp_path))


def test_a_image_that_is_replaced_by_one_of_the_same_size_and_time_is_measured(tmp_path, paths):
    def bitmap(path, value):
        cv2.imwrite(str(tmp_path / "new.bmp"), np.full((15, 15, 3), value, np.uint8))
        os.utime(tmp_path / "new.bmp", ns=(0, 10**18))
        (tmp_path / "new.bmp").replace(path)

    bitmap(paths[3], 200)
    run(tmp_path, paths)
    time.sleep(0.02)  # a tick of the file system's clock
    bitmap(paths[3], 40)
    found = run(tmp_path, paths)
    assert found.table["r_mean"][3] == 40
    assert_same(found, plain(paths, tmp_path))
    # And the other way round: the image store has both, each under its own hash.
    store = ImageStore(tmp_path / "state/store", FileHashes(tmp_path / "state/hashes"))
    assert (store.load(paths[3:4], HEAD, "decode")[0] == 40).all()
    bitmap(paths[3], 200)
    assert (store.load(paths[3:4], HEAD, "decode")[0] == 200).all()


@pytest.mark.parametrize("what", ["facts", "store"])
def test_what_is_damaged_is_found_out_again(tmp_path, paths, decoded, what):
    run(tmp_path, paths)
    expected = plain(paths, tmp_path)
    file = sorted((tmp_path / "state" / what).rglob("*.npy" if what == "facts" else "*.bin"))[1]
    file.write_bytes(file.read_bytes()[:-50])
    decoded.clear()
    assert_same(run(tmp_path, paths), expected)
    assert 3 <= len(decoded) <= 12
    decoded.clear()
    assert_same(run(tmp_path, paths), expected)
    assert decoded == [paths[-1]]


@pytest.mark.parametrize("damage", ["a bit", "zeros", "of another image"])
def test_damaged_rows_of_facts_are_never_used(tmp_path, paths, decoded, damage, capsys):
    run(tmp_path, paths)
    expected = plain(paths, tmp_path)
    file = sorted((tmp_path / "state/facts").rglob("*.npy"))[0]
    rows = np.lib.format.open_memmap(file, mode="r+")
    if damage == "a bit":
        # The mean of a channel, a little.
        rows["values"][2, 3] += 1e-9
    elif damage == "zeros":
        rows[2] = np.zeros((), rows.dtype)
    else:
        rows["hash"][2], rows["thumbnail"][2] = rows["hash"][3], rows["thumbnail"][3]
    rows.flush()
    decoded.clear()
    assert_same(run(tmp_path, paths), expected)
    # The damaged one, and the one that cannot be read.
    assert len(decoded) == 2
    assert "1 of 8 rows are damaged" in capsys.readouterr().err
    assert_same(run(tmp_path, paths), expected)
    assert "damaged" not in capsys.readouterr().err


def test_files_of_facts_are_put_together(tmp_path, paths, decoded, monkeypatch):
    monkeypatch.setattr("foldsmith.utils.row_files._FILES", 4)
    monkeypatch.setattr("foldsmith.utils.row_files._ROWS", 7)
    folder = tmp_path / "state/facts"
    for count in range(8, len(paths) + 1):
        run(tmp_path, paths[:count])
        assert len(list(folder.rglob("*.npy"))) <= 4
    kept = KeptFacts(folder)
    assert len(kept.values) == len(kept.hashes) == len(paths) - 1
    decoded.clear()
    assert_same(run(tmp_path, paths), plain(paths, tmp_path))
    assert decoded[0] == paths[-1] and len(decoded) == 1 + len(paths)


def test_many_files_of_facts_take_time_in_proportion(tmp_path, monkeypatch):
    monkeypatch.setattr(facts_module, "_IMAGES", 1)
    joined = []
    original = np.concatenate
    monkeypatch.setattr(
        np, "concatenate", lambda parts, *a, **k: joined.append(len(parts)) or original(parts)
    )
    kept = KeptFacts(tmp_path / "facts")
    for k in range(30):
        copy = np.full((16, 16, 3), k, np.uint8)
        assert kept.add(bytes([k]) * 32, ImageFacts([float(k)] * 8, None, False, k, copy)) == k
    assert len(joined) <= 2
    assert kept.values[:, 0].tolist() == kept.hashes.tolist() == list(range(30))
    assert kept.thumbnails(np.array([29, 3, 7]))[:, 0, 0, 0].tolist() == [29, 3, 7]


def _die(folder, paths, after):
    added = 0
    original = StoreWriter.add

    def add(self, versions):
        nonlocal added
        original(self, versions)
        added += 1
        if added == after:
            os.kill(os.getpid(), signal.SIGKILL)

    StoreWriter.add = add
    run(folder, paths)


def test_a_process_that_is_killed_has_lost_little(tmp_path, paths, decoded):
    process = multiprocessing.get_context("fork").Process(target=_die, args=(tmp_path, paths, 30))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    shards = sorted((tmp_path / "state").rglob("shard_*.npz"))
    kept = sum(len(np.load(shard)["keys"]) for shard in shards)
    assert 15 <= kept < 30
    assert_same(run(tmp_path, paths), plain(paths, tmp_path))
    again = decoded[: -len(paths)]
    # What a whole shard and a whole file have is not decoded again; a file has 8 images.
    assert len(paths) - 24 <= len(again) <= len(paths) - min(kept, 24)
    assert len(list((tmp_path / "state").rglob("*.part-*"))) == 0
