"""Kills at random, and after each file that says a step is done; `make survive` does more."""

import signal

import pytest
from die_at_write import die_at_write
from kill_and_resume import RUN, compare, survive
from small_project import fresh, make_project
from warm import Command, foldsmith


@pytest.mark.slow
def test_a_killed_run_ends_as_one_that_was_never_killed(tmp_path, small_images):
    counts = survive(tmp_path, small_images, kills=3, seed=1)
    assert counts["kills"] == 3
    assert counts["compared runs"] >= 1
    assert counts["compared files"] >= 100


def test_a_run_that_was_killed_just_after_a_step_was_done(tmp_path, small_images):
    clean = make_project(tmp_path / "clean", small_images)
    assert foldsmith(clean, *RUN).returncode == 0
    project = make_project(tmp_path / "killed", small_images)
    for name in (
        "preprocess_manifest.json",
        "000/manifest.json",
        "100/fold0/manifest.json",
        "100/manifest_by_best_metric.json",
        "900/manifest.json",
    ):
        result = Command(project, *RUN, before=(die_at_write, name, "after")).finish()
        assert result.returncode == -signal.SIGKILL, (name, result.stdout, result.stderr)
    # What the last one left undone, in an interpreter with another seed of hashes.
    assert fresh(project, *RUN).returncode == 0
    assert compare(clean, project) == []


def test_the_comparison_sees_a_changed_bit(tmp_path, small_images):
    folders = [make_project(tmp_path / name, small_images) for name in ("a", "b")]
    assert compare(*folders) == []
    path = folders[1] / "input/train.csv"
    path.write_bytes(path.read_bytes() + b" ")
    (folders[0] / "extra").touch()
    assert compare(*folders) == ["extra: only in one", "input/train.csv: differs"]
