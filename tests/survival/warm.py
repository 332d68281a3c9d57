"""The command line in processes of its own that start at once.

An interpreter spends seconds importing torch before a command does anything. These processes
are forked from a server that has imported it; folder, arguments, environment, output, signals
and exit code are each process's own, as from a shell. Tests of the start itself, and those that
compare what two interpreters with other seeds of hashes make, start a new one
(``small_project.fresh``). ``new`` plans with given speeds (``given_speeds``).
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path

import pytest
from given_speeds import MEASURE, give_speeds, measure_for_a_moment

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["preloaded"])


def process(target: Callable, *arguments: object) -> multiprocessing.Process:
    """Return a process of the server, which is started if there is none."""
    if _SERVER.get_start_method() == "forkserver":
        with pytest.MonkeyPatch.context() as patch:
            # The server looks for "preloaded" on its own path.
            patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
            forkserver.ensure_running()
    return _SERVER.Process(target=target, args=arguments)


class Command:
    """A running ``foldsmith`` command, with the methods of ``subprocess.Popen`` that tests need.

    Args:
        folder: Where it runs.
        arguments: Of the command line.
        before: Called in the process before the command, as a picklable (function, *arguments).
        environment: Variables that it has beside those of this process.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        before: tuple[Callable, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        self.args = ["foldsmith", *map(str, arguments)]
        self._files = tempfile.TemporaryDirectory()
        self.outputs = [Path(self._files.name) / name for name in ("stdout", "stderr")]
        variables = os.environ | (environment or {})
        self._process = process(_main, folder, self.args, variables, self.outputs, before)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the main process alone, as the kernel's memory killer does it; wait for its end."""
        self.send_signal(signal.SIGKILL)
        self.wait(60)

    def read(self) -> list[str]:
        """Return what it has printed and complained about so far."""
        return [path.read_text() if path.exists() else "" for path in self.outputs]

    def wait_for_output(self, text: str, timeout: float = 60) -> None:
        """Wait until it has printed a text."""
        until = time.monotonic() + timeout
        while text not in self.read()[0]:
            assert self.poll() is None and time.monotonic() < until, self.read()
            time.sleep(0.02)

    def finish(self, timeout: float = 300) -> subprocess.CompletedProcess:
        """Wait for its end."""
        try:
            code = self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return subprocess.CompletedProcess(self.args, code, *self.read())


def foldsmith(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run the command line in a folder, to its end."""
    return Command(folder, *arguments).finish()


def one_core() -> None:
    """Run steps one after the other, as on one core: those side by side start interpreters."""
    from foldsmith.utils import machine

    machine._allowed = lambda: 1


def wait_for(path: Path, process: Command) -> None:
    """Wait until a training that runs has written a file."""
    for _ in range(1200):
        if path.is_file():
            return
        assert process.poll() is None, process.read()
        time.sleep(0.05)
    raise AssertionError(f"no {path}")


def _main(
    folder: Path,
    arguments: list[str],
    environment: dict[str, str],
    outputs: list[Path],
    before: tuple[Callable, ...],
) -> None:
    # As in an interpreter that was started: processes of the server would start their loader
    # workers from a server of their own, which survives the kill of a command.
    multiprocessing.set_start_method("fork", force=True)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(outputs, 1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    # Of the interpreter that Python gives a file: the server's own may belong to a terminal.
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    sys.stderr.reconfigure(line_buffering=True)
    sys.argv = arguments
    if MEASURE in environment:
        measure_for_a_moment(pytest.MonkeyPatch())
    else:
        give_speeds()
    if before:
        before[0](*before[1:])
    from foldsmith.cli.main import main

    main()
