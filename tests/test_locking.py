import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from foldsmith.errors import OutputError
from foldsmith.utils.locking import holder, is_alive, lock, this_process

HOLD = """
import sys, time
from pathlib import Path
from foldsmith.utils.locking import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def holding(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_who_holds_it(tmp_path):
    folder = tmp_path / "output"
    process = holding(folder)
    try:
        assert holder(folder)["pid"] == process.pid
        with (
            pytest.raises(OutputError, match=f"in use by process {process.pid} on") as error,
            lock(folder),
        ):
            pass
        assert str(folder) in str(error.value)
    finally:
        process.kill()
        process.wait()


def test_the_lock_of_a_dead_process_is_none(tmp_path):
    folder = tmp_path / "output"
    process = holding(folder)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert holder(folder) is None
    with lock(folder):
        assert holder(folder)["pid"] == os.getpid()
    assert holder(folder) is None


def test_orphans_of_a_dead_process_are_waited_for(tmp_path):
    folder = tmp_path / "output"
    with lock(folder):
        # As a loader worker does: it inherits the lock and outlives its parent for a moment.
        orphan = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        orphan.start()
        owner = folder.parent / ".output.owner.json"
        gone = subprocess.Popen(["true"])
        gone.wait()
    owner.write_text(json.dumps(this_process() | {"pid": gone.pid}))
    multiprocessing.get_context("fork").Process(target=_kill_soon, args=(orphan.pid,)).start()
    started = time.perf_counter()
    with lock(folder):
        assert time.perf_counter() - started < 15
    orphan.join()


def _kill_soon(pid):
    time.sleep(1)
    os.kill(pid, signal.SIGKILL)


def test_the_folder_may_come_and_go_while_it_is_held(tmp_path):
    folder = tmp_path / "a" / "output"
    with lock(folder):
        folder.mkdir()
        folder.rmdir()
    with lock(folder):
        pass


def test_a_process_elsewhere_is_taken_to_live():
    assert is_alive({"host": "elsewhere", "pid": 1})
    assert is_alive({"host": socket.gethostname(), "pid": os.getpid()})


def test_a_number_that_was_given_again_is_another_process(tmp_path):
    folder = tmp_path / "output"
    owner = this_process()
    owner_file = folder.parent / ".output.owner.json"
    owner_file.write_text(json.dumps(owner))
    assert holder(folder) == owner
    if owner["started"] is None:
        pytest.skip("the system does not tell when a process started")
    owner_file.write_text(json.dumps(owner | {"started": owner["started"] - 1}))
    assert holder(folder) is None


def test_a_process_of_a_lost_node_holds_nothing(tmp_path):
    """Another host cannot be asked, and one that was taken away removes nothing: the lock tells."""
    folder = tmp_path / "output"
    process = holding(folder)
    owner_file = tmp_path / ".output.owner.json"
    elsewhere = json.loads(owner_file.read_text()) | {"host": "elsewhere"}
    owner_file.write_text(json.dumps(elsewhere))
    try:
        assert holder(folder) == elsewhere
        # Asking has taken nothing from it.
        with pytest.raises(OutputError, match="on elsewhere"), lock(folder):
            pass
    finally:
        process.kill()
        process.wait()
    assert owner_file.exists() and holder(folder) is None
    with lock(folder):
        assert holder(folder)["pid"] == os.getpid()
