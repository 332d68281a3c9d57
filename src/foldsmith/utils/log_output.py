"""Where the lines that foldsmith logs are shown.

Every module logs to ``logging.getLogger(__name__)`` and sets nothing up. Three places do:

- The command line calls :func:`show_lines`.
- The methods of :class:`foldsmith.Project` run in :func:`lines_shown`, which shows the lines
  unless the caller has set up the logger ``foldsmith``.
- A process that does a step for another one sends its lines there (:mod:`foldsmith.run.events`).
"""

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LOGGER = logging.getLogger("foldsmith")

# Before the message; other levels have the message alone.
_PREFIXES = {logging.WARNING: "warning: ", logging.ERROR: "foldsmith: "}


def show_lines(level: int = logging.INFO) -> None:
    """Show the lines of this process as the command line does; called once, at its start.

    Args:
        level: Lowest level that is shown.
    """
    LOGGER.setLevel(level)
    # A library that sets up the root logger must not make every line appear twice.
    LOGGER.propagate = False
    if not any(isinstance(handler, LineHandler) for handler in LOGGER.handlers):
        LOGGER.addHandler(LineHandler())


@contextmanager
def lines_shown(quiet: bool = False) -> Iterator[None]:
    """Show the lines of a call from Python, unless the caller has set up logging for them.

    A level of the logger ``foldsmith`` is kept, and if it has a handler, only that one gets the
    lines. Lines that the root logger is set up for go to its handlers and are not printed again.

    Args:
        quiet: Show warnings and errors only, and no progress bars.
    """
    with _at_level(logging.WARNING if quiet else LOGGER.level or logging.INFO), _own_handler():
        yield


@contextmanager
def lines_hidden() -> Iterator[None]:
    """Log nothing in this context, and show no progress bars."""
    with _at_level(logging.CRITICAL + 1):
        yield


@contextmanager
def warnings_only() -> Iterator[None]:
    """Log warnings and errors only in this context, and show no progress bars."""
    with _at_level(max(LOGGER.level, logging.WARNING)):
        yield


def is_quiet() -> bool:
    """Return whether progress is not to be shown: only warnings and errors are, or nothing."""
    return LOGGER.level > logging.INFO


def line_of(level: int, text: str, step: str = "") -> str:
    """Return a message as it is shown.

    Args:
        level: Its level.
        text: The message, of one or several lines.
        step: Label of the step that it is about, if another process does it.
    """
    shown = _PREFIXES.get(level, "") + text
    if not step:
        return shown
    return "\n".join(f"{step} | {line}" for line in shown.splitlines() if line)


class LineFormatter(logging.Formatter):
    """Formats a record as :func:`line_of`; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        return line_of(record.levelno, super().format(record), getattr(record, "step", ""))


class LineHandler(logging.Handler):
    """Writes warnings and errors to stderr, and everything else to stdout.

    They are the streams of the moment: a notebook, a live view and tests exchange them. Unlike
    the handlers of :mod:`logging` it raises the errors of writing, as ``print`` does: a command
    whose output cannot be written must not seem to succeed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(LineFormatter())
        self._process = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        if os.getpid() != self._process:
            # A loader process must not draw the live view of the process that forked it.
            stream = getattr(stream, "rich_proxied_file", stream)
        print(self.format(record), file=stream, flush=True)


class _CallHandler(LineHandler):
    """The handler of a call from Python; the root logger's handlers get what they are set up for.

    Most environments show warnings only by the root logger, and some (Colab) have a handler
    there from the start, which the user does not know of: the lines of progress are printed.
    """

    def emit(self, record: logging.LogRecord) -> None:
        root = logging.getLogger()
        if root.handlers and record.levelno >= root.level:
            root.callHandlers(record)
        else:
            super().emit(record)


_calls = 0
_counting = threading.Lock()
_call_handler: logging.Handler | None = None


@contextmanager
def _own_handler() -> Iterator[None]:
    """Have a handler of ours on the logger if it has none; calls on several threads share it."""
    global _calls, _call_handler
    with _counting:
        _calls += 1
        if _call_handler is None and not LOGGER.handlers:
            _call_handler = _CallHandler()
            LOGGER.addHandler(_call_handler)
            LOGGER.propagate = False
    try:
        yield
    finally:
        with _counting:
            _calls -= 1
            if _calls == 0 and _call_handler is not None:
                LOGGER.removeHandler(_call_handler)
                LOGGER.propagate = True
                _call_handler = None


@contextmanager
def _at_level(level: int) -> Iterator[None]:
    before = LOGGER.level
    LOGGER.setLevel(level)
    try:
        yield
    finally:
        LOGGER.setLevel(before)
