"""Progress bars where someone watches, on a terminal or in a notebook, and nowhere else.

A screen draws all open bars in one place, a line each: rich's live display on a terminal (on
stderr), the output of a notebook's cell, or the view of a run (:mod:`foldsmith.run.live`). It draws
when a bar has moved, five times a second at most, and has no thread of its own.
"""

import atexit
import html
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from foldsmith.utils.log_output import is_quiet

if TYPE_CHECKING:
    from rich.live import Live

# Other libraries import tqdm.auto, which warns in notebooks without ipywidgets.
warnings.filterwarnings("ignore", message="IProgress not found")

# Seconds between two drawings.
_PAUSE_S = 0.2

# Seconds that the speed of a bar is averaged over.
_WINDOW_S = 20.0

# Characters of the bar itself, and the parts of one that a terminal can draw.
_WIDTH = 10
_EIGHTHS = " ▏▎▍▌▋▊▉█"


class Screen:
    """A place where open bars are drawn.

    Attributes:
        bars: The open bars, the outer ones first; ``str(bar)`` is the line of one.
    """

    def __init__(self) -> None:
        self.bars: list[Bar] = []

    def draw(self) -> None:
        """Draw the bars; called when one has changed."""
        raise NotImplementedError

    def keep(self, bar: "Bar") -> None:
        """Leave a bar that is closed where it can be read later, if the screen has such a place."""


class Bar:
    """Counts steps, and is drawn by its screen while it is open.

    Args:
        iterable: Object to go through; None if ``update`` moves the bar.
        screen: Where it is drawn; None for nowhere.
        total: Number of steps; None if it is not known.
        label: Text before the bar.
        unit: Name of a step, as in ``batch``.
        initial: Steps that are done already.
        leave: Whether it stays on the terminal when it is closed.
        where: Remark after the time left, as in ``in this step``.
        timed: Whether speed and time left are shown.

    Attributes:
        n: Steps that are done.
        total: Number of steps.
        note: Text after the bar.
    """

    def __init__(
        self,
        iterable: Iterable[Any] | None,
        screen: Screen | None,
        total: float | None,
        label: str,
        unit: str,
        initial: int = 0,
        leave: bool = False,
        where: str = "",
        timed: bool = True,
    ) -> None:
        self.n, self.total, self.note = initial, total, ""
        self._iterable, self._screen = iterable, screen
        self._label, self._unit, self._where = label, unit, where
        self._leave, self._timed = leave, timed
        self._since = self._drawn = time.monotonic()
        # Times and counts since when the speed is measured.
        self._marks = [(self._since, initial)]
        if screen is not None:
            screen.bars.append(self)
            screen.draw()

    def __iter__(self) -> Iterator[Any]:
        assert self._iterable is not None
        with self:
            for item in self._iterable:
                yield item
                self.update()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __str__(self) -> str:
        """Return its line, the most wanted first: a narrow terminal cuts the end."""
        total = "?" if self.total is None else f"{self.total:.0f}"
        text = f"{self._label} |{self._picture()}| {self.n}/{total} {_plural(self._unit)}"
        speed = self._speed() if self._timed else 0.0
        if speed and self.total:
            left = max(0.0, self.total - self.n) / speed
            text += f", {_clock(left)} left{self._where and ' ' + self._where}"
        if speed:
            text += f", {_rate(speed, self._unit)}"
        return f"{text}, {self.note}" if self.note else text

    def update(self, n: int = 1) -> None:
        """Count steps, and draw the bar if it is time."""
        self.n += n
        if self._screen is None:
            return
        now = time.monotonic()
        if now - self._drawn < _PAUSE_S:
            return
        self._drawn = now
        if now - self._marks[-1][0] >= _WINDOW_S / 10:
            self._marks.append((now, self.n))
            while now - self._marks[1][0] > _WINDOW_S:
                del self._marks[0]
        self._screen.draw()

    def close(self) -> None:
        """Take it away."""
        screen, self._screen = self._screen, None
        if screen is not None:
            screen.bars.remove(self)
            if self._leave:
                screen.keep(self)
            screen.draw()

    def _picture(self) -> str:
        share = min(1.0, self.n / self.total) if self.total else 0.0
        full, rest = divmod(int(share * _WIDTH * 8), 8)
        return (_EIGHTHS[8] * full + _EIGHTHS[rest] * (full < _WIDTH)).ljust(_WIDTH)

    def _speed(self) -> float:
        """Return steps per second, lately; 0 if there were none."""
        since, n = self._marks[0]
        seconds = time.monotonic() - since
        return (self.n - n) / seconds if seconds > 0 else 0.0


def progress_bar(
    iterable: Iterable[Any] | None = None,
    *,
    total: float | None = None,
    label: str = "",
    unit: str,
    initial: int = 0,
    leave: bool = False,
    where: str = "",
    timed: bool = True,
) -> Bar:
    """Return a progress bar, which is drawn where someone watches.

    The arguments are those of :class:`Bar`.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    return Bar(iterable, _screen(), total, label, unit, initial, leave, where, timed)


def _screen() -> Screen | None:
    """Return the screen for a new bar; None if nobody watches."""
    if is_quiet():  # also in all processes of a training but the main one
        return None
    if _screens:
        return _screens[-1]
    if _in_notebook():
        return _notebook
    # As rich does: terminals that cannot move the cursor get lines only.
    watched = sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    return _terminal if watched else None


@contextmanager
def drawn_on(screen: Screen) -> Iterator[None]:
    """Have the bars that are opened in this context drawn on a screen."""
    with _drawn_on(screen):
        yield


@contextmanager
def no_bars() -> Iterator[None]:
    """Draw no bars in this context, for a process that shares the terminal of another one."""
    with _drawn_on(None):
        yield


@contextmanager
def _drawn_on(screen: Screen | None) -> Iterator[None]:
    _screens.append(screen)
    try:
        yield
    finally:
        _screens.remove(screen)


class _Terminal(Screen):
    """The terminal at stderr. Lines that are printed scroll above the bars."""

    def __init__(self) -> None:
        super().__init__()
        self._live: Live | None = None

    def draw(self) -> None:
        if not self.bars:
            self.close()
            return
        try:
            if self._live is None:
                self._live = self._started()
            self._live.update(_lines(map(str, self.bars)), refresh=True)
        except Exception:  # a terminal that has gone, say: the work goes on
            self.close()

    def keep(self, bar: Bar) -> None:
        if self._live is not None:
            self._live.console.print(_lines([str(bar)]))

    def close(self) -> None:
        """Take the bars away, and give the cursor back."""
        live, self._live = self._live, None
        if live is not None:
            with suppress(Exception):
                live.stop()

    def _started(self) -> "Live":
        # Here, not above: most commands show nothing.
        from rich.live import Live

        # Also after an error that leaves a bar open.
        atexit.register(self.close)
        live = Live(
            console=terminal_console(stderr=True),
            auto_refresh=False,
            transient=True,
            # A file that gets stdout is not the terminal's.
            redirect_stdout=sys.stdout.isatty(),
        )
        live.start()
        return live


def terminal_console(stderr: bool = False) -> Any:
    """Return a console of rich's, without colours if ``NO_COLOR`` is set."""
    from rich.console import Console

    # Rich takes NO_COLOR for colours only, and would still write what is dim.
    colours = None if os.environ.get("NO_COLOR") else "auto"
    return Console(stderr=stderr, color_system=colours)  # type: ignore[arg-type]


def _lines(texts: Iterable[str]) -> Any:
    from rich.text import Text

    return Text("\n".join(texts), no_wrap=True, overflow="crop")


class _Notebook(Screen):
    """The output of a notebook's cell, in which all bars have one place."""

    def __init__(self) -> None:
        super().__init__()
        self._cell: int | None = None
        self._handle: Any = None

    def draw(self) -> None:
        from IPython.display import HTML, display

        lines = "\n".join(html.escape(str(bar)) for bar in self.bars)
        text = f"<pre>{lines}</pre>" if lines else ""
        content = HTML(text)  # type: ignore[no-untyped-call]
        cell = _shell().execution_count
        if self._cell != cell:
            self._cell = cell
            self._handle = display(content, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(content)


# The screens that bars are drawn on now; the last one counts, and None is no screen.
_screens: list[Screen | None] = []
_notebook = _Notebook()
_terminal = _Terminal()


def _in_notebook() -> bool:
    """Return whether this is the kernel of a notebook."""
    return hasattr(_shell(), "kernel")


def _shell() -> Any:
    """Return the shell of IPython that this runs in, if any; IPython is not imported for it."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def _plural(unit: str) -> str:
    return f"{unit}es" if unit.endswith("tch") else f"{unit}s"


def _rate(speed: float, unit: str) -> str:
    """Return a speed as in 12 batches/s, or 2.5 s/batch."""
    if speed < 1:
        return f"{1 / speed:.1f} s/{unit}"
    return f"{speed:.{1 if speed < 10 else 0}f} {_plural(unit)}/s"


def _clock(seconds: float) -> str:
    """Return a time as in 1:02:03, or 02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"
