"""Kills at random, and after each file that says a step is done; `make survive` does more."""

import signal
import subprocess
import sys

from kill_and_resume import HERE, RUN, compare, survive
from small_project import foldsmith, make_project


def test_a_killed_run_ends_as_one_that_was_never_killed(tmp_path, small_photos):
    counts = survive(tmp_path, small_photos, kills=5, seed=1)
    assert counts["kills"] == 5
    assert counts["compared runs"] >= 1
    assert counts["compared files"] >= 100


def test_a_run_that_was_killed_just_after_a_step_was_done(tmp_path, small_photos):
    clean = make_project(tmp_path / "clean", small_photos)
    assert foldsmith(clean, *RUN).returncode == 0
    project = make_project(tmp_path / "killed", small_photos)
    for name in (
        "preprocess_manifest.json",
        "000/manifest.json",
        "100/fold0/manifest.json",
        "100/manifest_by_best_metric.json",
        "900/manifest.json",
    ):
        command = [sys.executable, str(HERE / "die_at_write.py"), name, "after", *RUN]
        result = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300)
        assert result.returncode == -signal.SIGKILL, (name, result.stdout, result.stderr)
    # What the last one left undone.
    assert foldsmith(project, *RUN).returncode == 0
    assert compare(clean, project) == []


def test_the_comparison_sees_a_changed_bit(tmp_path, small_photos):
    folders = [make_project(tmp_path / name, small_photos) for name in ("a", "b")]
    assert compare(*folders) == []
    path = folders[1] / "input/train.csv"
    path.write_bytes(path.read_bytes() + b" ")
    (folders[0] / "extra").touch()
    assert compare(*folders) == ["extra: only in one", "input/train.csv: differs"]
