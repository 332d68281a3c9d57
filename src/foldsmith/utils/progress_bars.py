"""Progress bars: where someone watches, on a terminal or in a notebook; nowhere else.

On a terminal they are tqdm's, on stderr. A screen (a notebook, or the live view of a run) draws all
open bars itself, a line each, in one place: bars that come and go leave nothing behind.
"""

import html
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from foldsmith.distributed import process_group

# Other libraries import tqdm.auto, which asks for widgets that these bars do without.
warnings.filterwarnings("ignore", message="IProgress not found")

if TYPE_CHECKING:
    Bar = tqdm[Any]
else:
    Bar = tqdm


class Screen:
    """A place where open bars are drawn.

    Attributes:
        bars: Those that are open, the outer ones first; ``str(bar)`` is its line.
    """

    def __init__(self) -> None:
        self.bars: list[Bar] = []

    def draw(self) -> None:
        """Draw the bars; called when one has changed, about ten times a second at most."""
        raise NotImplementedError


def progress_bar(
    iterable: Iterable[Any] | None = None,
    *,
    total: int | None = None,
    label: str | None = None,
    unit: str,
    initial: int = 0,
    leave: bool = False,
    **options: Any,
) -> Bar:
    """Return a progress bar: of tqdm's making wherever it is drawn.

    Args:
        iterable: What to go through, if it is not moved on by ``update``.
        total: Number of steps.
        label: Text before it.
        unit: What a step is.
        initial: Steps that are done already.
        leave: Whether it stays on the terminal when it is closed.
        **options: Others of tqdm.
    """
    options |= {"total": total, "desc": label, "unit": unit, "initial": initial, "leave": leave}
    screen = _screens[-1] if _screens else _notebook if _in_notebook() else None
    if screen is not None:
        return _DrawnBar(iterable, screen=screen, **options)
    watched = sys.stderr.isatty() and process_group.is_main()
    return tqdm(iterable, disable=not watched, **options)


@contextmanager
def drawn_on(screen: Screen) -> Iterator[None]:
    """Have the bars that are opened in this context drawn on a screen."""
    _screens.append(screen)
    try:
        yield
    finally:
        _screens.remove(screen)


class _DrawnBar(Bar):
    """A bar that counts and measures as tqdm's, and is drawn by its screen."""

    # No thread that looks after stalled bars: it would draw while something else does.
    monitor_interval = 0

    def __init__(self, iterable: Iterable[Any] | None, *, screen: Screen, **options: Any) -> None:
        self._screen = screen
        # tqdm draws nothing itself then.
        super().__init__(iterable, gui=True, **options)
        screen.bars.append(self)
        screen.draw()

    def display(self, *_: Any, **__: Any) -> None:
        """Draw it, with the others."""
        self._screen.draw()

    def clear(self, *_: Any, **__: Any) -> None:
        """Do nothing: what is printed does not meet it."""

    def close(self) -> None:
        """Take it away."""
        if self.disable:
            return
        super().close()
        self._screen.bars.remove(self)
        self._screen.draw()


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


# The screens that bars are drawn on now; the last one counts.
_screens: list[Screen] = []
_notebook = _Notebook()


def _in_notebook() -> bool:
    """Return whether this is the kernel of a notebook."""
    return hasattr(_shell(), "kernel")


def _shell() -> Any:
    """Return the shell of IPython that this runs in, if any; IPython is not imported for it."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()
