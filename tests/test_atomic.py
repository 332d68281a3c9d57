import numpy as np
import pytest

from foldsmith.utils.atomic import replacing, write_npy, write_text


def test_a_failing_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "scores.csv"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_target_is_untouched_until_the_block_ends(tmp_path):
    path = tmp_path / "scores.csv"
    write_text(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_npy_round_trip_keeps_dtype_and_shape(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_npy(tmp_path / "a" / "oof.npy", array)
    read = np.load(tmp_path / "a" / "oof.npy")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, array)
