"""Kill this process (SIGKILL) at its n-th file operation: between any two of them."""

import os
import signal
import sys
from pathlib import Path

# Operations on files that Python announces before it does them; foldsmith announces the one that
# Python has no function for. Renames and replacements are one event.
_EVENTS = {
    *("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.truncate"),
    *("os.chmod", "foldsmith.exchange"),
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def die_at_operation(at: int, log: str) -> None:
    """Let this process die before one of its operations that change files below this folder.

    Operations of other processes, as of those that load images, do not count.

    Args:
        at: Number of the operation, from 1; 0 for none.
        log: File to which all operations are written, one per line; it is elsewhere.
    """
    here, process, count = os.getcwd(), os.getpid(), 0
    lines = open(log, "w", buffering=1)  # noqa: SIM115 - as long as the process

    def happens(event: str, path: str) -> None:
        nonlocal count
        if os.getpid() != process:
            return
        count += 1
        lines.write(f"{event} {os.path.relpath(path, here)}\n")
        if count == at:
            os.kill(process, signal.SIGKILL)

    def seen(event: str, arguments: tuple) -> None:
        if event == "open":
            changes = isinstance(arguments[2], int) and arguments[2] & _WRITING
        else:
            changes = event in _EVENTS
        # The last argument is a folder's handle if the path is relative to it.
        if not changes or (path := _below(here, arguments[0], arguments[-1])) is None:
            return
        # A folder that is there already, and a file that is gone, stay as they are.
        if not {"os.mkdir": os.path.lexists(path), "os.remove": not os.path.lexists(path)}.get(
            event
        ):
            happens(event, path)

    fsync = os.fsync

    def announced_fsync(handle: int) -> None:
        path = os.readlink(f"/proc/self/fd/{handle}")
        if Path(path).is_relative_to(here):
            happens("fsync", path)
        fsync(handle)

    os.fsync = announced_fsync
    sys.addaudithook(seen)


def _below(here: str, path: object, handle: object) -> str | None:
    """Return the absolute path if it is below a folder."""
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if not isinstance(path, (str, os.PathLike)):
        return None
    start = here
    if isinstance(handle, int) and not os.path.isabs(path) and handle >= 0:
        try:
            start = os.readlink(f"/proc/self/fd/{handle}")
        except OSError:
            start = here
    full = os.path.normpath(os.path.join(start, path))
    return full if full.startswith(here + os.sep) else None
