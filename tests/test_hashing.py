import hashlib
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldsmith.hashing import FileHashes, hash_value

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


def settle(path):
    """Make a file look as if it had been written a while ago."""
    then = time.time_ns() - 10_000_000_000
    os.utime(path, ns=(then, then))


def test_the_hash_is_that_of_the_content(tmp_path, store):
    path = tmp_path / "a"
    path.write_bytes(b"content")
    assert FileHashes(store).of(path) == hashlib.sha256(b"content").hexdigest()
    assert FileHashes(store).of(tmp_path / "none") == "missing"
    assert FileHashes(store).of(tmp_path) == "missing"


def test_an_unchanged_file_is_not_read_again(tmp_path, store, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"content")
    settle(path)
    hashes = FileHashes(store)
    expected = hashes.of(path)
    hashes.save()
    monkeypatch.setattr("foldsmith.hashing.hash_bytes", lambda _: "read")
    assert FileHashes(store).of(path) == expected
    path.touch()
    assert FileHashes(store).of(path) == "read"
    path.write_bytes(b"longer content")
    assert FileHashes(store).of(path) == "read"


def test_a_file_that_was_just_written_is_not_remembered(tmp_path, store):
    path = tmp_path / "a"
    path.write_bytes(b"content")
    hashes = FileHashes(store)
    hashes.of(path)
    status = path.stat()
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert hashes.of(path) == hashlib.sha256(b"CONTENT").hexdigest()


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '{"a": 3}'])
def test_a_damaged_store_is_none(tmp_path, store, content):
    store.parent.mkdir(parents=True)
    store.write_text(content)
    path = tmp_path / "project" / "a"
    path.write_bytes(b"content")
    assert FileHashes(store).of(path) == hashlib.sha256(b"content").hexdigest()
