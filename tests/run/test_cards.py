"""Steps on the GPUs of one machine, a process for each: two that are only said to be there."""

import importlib
import os
import queue
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml
from kill_and_resume import compare
from small_project import EXPERIMENTS, PROJECT, make_project, write_experiment
from warm import Command, foldsmith

from foldsmith.project import ProjectFolder
from foldsmith.run import gpu_engine as cards
from foldsmith.run.gpu_engine import cards_for, cards_here
from foldsmith.run.live import RunView
from foldsmith.run.plan import plan_of
from foldsmith.run.run_state import RunState
from foldsmith.steps.base import Options

RUN = ["run", "--no-report", "-cfg", "exp_config/200.yml"]

OWN = '''
import os
import signal
import time
from pathlib import Path

import torch

FOLDER = Path(__file__).parent


def wait_for(file):
    until = time.monotonic() + 120
    while not file.exists():
        assert time.monotonic() < until, file
        time.sleep(0.02)


class Own(torch.nn.MSELoss):
    """Does in a training what the test asks for."""

    def __init__(self, fold):
        super().__init__()
        self.fold = fold

    def forward(self, logits, targets):
        if len(logits) > 2:  # not as check tries it
            doing = os.environ.get("DOING", "")
            if doing == "die" and self.fold == 0:
                wait_for(FOLDER / "fold1.txt")
                os.kill(os.getpid(), signal.SIGKILL)
            begun = (FOLDER / f"output/200/fold{self.fold}/resume.pth").exists()
            if doing and begun and not (FOLDER / "go").exists():
                found = (os.environ["CUDA_VISIBLE_DEVICES"], torch.get_num_threads(), os.getpid())
                (FOLDER / "found").write_text(repr(found))
                (FOLDER / "found").rename(FOLDER / f"fold{self.fold}.txt")
                wait_for(FOLDER / "go")
        return super().forward(logits, targets)


TYPES = {"Own": Own}
'''


def two_cards():
    torch.set_num_threads(1)
    importlib.import_module("foldsmith.run.engine").cards_here = lambda: ["0", "1"]


def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, small_photos):
    folder = make_project(tmp_path_factory.mktemp("cards") / "project", small_photos)
    (folder / "own.py").write_text(OWN)
    (folder / "project.yml").write_text(yaml.safe_dump(PROJECT | {"python": ["own.py"]}))
    values = {"model/pretrained": None, "loss": {"type": "Own", "fold": "@/globals/val_fold"}}
    write_experiment(folder, "200", EXPERIMENTS["200"] | values)
    assert foldsmith(folder, *RUN, "--until", "preprocess").returncode == 0
    return folder


def on_cards(folder, doing=""):
    environment = {"DOING": doing, "FOLDSMITH_TRUST_PYTHON": "1"}
    return Command(folder, *RUN, before=(two_cards,), environment=environment)


def found_of(folder, folds, command):
    """Wait until trainings of folds have finished an epoch; return what they have found."""
    files = [folder / f"fold{fold}.txt" for fold in folds]
    until = time.monotonic() + 120
    while not all(file.exists() for file in files):
        assert time.monotonic() < until and command.poll() is None, command.read()
        time.sleep(0.05)
    return [eval(file.read_text()) for file in files]


def all_end(processes):
    until = time.monotonic() + 30
    while any(is_alive(process) for process in processes):
        assert time.monotonic() < until, "a process goes on without its command"
        time.sleep(0.05)


@pytest.mark.slow
def test_folds_run_side_by_side_and_after_a_kill_the_result_is_that_of_one_after_the_other(
    prepared, tmp_path
):
    folder = shutil.copytree(prepared, tmp_path / "cards")
    alone = shutil.copytree(prepared, tmp_path / "alone")
    command = on_cards(folder, "wait")
    found = found_of(folder, (0, 1), command)
    assert sorted(card for card, _, _ in found) == ["0", "1"]
    # The cores are shared.
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert {threads for _, threads, _ in found} == {share} and found[0][2] != found[1][2]
    command.kill()
    all_end(process for _, _, process in found)
    (folder / "go").touch()
    result = on_cards(folder).finish()
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert "2 GPUs: steps that do not need each other run side by side" in lines
    assert lines[-1] == "everything is done: 4 steps"
    for fold in (0, 1):
        rows = [line for line in lines if line.startswith(f"train 200 fold {fold} |     ")]
        assert not any(" 1/2 " in row for row in rows) and any(" 2/2 " in row for row in rows)
    for name in ("go", "fold0.txt", "fold1.txt"):
        (folder / name).unlink()
    if share == 1:
        sequential = Command(alone, *RUN, before=(one_thread,)).finish()
        assert sequential.returncode == 0, sequential.stderr
        assert compare(alone, folder) == []


def test_the_death_of_a_process_is_that_of_its_step_and_a_signal_ends_all(prepared, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "cards")
    command = on_cards(folder, "die")
    ((_, _, process),) = found_of(folder, (1,), command)
    said = (
        "foldsmith: train 200 fold 0: its process has died (SIGKILL); most often the machine is "
        "out of memory. Every finished epoch is kept: run the same command again"
    )
    until = time.monotonic() + 120
    while said not in command.read()[1].splitlines():
        assert time.monotonic() < until, command.read()
        time.sleep(0.05)
    # The other fold goes on, until the command is asked to end.
    assert is_alive(process) and command.poll() is None
    command.send_signal(signal.SIGTERM)
    result = command.finish()
    assert result.returncode == 128 + signal.SIGTERM
    assert "every finished epoch is kept. Go on with: foldsmith run" in result.stderr
    all_end([process])


def is_alive(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # dead, and nobody has asked how


def test_which_cards_a_run_takes(small_project):
    def cards_of(experiment, n, **values):
        write_experiment(small_project, "100", EXPERIMENTS["100"] | values)
        plan = plan_of(ProjectFolder.open(small_project), f"exp_config/{experiment}.yml")
        return len(cards_for(plan.steps, [str(k) for k in range(n)]))

    assert cards_of("900", 2) == 2
    assert cards_of("900", 0) == 0
    # Two folds of two experiments.
    assert cards_of("900", 8) == 4
    assert cards_of("100", 8) == 2
    # The pretraining comes first, and needs one.
    assert cards_of("000", 8) == 1
    assert cards_of("100", 8, **{"globals/device": "cuda"}) == 2
    # Somebody has shared them out.
    assert cards_of("100", 8, **{"globals/device": "cuda:1"}) == 0
    assert cards_of("100", 8, **{"globals/device": "cpu"}) < 2


@pytest.mark.parametrize(
    ("visible", "n", "names"),
    [
        (None, 2, ["0", "1"]),
        (None, 0, []),
        ("2, 3", 2, ["2", "3"]),
        ("GPU-4f2a,GPU-77b1,nonsense", 2, ["GPU-4f2a", "GPU-77b1"]),
    ],
)
def test_cards_are_named_as_they_were_to_this_process(monkeypatch, visible, n, names):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
    assert cards_here() == names


def test_a_worker_that_was_given_nothing_ends_at_once():
    with cards._worker("0", queue.Queue()) as worker:
        pass
    assert worker.end() == 0


def test_a_step_that_all_others_wait_for_gets_all_cores(small_project, monkeypatch):
    class Worker:
        def __init__(self, card):
            self.card = card

        def order(self, order):
            given[order.label] = (order.cores, order.threads)

    given = {}
    monkeypatch.setattr(cards, "cores_here", lambda: 4)
    plan = plan_of(ProjectFolder.open(small_project), "exp_config/100.yml")
    run = cards._Run(
        RunState(plan, plan, Options()), RunView(), [Worker("0"), Worker("1")], queue.Queue()
    )
    steps = {step.label: step for step in run._waiting}
    for label in ("preprocess", "pretrain 000", "train 100 fold 0"):
        run._waiting.remove(steps[label])
        run._begin(steps[label])
        if label != "train 100 fold 0":
            run._free.append(next(iter(run._running)))
            run._running.clear()
    assert given == {"preprocess": (4, 4), "pretrain 000": (4, 2), "train 100 fold 0": (2, 2)}
