"""Signals that wait: a file, or a figure, is finished before Ctrl-C or SIGTERM ends the process.

An exception that a signal handler raises inside a C++ callback (``torch.save`` writing into a
Python file, matplotlib rendering) comes back as an error of that library, or not at all. Code that
must not be interrupted there holds the signals back for as long as it takes.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back SIGINT and SIGTERM until the block ends; then their handlers are called.

    A second signal of the same kind is not held back: whoever waits for a hanging disk can end
    the process. Does nothing outside the main thread, where Python handles no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: dict[int, FrameType | None] = {}
    handlers: dict[int, Any] = {}

    def keep(number: int, frame: FrameType | None) -> None:
        if number in waiting:
            _pass_on(number, frame, handlers[number])
        waiting[number] = frame

    for number in _SIGNALS:
        handlers[number] = signal.getsignal(number)
    try:
        for number, handler in handlers.items():
            # None: the handler was not installed from Python.
            if handler is not None:
                signal.signal(number, keep)
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)
    for number, frame in waiting.items():
        _pass_on(number, frame, handlers[number])


def _pass_on(number: int, frame: FrameType | None, handler: Any) -> None:
    """Let a signal have the effect that it would have had."""
    if callable(handler):
        handler(number, frame)
    elif handler == signal.SIG_DFL:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
