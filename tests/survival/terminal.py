"""The command line on a terminal: a pseudo-terminal of our own, and all that was written to it."""

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time
from pathlib import Path

from warm import Command


class OnTerminal:
    """A running ``foldsmith`` command whose output and errors go to a terminal.

    Args:
        folder: Where it runs.
        arguments: Of the command line.
        columns: Width of the terminal.
    """

    def __init__(self, folder: Path, *arguments: str, columns: int = 160) -> None:
        self._ours, self._theirs = pty.openpty()
        size = struct.pack("HHHH", 40, columns, 0, 0)
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, size)
        name = os.ttyname(self._theirs)
        # The width of the terminal counts, not that of whoever runs the tests.
        os.environ.pop("COLUMNS", None)
        self._command = Command(folder, *arguments, before=(write_to, name))
        self.written = ""

    def read_until(self, text: str | None = None, timeout: float = 120) -> str:
        """Read until a text was written, or to the end; return all that was written."""
        until = time.monotonic() + timeout
        while text is None or text not in self.written:
            assert time.monotonic() < until, self.written
            if select.select([self._ours], [], [], 0.1)[0]:
                self.written += os.read(self._ours, 100_000).decode(errors="replace")
            elif self._command.poll() is not None:
                break
        return self.written

    def send_signal(self, number: int) -> None:
        self._command.send_signal(number)

    def finish(self) -> tuple[int, str]:
        """Return the exit code and all that was written."""
        written = self.read_until()
        code = self._command.wait(60)
        os.close(self._theirs)
        os.close(self._ours)
        return code, written


def write_to(terminal: str) -> None:
    """Let this process write its output and errors to a terminal."""
    file = os.open(terminal, os.O_RDWR | os.O_NOCTTY)
    for number in (1, 2):
        os.dup2(file, number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
