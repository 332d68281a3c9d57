"""Folders on file systems that lack what a local disk has: Google Drive in a notebook, say."""

import contextlib
import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from foldsmith.errors import OutputError
from foldsmith.new.new import new_project_of
from foldsmith.new.new_rows import Data
from foldsmith.utils import atomic, locking
from foldsmith.utils.locking import holder, is_free, lock

# Python that makes the calls of a process fail below a folder, as they do there.
POOR = """
import errno, fcntl, os, pathlib, sys
number = int(os.environ["POOR_ERRNO"])
def refuse(*_, **__):
    raise OSError(number, os.strerror(number))
flock = fcntl.flock
def flock_of(handle, how):
    if os.readlink(f"/proc/self/fd/{handle}").startswith(os.environ["POOR"]):
        refuse()
    return flock(handle, how)
fcntl.flock = flock_of
os.fsync = os.symlink = os.chmod = pathlib.Path.chmod = refuse
"""

HOLD = """
import time
from foldsmith.utils.locking import lock
with lock(pathlib.Path(os.environ["POOR"]) / "output"):
    print("held", flush=True)
    time.sleep(60)
"""

ANSWERS = [errno.ENOSYS, errno.ENOTSUP, errno.EPERM]


@pytest.fixture(params=ANSWERS, ids=[errno.errorcode[number] for number in ANSWERS])
def poor(request, monkeypatch, tmp_path):
    """A folder on a file system without locks, links, rights and fsync."""
    folder = tmp_path / "drive"
    folder.mkdir()
    number, flock = request.param, fcntl.flock

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    def flock_of(handle, how):
        if os.readlink(f"/proc/self/fd/{handle}").startswith(str(folder)):
            refuse()
        return flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock_of)
    for name in ("fsync", "symlink", "chmod"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(Path, "chmod", refuse)
    monkeypatch.setenv("POOR", str(folder))
    monkeypatch.setenv("POOR_ERRNO", str(number))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    locking._tell_of_no_locks.cache_clear()
    return folder


def test_files_and_folders_are_written(poor):
    atomic.write_text(poor / "a.txt", "one")
    atomic.write_text(poor / "a.txt", "two")
    assert (poor / "a.txt").read_text() == "two"
    for text in ("one", "two"):
        with atomic.replacing_folder(poor / "folder") as begun:
            (begun / "b.txt").write_text(text)
        assert (poor / "folder/b.txt").read_text() == text
    assert sorted(path.name for path in poor.iterdir()) == ["a.txt", "folder"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_is_not_taken_for_one_that_cannot(monkeypatch, tmp_path, number):
    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        atomic.write_text(tmp_path / "a.txt", "one")
    assert not list(tmp_path.iterdir())


def test_a_folder_without_locks_is_locked_on_this_machine(poor, capsys):
    folder = poor / "output"
    process = subprocess.Popen(
        [sys.executable, "-c", POOR + HOLD], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        assert holder(folder)["pid"] == process.pid and not is_free(folder)
        with pytest.raises(OutputError, match=f"in use by process {process.pid}"), lock(folder):
            pass
    finally:
        process.kill()
        process.wait()
    # Nothing stays behind a killed process.
    with lock(folder), contextlib.nullcontext():
        assert holder(folder)["pid"] == os.getpid()
        # Another folder is another lock.
        with lock(poor / "other"):
            pass
    assert is_free(folder)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "this file system has no locks; run one command at a time" in told[0]


def test_a_project_needs_a_disk_with_links(poor, small_images):
    data = Data(images=small_images / "photos", train=small_images / "train.csv")
    with pytest.raises(OutputError) as error:
        new_project_of(poor / "project", data, yes=True)
    assert "input/images: this file system has no links" in str(error.value)
    assert "\n" not in str(error.value) and "local disk" in str(error.value)
    assert not (poor / "project/project.yml").exists()
