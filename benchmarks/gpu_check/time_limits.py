"""Processes with a time limit, which end with everything that they have started."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# Seconds that a process has to end its own children and to write what it has.
GRACE_S = 3.0


@dataclass(frozen=True)
class End:
    """How a process has ended.

    Attributes:
        text: ``passed``, or what was wrong.
        seconds: How long it took.
    """

    text: str
    seconds: float


def ended(
    command: list[str], log: Path, limit_s: float, variables: dict[str, str], folder: Path
) -> End:
    """Run a command to its end, or to its limit; its output is printed and kept.

    Args:
        command: The command; it gets a session of its own.
        log: File of its output.
        limit_s: After so many seconds its whole session is ended.
        variables: Its environment.
        folder: Where it runs.
    """
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    copying = threading.Thread(target=_copy, args=(process, log), daemon=True)
    copying.start()
    late = False
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        late = True
    except BaseException:
        end_group(process)
        raise
    # Also after an end of its own: what it has started must not go on beside the next part.
    end_group(process)
    copying.join(GRACE_S)
    seconds = time.monotonic() - started
    if late:
        return End(f"ended at its limit of {limit_s:g} s", seconds)
    if process.returncode:
        return End(f"failed (exit code {process.returncode}, see {log.name})", seconds)
    return End("passed", seconds)


def end_group(process: subprocess.Popen) -> None:
    """End a process that leads a group, and its group: first asked to, then killed."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _copy(process: subprocess.Popen, log: Path) -> None:
    assert process.stdout is not None
    with log.open("w", encoding="utf-8") as file:
        for line in process.stdout:
            file.write(line)
            file.flush()
            sys.stdout.write(line)
            sys.stdout.flush()
