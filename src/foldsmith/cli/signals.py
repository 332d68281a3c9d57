"""End a command by a signal, and print the command that continues."""

import os
import shlex
import signal
import sys

from foldsmith.distributed import process_group
from foldsmith.errors import Stopped

# The signal that has asked this process to end.
_received: int | None = None


def watch() -> None:
    """Turn SIGINT and SIGTERM into :class:`~foldsmith.errors.Stopped`.

    A cluster or a container sends SIGTERM before it kills: the command ends as cleanly as by
    Ctrl-C.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def received() -> int | None:
    """Return the signal that has asked this process to end; None if there was none."""
    return _received


def _stop(number: int, _: object) -> None:
    global _received
    _received = number
    raise Stopped(number)


def stopped(number: int, arguments: list[str]) -> int:
    """Print the command that continues after a signal; return the exit code."""
    # Of several processes of a training one says it.
    if process_group.asked_for() == 1 or os.environ.get("RANK") == "0":
        print(f"\nfoldsmith: stopped{_how_to_go_on(arguments)}", file=sys.stderr)
    return 128 + number


def _how_to_go_on(arguments: list[str]) -> str:
    """Return the command that continues the interrupted one."""
    kept = list(arguments)
    if process_group.asked_for() > 1:
        return "; every finished epoch is kept. Go on with the same command and --resume"
    if kept[:1] in (["pretrain"], ["train"]):
        kept = [text for text in kept if text not in ("-f", "--force", "--resume")] + ["--resume"]
    elif kept[:1] not in (["run"], ["preprocess"], ["infer"], ["ensemble"]):
        return ""
    return f"; every finished epoch is kept. Go on with: foldsmith {shlex.join(kept)}"


def how_to_attach(arguments: list[str]) -> str:
    """Return how to come back to a run that goes on without this command, and how to stop it."""
    command = f"foldsmith {shlex.join(arguments)}"
    return f"the run goes on. Attach to it with: {command}; stop it with: {command} --stop"
