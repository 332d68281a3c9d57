"""Progress bars where someone watches, and where nobody does."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios

from foldsmith.utils.progress_bars import Screen, drawn_on, progress_bar

TWO_BARS = """
from foldsmith.utils.progress_bars import progress_bar
with progress_bar(total=2, label="outer", unit="epoch") as bar:
    for _ in progress_bar(range(3), label="inner", unit="batch"):
        pass
    bar.update(1)
"""


class Drawn(Screen):
    """A screen that keeps what it was made to show."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def draw(self):
        self.seen.append([str(bar).partition(":")[0] for bar in self.bars])


def test_a_screen_draws_open_bars_and_nothing_that_is_closed(capsys):
    screen = Drawn()
    with drawn_on(screen), progress_bar(total=2, label="outer", unit="epoch") as outer:
        assert list(progress_bar(range(3), label="inner", unit="batch")) == [0, 1, 2]
        outer.update(1)
        assert str(outer).startswith("outer:  50%|")
    assert ["outer", "inner"] in screen.seen and screen.seen[-1] == []
    assert screen.seen.index(["outer", "inner"]) < len(screen.seen) - 2
    assert capsys.readouterr() == ("", "")


def test_outside_of_a_screen_and_a_terminal_nothing_is_drawn(capsys):
    screen = Drawn()
    with drawn_on(screen):
        pass
    assert list(progress_bar(range(3), label="x", unit="batch", leave=True)) == [0, 1, 2]
    assert screen.seen == [] and capsys.readouterr() == ("", "")


def test_nothing_is_written_to_a_pipe():
    done = subprocess.run([sys.executable, "-c", TWO_BARS], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_bars_on_a_terminal_and_none_left_there():
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    subprocess.run([sys.executable, "-c", TWO_BARS], stderr=theirs, check=True)
    assert select.select([ours], [], [], 5)[0]
    written = os.read(ours, 100_000).decode()
    os.close(theirs)
    os.close(ours)
    assert "outer:   0%|" in written and "inner:" in written
    # Blanks over the last one.
    assert written.endswith(" \r")
