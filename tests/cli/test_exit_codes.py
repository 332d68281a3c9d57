"""Exit codes, and that no colours are written where none are wanted.

That SIGINT ends with 130 and SIGTERM with 143 is in survival/test_faults.py.
"""

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios

import pytest
from bundled import REPOSITORY
from small_project import EXPERIMENTS, write_experiment
from warm import Command

from foldsmith.cli.main import EPILOG

BROKEN = """
from torch import nn

class Broken(nn.Module):
    def forward(self, logits, targets):
        if len(logits) <= 2:  # as check tries it
            return logits.sum()
        raise ZeroDivisionError("no reason")

TYPES = {"Broken": Broken}
"""


def test_done_is_0(cli, tmp_path):
    assert cli(tmp_path, "--version", code=0).stdout.startswith("foldsmith ")
    cli(tmp_path, "new", "mine", code=0)


@pytest.mark.parametrize(
    "arguments",
    [
        [],  # no command
        ["trian"],
        ["train"],  # an option is missing
        ["train", "-cfg", "exp_config/100.yml", "--fold", "1"],
        ["train", "-cfg", "exp_config/100.yml", "-v", "one"],
        ["infer", "-e", "output/100", "-cri", "best"],
        ["doctor"],  # no project here
        ["doctor", "--debug"],  # which shows more, and changes nothing
        ["status", "--project", "none"],
    ],
)
def test_what_can_be_mended_is_2(cli, tmp_path, arguments):
    cli(tmp_path, *arguments, code=2)


@pytest.mark.parametrize(
    "arguments",
    [
        ["new", "mine", "--images", "a", "--train", "b.csv", "--images", "c"],
        ["train", "-cfg", "exp_config/100.yml", "--config=exp_config/200.yml"],
    ],
)
def test_an_option_given_twice_is_refused(cli, tmp_path, arguments):
    said = cli(tmp_path, *arguments, code=2).stderr
    assert "is given 2 times; give it once" in said
    # One that may be repeated is, and a flag says the same twice.
    for more in (["estimate", "--epoch-s", "a=1", "--epoch-s", "b=1"], ["train", "-f", "-f"]):
        said = cli(tmp_path, *more, "-cfg", "exp_config/100.yml", code=2).stderr
        assert "times" not in said and "project.yml: no such file" in said


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_the_unexpected_is_1(cli, small_project, debug):
    (small_project / "own.py").write_text(BROKEN)
    with (small_project / "project.yml").open("a") as file:
        file.write("python: [own.py]\n")
    content = EXPERIMENTS["200"] | {"model/pretrained": None, "loss": {"type": "Broken"}}
    write_experiment(small_project, "200", content)
    cli(small_project, "preprocess")
    said = cli(small_project, "train", "-cfg", "exp_config/200.yml", *debug, code=1).stderr
    assert "foldsmith: error: unexpected ZeroDivisionError: no reason" in said
    assert ("Traceback" in said) == bool(debug)


def test_help_and_documentation_name_every_code():
    codes = {"0", "1", "2", "130", "143"}
    assert set(re.findall(r"\b\d+\b", EPILOG.partition("Exit codes")[2])) == codes
    page = (REPOSITORY / "docs/command_line.md").read_text()
    assert set(re.findall(r"^\| (\d+) \|", page, re.MULTILINE)) == codes


def onto(terminal: str) -> None:
    """Make a terminal what this process reads from and writes to."""
    file = os.open(terminal, os.O_RDWR)
    for number in range(3):
        os.dup2(file, number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))


def on_a_terminal(folder, *arguments):
    """Return what a command shows on a terminal, stdout and stderr together."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # rows, columns
    command = Command(folder, *arguments, before=(onto, os.ttyname(theirs)))
    shown = b""
    while command.poll() is None or select.select([ours], [], [], 0)[0]:
        if select.select([ours], [], [], 0.02)[0]:
            shown += os.read(ours, 65536)
    os.close(ours)
    os.close(theirs)
    return shown.decode()


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colours_where_none_are_wanted(small_project, monkeypatch, name, value):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv(name, value)
    shown = [
        on_a_terminal(small_project, *arguments)
        for arguments in (
            ["--help"],
            ["train", "--help"],
            ["train", "--fold", "1"],
            ["infer", "-e", "output/none"],
            ["infer", "-e", "output/none", "--debug"],
            ["run", "-cfg", "exp_config/000.yml", "globals/max_epoch=1"],
        )
    ]
    assert "Usage:" in shown[0] and "Usage:" in shown[1] and "No such option" in shown[2]
    assert "foldsmith: error:" in shown[3] and "Traceback" in shown[4]
    # With its bars, where the terminal can move the cursor.
    assert ("whole run |" in shown[5]) == (name != "TERM") and "everything is done" in shown[5]
    for text in shown:
        assert re.findall(r"\x1b\[[0-9;]*m", text) == []
