import hashlib
import multiprocessing
import os
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldsmith.utils.hashing import FileHashes, hash_texts, hash_value
from foldsmith.utils.row_files import RowFiles

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), PLAIN))
def test_the_order_of_keys_does_not_matter(value):
    assert hash_value(value) == hash_value(dict(reversed(value.items())))


@given(PLAIN, PLAIN)
def test_other_values_have_other_hashes(one, other):
    assert (hash_value(one) == hash_value(other)) == (repr(one) == repr(other)) or one == other


@pytest.fixture
def store(tmp_path):
    return tmp_path / "project/.foldsmith/hashes.json"


@pytest.fixture(autouse=True)
def all_settled(settled):
    """Files of these tests are remembered though they were just written."""


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_the_hash_is_that_of_the_content(tmp_path, store):
    path = tmp_path / "a"
    path.write_bytes(b"content")
    assert FileHashes(store).of(path) == hashlib.sha256(b"content").hexdigest()
    assert FileHashes(store).of(tmp_path / "none") == "missing"
    assert FileHashes(store).of(tmp_path) == "missing"


def test_an_unchanged_file_is_not_read_again(tmp_path, store, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"content")
    hashes = FileHashes(store)
    expected = hashes.of(path)
    hashes.save()
    read = "ab" * 32
    monkeypatch.setattr("foldsmith.utils.hashing.hash_bytes", lambda _: read)
    assert FileHashes(store).of(path) == expected
    path.touch()
    assert FileHashes(store).of(path) == read
    path.write_bytes(b"longer content")
    assert FileHashes(store).of(path) == read


def test_a_file_that_was_just_written_is_not_remembered(tmp_path, store, monkeypatch):
    monkeypatch.undo()
    path = tmp_path / "a"
    path.write_bytes(b"content")
    os.utime(path, ns=(0, 10**18))  # as an archive sets it
    hashes = FileHashes(store)
    hashes.of(path)
    assert hashes.known(path) is None
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(0, 10**18))
    assert hashes.of(path) == sha256(b"CONTENT")


@pytest.mark.parametrize("how", ["in place", "renamed over it"])
def test_a_file_that_is_replaced_by_one_of_the_same_size_and_time_is_read(tmp_path, store, how):
    path = tmp_path / "a"
    path.write_bytes(b"content")
    os.utime(path, ns=(0, 10**18))
    hashes = FileHashes(store)
    assert hashes.of(path) == sha256(b"content")
    hashes.save()
    time.sleep(0.02)  # a tick of the file system's clock
    written = path if how == "in place" else tmp_path / "other"
    written.write_bytes(b"CONTENT")
    os.utime(written, ns=(0, 10**18))
    written.replace(path)
    assert FileHashes(store).known(path) is None
    assert hashes.of(path) == FileHashes(store).of(path) == sha256(b"CONTENT")


def test_what_is_remembered_last_counts(tmp_path, store, monkeypatch):
    monkeypatch.setattr("foldsmith.utils.row_files._FILES", 5)
    path = tmp_path / "a"
    path.write_bytes(b"content")
    hashes, status = FileHashes(store), path.stat()
    for k in range(23):
        digest = sha256(b"%d" % k)
        hashes.remember(path, status, digest)
        assert hashes.known(path) == digest
        hashes.save()
        # Of this process, and of others, before and after files were put together.
        assert hashes.known(path) == FileHashes(store).known(path) == digest
        if k % 3 == 0:
            hashes = FileHashes(store)
    assert len(list(store.iterdir())) < 5


def test_what_others_are_writing_is_let_be(tmp_path, store, monkeypatch):
    monkeypatch.setattr("foldsmith.utils.row_files._FILES", 3)
    path = tmp_path / "a"
    path.write_bytes(b"content")
    hashes, status = FileHashes(store), path.stat()
    store.mkdir(parents=True)
    written, left = (store / f".0000000001-{k}.part-{k}-0123abcd.npy" for k in (1, 2))
    for file in (written, left):
        np.save(file, np.zeros((3, 48), np.uint8))
    os.utime(left, (0, time.time() - 2 * 24 * 3600))
    for k in range(7):
        hashes.remember(path, status, sha256(b"%d" % k))
        hashes.save()
    assert written.exists() and not left.exists()
    assert len(list(store.glob("[0-9]*.npy"))) < 3
    assert FileHashes(store).known(path) == sha256(b"6")


@pytest.mark.parametrize("content", [b"", b"{", b"\x93NUMPY", b"rows of another kind"])
def test_a_damaged_store_is_none(tmp_path, store, content):
    store.mkdir(parents=True)
    if content.startswith(b"rows"):
        np.save(store / "0000000001-a.npy", np.zeros((3, 7)))
    else:
        (store / "0000000001-a.npy").write_bytes(content)
    path = tmp_path / "project" / "a"
    path.write_bytes(b"content")
    hashes = FileHashes(store)
    assert hashes.of(path) == hashlib.sha256(b"content").hexdigest()
    hashes.save()
    assert FileHashes(store).known(path) == hashlib.sha256(b"content").hexdigest()


@pytest.mark.parametrize("damage", ["a bit", "zeros", "of another file"])
def test_a_damaged_row_is_never_used(tmp_path, store, settled, damage, capsys):
    store.parent.mkdir(parents=True)
    paths = [tmp_path / "project" / str(k) for k in range(5)]
    for path in paths:
        path.write_bytes(path.name.encode())
    expected = [hashlib.sha256(path.name.encode()).hexdigest() for path in paths]
    hashes = FileHashes(store)
    assert hashes.of_all(paths) == expected
    hashes.save()
    (file,) = store.glob("*.npy")
    rows = np.lib.format.open_memmap(file, mode="r+")
    if damage == "a bit":
        rows["digest"][2, 7] ^= 4
    elif damage == "zeros":
        rows[2:4] = np.zeros(2, rows.dtype)
    else:
        rows["digest"][2] = rows["digest"][3]
    rows.flush()
    assert FileHashes(store).of_all(paths) == expected
    assert "of 5 rows are damaged" in capsys.readouterr().err
    assert FileHashes(store).of_all(paths) == expected
    assert "damaged" not in capsys.readouterr().err


def test_a_folder_that_takes_no_files_is_no_error(tmp_path, store):
    store.parent.mkdir(parents=True)
    store.write_text("a file in its place")
    path = tmp_path / "a"
    path.write_bytes(b"content")
    hashes = FileHashes(store)
    digest = hashes.of(path)
    hashes.save()
    assert hashes.known(path) == digest


def test_a_folder_that_takes_no_files_is_not_tried_for_every_file(tmp_path, store, monkeypatch):
    monkeypatch.setattr("foldsmith.utils.hashing._UNSAVED", 10)
    tried = []
    original = RowFiles.add

    def add(self, rows):
        tried.append(len(rows))
        return original(self, rows)

    monkeypatch.setattr(RowFiles, "add", add)
    store.parent.mkdir(parents=True)
    store.write_text("a file in its place")
    paths = files(tmp_path / "project/photos", 100)
    hashes = FileHashes(store)
    for path in paths[:85]:
        hashes.of(path)
    assert tried == [10, 20, 40, 80]
    # It takes files again, and they are written as before.
    store.unlink()
    hashes.save()
    for path in paths[85:]:
        hashes.of(path)
    assert tried[4:] == [85, 10]
    assert FileHashes(store).known_of(paths)[1].sum() == 95


def files(folder, n):
    """Write n files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [folder / f"{k}.jpg" for k in range(n)]
    for k, path in enumerate(found):
        path.write_bytes(b"content %d" % k)
    return found


def test_many_files_at_once(tmp_path, store, monkeypatch):
    paths = files(tmp_path / "project/photos", 50)
    expected = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    # Written in between, and some not yet.
    monkeypatch.setattr("foldsmith.utils.hashing._UNSAVED", 20)
    hashes = FileHashes(store)
    assert hashes.of_all(paths[:30]) == expected[:30]
    assert len(list(store.glob("*.npy"))) == 1
    paths[3].unlink()
    expected[3] = "missing"
    assert hashes.of_all(paths) == expected
    digests, known = hashes.known_of(paths)
    assert known.tolist() == [k != 3 for k in range(50)]
    assert [d.tobytes().hex() for d in digests[known]] == [e for e in expected if e != "missing"]


def test_a_project_may_be_moved(tmp_path, store):
    paths = files(tmp_path / "project/photos", 3)
    hashes = FileHashes(store)
    hashes.of_all(paths)
    hashes.save()
    moved = (tmp_path / "project").rename(tmp_path / "elsewhere")
    hashes = FileHashes(moved / ".foldsmith/hashes.json")
    assert hashes.known_of([moved / "photos" / path.name for path in paths])[1].all()


def _remember(store, paths, failed):
    try:
        for start in range(0, len(paths), 5):
            hashes = FileHashes(store)
            hashes.of_all(paths[start : start + 5])
            hashes.save()
    except BaseException:
        failed.set()
        raise


def test_several_processes_write_at_once(tmp_path, store, monkeypatch):
    monkeypatch.setattr("foldsmith.utils.row_files._FILES", 4)
    paths = files(tmp_path / "project/photos", 120)
    context = multiprocessing.get_context("fork")
    failed = context.Event()
    processes = [
        context.Process(target=_remember, args=(store, paths[k::4], failed)) for k in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert not failed.is_set()
    hashes = FileHashes(store)
    digests, known = hashes.known_of(paths)
    assert known.all()
    for path, digest in zip(paths, digests, strict=True):
        assert digest.tobytes().hex() == sha256(path.read_bytes())
    # Few files, whatever the number of processes and of saves.
    assert len(list(store.glob("*.npy"))) <= 8


@given(st.lists(st.lists(st.text(), max_size=5), max_size=4))
def test_texts_are_hashed_as_the_value_that_they_are(lists):
    assert hash_texts(iter(map(iter, lists))) == hash_value(lists)
