"""A run as a person sees it on a terminal, and what is written where nobody does."""

import re
import signal

import pytest
from rich.console import Console
from small_project import EXPERIMENTS, write_experiment
from terminal import OnTerminal

from foldsmith.project import ProjectFolder
from foldsmith.run.live import _around_running, _Terminal
from foldsmith.run.plan import plan_of
from foldsmith.run.state import Speeds
from foldsmith.run.table import Row
from foldsmith.steps.status import Status, StepState
from foldsmith.training.epoch_report import EpochReport
from foldsmith.utils.progress_bars import drawn_on, progress_bar

RUN = ["run", "--no-report", "-cfg", "exp_config/200.yml"]
COLOUR = re.compile(r"\x1b\[(?:\d+;)*3\d[;m]")
SHOW_CURSOR = "\x1b[?25h"


@pytest.fixture
def folder(small_project, monkeypatch):
    write_experiment(small_project, "200", EXPERIMENTS["200"] | {"model/pretrained": None})
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return small_project


def plain(written: str) -> list[str]:
    """Return the lines without control sequences."""
    text = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", written).replace("\r", "\n")
    return [line.rstrip() for line in text.split("\n")]


def test_the_steps_are_shown_while_it_runs(folder):
    code, written = OnTerminal(folder, *RUN).finish()
    assert code == 0, written
    lines = plain(written)
    text = "\n".join(lines)
    # The state of each step, its time, and how far the one is that runs.
    assert re.search(r"^preprocess +done +\d+ s$", text, re.M)
    running = r"^train 200 fold 1 +running +\d+ s +\d+ s left +epoch 1/2, train/loss [\d.]+, "
    running += r"val/loss [\d.]+, val/metric [\d.]+, \d+ images/s$"
    assert re.search(running, text, re.M), "\n".join(line for line in lines if "fold 1" in line)
    assert re.search(r"^train 200 fold 0 +done +\d+ s$", text, re.M)
    assert re.search(r"^infer 200 +to do", text, re.M)
    # The bar of the run counts its epochs and its time, the bar of the step the step's.
    assert any(re.match(r"whole run \|.*\| 1/4 epochs, about \d+ s left; now ", x) for x in lines)
    assert any(line.startswith("train |") and "left in this step" in line for line in lines)
    # What is printed is there as ever, each row once.
    assert sum(line.startswith("    1/2 ") for line in lines) == 2
    assert "everything is done: 4 steps" in lines and COLOUR.search(written)
    # The view is taken away, and the cursor given back.
    after = written.rpartition("wrote output/200/*_by_best_metric*")[2]
    assert SHOW_CURSOR in after and "train 200" not in plain(after.rpartition("\x1b[2K")[2])
    assert (folder / "output/200/score_by_best_metric.csv").is_file()


def test_without_colours(folder, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    code, written = OnTerminal(folder, *RUN, "--until", "preprocess").finish()
    assert code == 0 and "running" in written
    assert not COLOUR.search(written)


def test_a_terminal_that_can_do_nothing_gets_lines(folder, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    code, written = OnTerminal(folder, *RUN, "--until", "preprocess").finish()
    assert code == 0 and "everything is done" in written
    assert "running" not in written and SHOW_CURSOR not in written


def test_a_pipe_gets_plain_lines(folder, cli):
    result = cli(folder, *RUN)
    assert result.stderr == ""
    assert "\x1b" not in result.stdout and "\r" not in result.stdout
    assert "running" not in result.stdout and "everything is done: 4 steps" in result.stdout


def test_ctrl_c_still_says_how_to_go_on(folder):
    run = OnTerminal(folder, *RUN, "200:globals/max_epoch=50")
    run.read_until("epoch 1/50, train/loss")
    run.send_signal(signal.SIGINT)
    code, written = run.finish()
    assert code == 130 and "Traceback" not in written
    last = [line for line in plain(written) if line][-1]
    assert last.startswith("foldsmith: stopped; every finished epoch is kept. Go on with: ")
    assert SHOW_CURSOR in written


def test_an_error_is_one_line(folder):
    (folder / "input" / "photos").rename(folder / "input" / "elsewhere")
    code, written = OnTerminal(folder, *RUN).finish()
    assert code == 2 and "Traceback" not in written
    last = [line for line in plain(written) if line][-1]
    assert last.startswith("foldsmith: error: ")


def test_a_failed_training_is_shown_as_such(folder):
    code, written = OnTerminal(
        folder, *RUN, "200:optimizer/lr=1.e+30", "200:scheduler=null"
    ).finish()
    assert code == 2
    assert re.search(r"^train 200 fold 0 +failed +\d+ s", "\n".join(plain(written)), re.M), written


def test_several_steps_that_run_are_shown_each(folder):
    project = ProjectFolder.open(folder)
    plan = plan_of(project, "exp_config/200.yml")
    states = {step.label: StepState(Status.TO_DO, "", step.epochs) for step in plan.steps}
    view = _Terminal(plan, states, Speeds())
    view.close()
    folds = [step for step in plan.steps if step.kind.name == "train"]
    for fold, step in enumerate(folds):
        view.begin(step, since_s=60.0 * (1 + fold))
        view.epoch(step, EpochReport(1 + fold, 9, 10.0, 0.0, 1.0, {}))
    view.end(plan.steps[0])
    console = Console(width=120)
    with console.capture() as shown:
        console.print(view._picture(40, 120))
    text = shown.get()
    assert re.search(r"train 200 fold 0 +running +60 s .*epoch 1/9", text), text
    assert re.search(r"train 200 fold 1 +running +2 min .*epoch 2/9", text), text
    view.end(folds[0], failed=True)
    with console.capture() as shown:
        console.print(view._picture(40, 120))
    text = shown.get()
    assert re.search(r"train 200 fold 0 +failed +60 s", text) and text.count("running") == 1, text


LONG = "410_a_regression_with_a_name_that_people_give_to_experiments"


@pytest.mark.parametrize("width", [60, 80, 100, 140])
@pytest.mark.parametrize("name", ["200", LONG])
def test_state_and_time_are_there_at_every_width(folder, width, name):
    own = {"model/pretrained": None, "globals/output_root": f"output/{name}_of_width"}
    write_experiment(folder, name, EXPERIMENTS["200"] | own)
    plan = plan_of(ProjectFolder.open(folder), f"exp_config/{name}.yml")
    states = {step.label: StepState(Status.TO_DO, "", step.epochs) for step in plan.steps}
    states["preprocess"] = StepState(Status.DONE, "", 0)
    view = _Terminal(plan, states, Speeds({name: 340.0}))
    view.close()
    first, second = (step for step in plan.steps if step.kind.name == "train")
    view.begin(first, since_s=4000.0)
    view.end(first, failed=True)
    view.begin(second, since_s=1234.0)
    values = {"train/loss": 0.1234, "val/loss": 123.4, "val/metric": 0.987}
    view.epoch(second, EpochReport(1, 2, 1234.0, 0.0, 1.0, values))
    console = Console(width=width, height=40)
    with drawn_on(view):
        bar = progress_bar(total=60, unit="epoch", label="x" * 200)
        with console.capture() as shown:
            console.print(view._picture(40, width))
        bar.close()
    lines = shown.get().splitlines()
    assert max(map(len, lines)) <= width, lines
    # The fold is at the end of a name, which is shortened in the middle.
    failed = next(line for line in lines if re.match(r"train .*fold 0 ", line))
    assert re.search(r"fold 0 +failed +67 min", failed), lines
    running = next(line for line in lines if re.match(r"train .*fold 1 ", line))
    assert re.search(r"fold 1 +running +21 min +11 min left", running), lines
    assert "epoch 1/2, train/loss 0.1234" in "\n".join(lines), lines
    assert any(re.match(r"infer .*to do", line) for line in lines), lines


def test_many_rows_are_shown_around_the_one_that_runs():
    statuses = ["done"] * 20 + ["running"] + ["to do"] * 20
    rows = [Row([], status, "", str(k)) for k, status in enumerate(statuses)]
    shown, before, after = _around_running(rows, 8)
    assert (before, len(shown), after) == (18, 8, 15) and shown[2].status == "running"
    shown, before, after = _around_running(rows[:10], 20)
    assert (before, len(shown), after) == (0, 10, 0)
    shown, before, after = _around_running(rows[:21], 8)
    assert (before, len(shown), after) == (13, 8, 0)
