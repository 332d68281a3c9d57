"""One process at a time per output folder."""

import contextlib
import errno
import getpass
import hashlib
import json
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import filelock

from foldsmith.errors import UNSUPPORTED, OutputError

logger = logging.getLogger(__name__)

if sys.platform != "win32":
    import fcntl

# Loader workers of a killed process inherit its lock; they notice its death within seconds.
ORPHANS_END_S = 20.0

# A check of a lock (:func:`is_free`) holds it no longer than this.
_MOMENT_S = 0.2


@contextmanager
def lock(folder: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold a folder for this process until the block ends.

    The lock is one of the operating system: it ends with the process that holds it, however
    that dies, so that no stale lock can be left behind. It lies beside the folder, which may
    be removed and made again while it is held. On a file system without locks, such as Google
    Drive, it lies among the temporary files of this machine, and keeps only processes of this
    machine apart, which is printed.

    Args:
        folder: The folder; it need not exist.
        wait_s: Seconds to wait for another process to let go.

    Raises:
        OutputError: Another process holds it; the message says which.
    """
    held = _lock_of(folder)
    owner_file = folder.parent / f".{folder.name}.owner.json"
    try:
        held.acquire(timeout=max(wait_s, _MOMENT_S))
    except filelock.Timeout:
        owner = _read_owner(owner_file)
        try:
            held.acquire(timeout=0 if owner is None or is_alive(owner) else ORPHANS_END_S)
        except filelock.Timeout:
            raise OutputError(f"{folder}: {_in_use(owner)}") from None
    try:
        # Plainly: for people only, and a killed process should leave nothing half-written here.
        owner_file.write_text(json.dumps(this_process()), encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            owner_file.unlink(missing_ok=True)
        held.release()


def holder(folder: Path) -> dict[str, Any] | None:
    """Return the process that holds a folder, as :func:`this_process` of it; None if none does.

    What that process has written is read. Of one on another host the lock tells whether it lives:
    a node that was lost or taken away cannot remove what its processes wrote.
    """
    owner = _read_owner(folder.parent / f".{folder.name}.owner.json")
    if owner is None or not is_alive(owner):
        return None
    return owner if _on_this_host(owner) or not is_free(folder) else None


def is_free(folder: Path, wait_s: float = 0.0) -> bool:
    """Return whether no process holds a folder; the check itself holds it for a moment.

    Args:
        folder: The folder; it need not exist.
        wait_s: Seconds to wait for a process to let go.
    """
    held = _lock_of(folder)
    try:
        held.acquire(timeout=wait_s)
    # Held; or a folder that is not ours to write to, or a file system without locks.
    except (OSError, NotImplementedError):
        return False
    held.release()
    return True


def this_process() -> dict[str, Any]:
    """Return what identifies this process: pid, started, host, command, since."""
    return {
        "pid": os.getpid(),
        "started": _start_ticks(os.getpid()),
        "host": socket.gethostname(),
        "command": " ".join(["foldsmith", *sys.argv[1:]]),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def is_alive(process: dict[str, Any]) -> bool:
    """Return whether a process lives; one on another host is taken to."""
    if not _on_this_host(process):
        return True
    try:
        os.kill(int(process["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    # Numbers are given again: in a container that starts anew, even to this very process.
    started = _start_ticks(int(process["pid"]))
    return started is None or process.get("started", started) == started


def _on_this_host(process: dict[str, Any]) -> bool:
    return bool(process.get("host") == socket.gethostname())


def _lock_of(folder: Path) -> filelock.BaseFileLock:
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.parent / f".{folder.name}.lock"
    if not _has_locks(file):
        _tell_of_no_locks(str(folder.parent))
        name = hashlib.sha256(os.fsencode(file.resolve())).hexdigest()
        file = Path(tempfile.gettempdir(), f"foldsmith-locks-{getpass.getuser()}", name)
        file.parent.mkdir(exist_ok=True)
    return filelock.FileLock(file)


def _has_locks(file: Path) -> bool:
    """Return whether the file system of a lock's file has locks; the file is made."""
    if sys.platform == "win32":
        return True
    try:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        return True  # taking the lock reports the error
    try:
        # Lets go of a lock that is not held: no other process notices.
        fcntl.flock(handle, fcntl.LOCK_UN)
    except OSError as error:
        return error.errno not in (*UNSUPPORTED, errno.ENOLCK)
    finally:
        os.close(handle)
    return True


@cache
def _tell_of_no_locks(folder: str) -> None:
    logger.warning(
        f"{folder}: this file system has no locks; run one command at a time on its folders, "
        "as only commands of this machine notice each other"
    )


def process_name(pid: int) -> str:
    """Return a text that a process of this host has alone: no later one gets the same."""
    return f"{socket.gethostname()} {pid} {_start_ticks(pid)}"


def _start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None where /proc is not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # Field 22; the second one is a name in parentheses that may hold anything.
    return int(stat.rpartition(")")[2].split()[19])


def _read_owner(path: Path) -> dict[str, Any] | None:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) and "pid" in owner else None


def _in_use(owner: dict[str, Any] | None) -> str:
    if owner is None:
        return "in use by another process; wait for it to end"
    return (
        f"in use by process {owner['pid']} on {owner.get('host')} ({owner.get('command')}, since "
        f"{owner.get('since')}); wait for it to end, or stop it"
    )
