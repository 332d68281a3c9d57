"""Where log lines are shown: by the command, to Python users, and from other processes."""

import logging
import multiprocessing
import subprocess
import sys
import warnings

import pytest

from foldsmith import Project
from foldsmith.run.events import LoggedLine, lines_told, show
from foldsmith.utils.log_output import line_of

LINES = """
import logging
from foldsmith.utils.log_output import lines_shown, show_lines
logger = logging.getLogger("foldsmith.x")
def say():
    logger.debug("detail")
    logger.info("progress")
    logger.warning("trouble")
"""


def written(code):
    """Return what Python code writes to stdout and stderr in an interpreter of its own."""
    command = [sys.executable, "-c", LINES + code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


SHOWN = ("progress\n", "warning: trouble\n")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        # Nothing set up: Python's own last resort, as for any library.
        ("say()", ("", "trouble\n")),
        ("show_lines()\nsay()", SHOWN),
        # A library that sets up the root logger adds no second copy.
        ("show_lines()\nlogging.basicConfig(level=0)\nsay()", SHOWN),
        ("show_lines(logging.WARNING)\nsay()", ("", "warning: trouble\n")),
        ("show_lines(logging.DEBUG)\nsay()", ("detail\nprogress\n", "warning: trouble\n")),
        ("with lines_shown(): say()", SHOWN),
        ("with lines_shown(), lines_shown(): say()", SHOWN),
        # All is as before after it.
        ("with lines_shown(): pass\nsay()", ("", "trouble\n")),
        ("with lines_shown(quiet=True): say()", ("", "warning: trouble\n")),
        (
            "logging.getLogger('foldsmith').setLevel(logging.WARNING)\nwith lines_shown(): say()",
            ("", "warning: trouble\n"),
        ),
        # The user's own set-up: of foldsmith's logger, of all, of warnings alone (as in Colab).
        (
            "logging.getLogger('foldsmith').addHandler(logging.StreamHandler())\n"
            "with lines_shown(): say()",
            ("", "progress\ntrouble\n"),
        ),
        (
            "logging.basicConfig(level=logging.INFO, format='%(name)s %(message)s')\n"
            "with lines_shown(): say()",
            ("", "foldsmith.x progress\nfoldsmith.x trouble\n"),
        ),
        (
            "logging.basicConfig(format='mine %(message)s')\nwith lines_shown(): say()",
            ("progress\n", "mine trouble\n"),
        ),
    ],
)
def test_each_line_is_shown_once_and_where_it_is_wanted(code, expected):
    assert written(code) == expected


def test_a_run_from_python_is_shown_unless_it_is_to_be_quiet(small_project, capsys, monkeypatch):
    # As in an interpreter in which nothing was set up.
    foldsmith = logging.getLogger("foldsmith")
    monkeypatch.setattr(foldsmith, "handlers", [])
    foldsmith.setLevel(logging.NOTSET)
    project = Project.open(small_project)

    def run(**options):
        project.run("200", {"model/pretrained": None}, until="preprocess", **options)
        return capsys.readouterr()

    shown = run()
    assert shown.out.count("everything is done: 1 step\n") == 1 and shown.err == ""
    assert run(quiet=True) == ("", "")
    foldsmith.setLevel(logging.WARNING)
    assert run() == ("", "")


def test_quiet_and_verbose_commands(small_project, cli):
    run = ["run", "-cfg", "exp_config/200.yml", "--until", "preprocess", "model/pretrained=null"]
    quiet = cli(small_project, *run, "--quiet")
    assert (quiet.stdout, quiet.stderr) == ("", "")
    # Results are shown.
    assert "preprocess" in cli(small_project, "--quiet", "status").stdout
    cli(small_project, *run, "--quiet", "--verbose", code=2)
    error = cli(small_project, "--quiet", "check", "-cfg", "exp_config/none.yml", code=2).stderr
    assert error.startswith("foldsmith: error: ")
    verbose = cli(small_project, "--verbose", "preprocess").stdout
    assert f"wrote {small_project}/input/img_info.csv\n" in verbose


def test_lines_of_a_step_go_to_the_process_that_has_asked_for_it(capsys):
    told, streams = [], (sys.stdout, sys.stderr)
    with lines_told("train 1", told.extend):
        assert (sys.stdout, sys.stderr) == streams
        logging.getLogger("foldsmith.x").info("progress")
        logging.getLogger("foldsmith.x").debug("detail")
        logging.getLogger("library").warning("trouble")
        warnings.warn("careful", UserWarning, stacklevel=1)
        try:
            raise ValueError("unexpected")
        except ValueError:
            logging.getLogger("foldsmith.x").exception("it failed")
    texts = [said.text for said in told]
    assert texts[:2] == ["progress", "trouble"] and "UserWarning: careful" in texts[2]
    assert texts[3].startswith("it failed\nTraceback") and len(texts) == 4
    assert [said.logger for said in told] == [
        *("foldsmith.x", "foldsmith", "foldsmith", "foldsmith.x")
    ]
    capsys.readouterr()
    for said in told:
        show(said, None, {}, None)
    shown = capsys.readouterr()
    assert shown.out == "train 1 | progress\n"
    lines = shown.err.splitlines()
    assert lines[0] == "train 1 | warning: trouble" and "train 1 | foldsmith: it failed" in lines
    assert all(line.startswith("train 1 | ") for line in lines)
    assert str(told[0]) == "train 1 | progress"


def test_a_loader_process_writes_by_itself(capfd):
    told = []

    def say():
        logging.getLogger("foldsmith.x").warning("from the child")

    with lines_told("train 1", told.extend):
        child = multiprocessing.get_context("fork").Process(target=say)
        child.start()
        child.join()
    assert told == [] and "train 1 | warning: from the child\n" in capfd.readouterr().err


def test_a_line_names_its_level_and_step():
    assert line_of(logging.INFO, "a") == "a"
    assert line_of(logging.WARNING, "a\n\nb", "s") == "s | warning: a\ns | b"
    assert str(LoggedLine("", "gone", logging.ERROR)) == "foldsmith: gone"
