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
        self.seen.append([str(bar).partition(" |")[0] for bar in self.bars])


def test_a_screen_draws_open_bars_and_nothing_that_is_closed(capsys):
    screen = Drawn()
    with drawn_on(screen), progress_bar(total=2, label="outer", unit="epoch") as outer:
        assert list(progress_bar(range(3), label="inner", unit="batch")) == [0, 1, 2]
        outer.update(1)
        assert str(outer).startswith("outer |█████     | 1/2 epochs")
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


def on_terminal(code, stdout=None, **environment):
    """Run Python code with a terminal as stderr, and as stdout if none is given."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    own = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR")}
    subprocess.run(
        [sys.executable, "-c", code],
        stdout=theirs if stdout is None else stdout,
        stderr=theirs,
        env=own | {"TERM": "xterm-256color"} | environment,
        check=True,
    )
    written = b""
    while select.select([ours], [], [], 0.2)[0]:
        written += os.read(ours, 100_000)
    os.close(theirs)
    os.close(ours)
    return written.decode()


def test_bars_on_a_terminal_and_none_left_there():
    written = on_terminal(TWO_BARS)
    assert "outer |          | 0/2 epochs" in written and "inner |" in written
    # The last one is taken away, and the cursor given back.
    assert "|" not in written.rpartition("\x1b[2K")[2] and "\x1b[?25h" in written


def test_an_error_leaves_no_bar_behind():
    code = "from foldsmith.utils.progress_bars import progress_bar\n"
    code += "bar = progress_bar(total=2, label='open', unit='batch')\nraise SystemExit(0)"
    written = on_terminal(code)
    assert "open |" in written and "|" not in written.rpartition("\x1b[2K")[2]
    assert written.rindex("\x1b[?25h") > written.rindex("open |")


def test_a_bar_that_is_to_stay_does():
    kept = TWO_BARS.replace('unit="batch"', 'unit="batch", leave=True').replace("pass", "continue")
    assert "inner |██████████| 3/3 batches" in on_terminal(kept)


def test_a_terminal_that_can_do_nothing_gets_no_bars():
    assert on_terminal(TWO_BARS, TERM="dumb") == ""


def test_lines_scroll_above_the_bars_or_into_their_file(tmp_path):
    code = "import logging\nfrom foldsmith.utils.log_output import show_lines\nshow_lines()\n"
    code += TWO_BARS.replace("pass", "logging.getLogger('foldsmith.x').info('a line')")
    written = on_terminal(code)
    assert written.count("a line\r\n") == 3
    # The bar is below the last of them.
    assert "inner |" in written.rpartition("a line")[2]
    with (tmp_path / "out").open("w+") as file:
        assert "a line" not in on_terminal(code, stdout=file)
    assert (tmp_path / "out").read_text() == "a line\n" * 3


def test_speed_and_time_left_are_those_of_the_last_seconds(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("foldsmith.utils.progress_bars.time.monotonic", lambda: now[0])
    screen = Drawn()
    with drawn_on(screen), progress_bar(total=1000, label="x", unit="batch", initial=500) as bar:
        assert str(bar) == "x |█████     | 500/1000 batches"
        for _ in range(100):  # 1 a second
            now[0] += 1
            bar.update(1)
        assert str(bar).endswith("600/1000 batches, 06:40 left, 1.0 batches/s")
        for _ in range(40):  # 5 a second, for longer than the speed is averaged over
            now[0] += 1
            bar.update(5)
        assert str(bar).endswith("800/1000 batches, 00:40 left, 5.0 batches/s")
