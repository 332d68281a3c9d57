import pickle
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from foldsmith.utils.key_index import KeyTable
from foldsmith.utils.path_list import Paths

NAMES = st.lists(st.text("ab./é \udc80\ud800", max_size=6), max_size=12)


@given(NAMES, st.none() | st.sampled_from([Path("/data/a"), Path("x")]))
def test_they_are_what_a_list_of_paths_is(names, root):
    expected = [Path(name) if root is None else root / name for name in names]
    paths = Paths(root, names)
    assert list(paths) == [paths[k] for k in range(len(paths))] == expected
    assert [Path(text) for text in paths.texts()] == expected
    assert list(paths[1::2]) == expected[1::2]
    assert list(paths[::-1]) == expected[::-1]
    assert list(paths + paths[:3]) == expected + expected[:3]
    assert list(pickle.loads(pickle.dumps(paths))) == expected
    assert list(paths.take(np.arange(len(names))[::-1])) == expected[::-1]


def test_names_are_relative_to_the_root():
    root = Path("/data")
    names = ["photos/1.jpg", "/data/photos/2.jpg", "./photos//3.jpg", "/elsewhere/4.jpg"]
    expected = ["photos/1.jpg", "photos/2.jpg", "photos/3.jpg", "/elsewhere/4.jpg"]
    assert list(Paths(root, names).names()) == expected


@given(
    st.lists(st.binary(min_size=16, max_size=16), max_size=20),
    st.lists(st.binary(min_size=16, max_size=16), max_size=20),
)
def test_keys_are_found(there, others):
    # Swapped halves have the same number, and are other keys.
    others += [key[8:] + key[:8] for key in there]
    there = there + [key[8:] + key[:8] for key in there[::2]]
    table = KeyTable(np.frombuffer(b"".join(there), np.uint8).reshape(-1, 16))
    wanted = [*there, *others]
    expected = [there.index(key) if key in there else -1 for key in wanted]
    keys = np.frombuffer(b"".join(wanted), np.uint8).reshape(-1, 16)
    assert table.find(keys).tolist() == expected
    assert [table.find_one(key) for key in wanted] == expected
