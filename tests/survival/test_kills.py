"""Five kills; `make survive` does twenty."""

from kill_and_resume import survive


def test_a_killed_run_ends_as_one_that_was_never_killed(tmp_path, small_photos):
    counts = survive(tmp_path, small_photos, kills=5, seed=1)
    assert counts["kills"] == 5
    assert counts["compared runs"] >= 1
    assert counts["compared files"] >= 100
