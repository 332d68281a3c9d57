"""Steps side by side on the cores of a machine, and on two GPUs that are only said to be there."""

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
from foldsmith.run import parallel_engine, slots
from foldsmith.run.live import RunView
from foldsmith.run.plan import plan_of
from foldsmith.run.run_state import RunState
from foldsmith.run.slots import (
    Cards,
    Slot,
    cards_for,
    cards_here,
    processes_for,
    processes_with,
    slots_for,
)
from foldsmith.steps.base import Options

OWN_LOSS = {"model/pretrained": None, "loss": {"type": "Own", "fold": "@/globals/val_fold"}}
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
                card = os.environ.get("CUDA_VISIBLE_DEVICES", "")
                found = (card, torch.get_num_threads(), os.getpid())
                (FOLDER / "found").write_text(repr(found))
                (FOLDER / "found").rename(FOLDER / f"fold{self.fold}.txt")
                wait_for(FOLDER / "go")
        return super().forward(logits, targets)


TYPES = {"Own": Own}
'''


def two_cards():
    torch.set_num_threads(1)
    importlib.import_module("foldsmith.run.slots").cards_here = lambda: ["0", "1"]


def two_cores():
    importlib.import_module("foldsmith.utils.machine")._allowed = lambda: 2


def one_core():
    # Of another machine or shell, which must not change the result.
    torch.set_num_threads(2)
    importlib.import_module("foldsmith.utils.machine")._allowed = lambda: 1


def one_thread():
    torch.set_num_threads(1)


# What a machine has -> its stand-in, values of the experiment, and the line of the log.
MACHINES = {
    "cards": (two_cards, {}, "2 GPUs"),
    "cores": (two_cores, {"globals/threads": 1}, "2 processes on 2 cores"),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, small_images):
    folder = make_project(tmp_path_factory.mktemp("side") / "project", small_images)
    (folder / "own.py").write_text(OWN)
    (folder / "project.yml").write_text(yaml.safe_dump(PROJECT | {"python": ["own.py"]}))
    write_experiment(folder, "200", EXPERIMENTS["200"] | OWN_LOSS)
    assert foldsmith(folder, *RUN, "--until", "preprocess").returncode == 0
    return folder


def copied(prepared, folder, machine):
    """Copy the project, with the values of a machine in its experiment."""
    shutil.copytree(prepared, folder)
    write_experiment(folder, "200", EXPERIMENTS["200"] | OWN_LOSS | MACHINES[machine][1])
    return folder


def on(machine, folder, doing=""):
    environment = {"DOING": doing, "FOLDSMITH_TRUST_PYTHON": "1"}
    return Command(folder, *RUN, before=(MACHINES[machine][0],), environment=environment)


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


@pytest.mark.parametrize("machine", [pytest.param("cards", marks=pytest.mark.slow), "cores"])
def test_folds_run_side_by_side_and_after_a_kill_the_result_is_that_of_one_after_the_other(
    prepared, tmp_path, machine
):
    folder = copied(prepared, tmp_path / "side", machine)
    alone = copied(prepared, tmp_path / "alone", machine)
    command = on(machine, folder, "wait")
    found = found_of(folder, (0, 1), command)
    # The cores are shared.
    share = max(1, len(os.sched_getaffinity(0)) // 2) if machine == "cards" else 1
    assert {threads for _, threads, _ in found} == {share} and found[0][2] != found[1][2]
    assert sorted(card for card, _, _ in found) == (["0", "1"] if machine == "cards" else ["", ""])
    command.kill()
    all_end(process for _, _, process in found)
    (folder / "go").touch()
    result = on(machine, folder).finish()
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert f"{MACHINES[machine][2]}: steps that do not need each other run side by side" in lines
    assert lines[-1] == "everything is done: 4 steps"
    for fold in (0, 1):
        rows = [line for line in lines if line.startswith(f"train 200 fold {fold} |     ")]
        assert not any(" 1/2 " in row for row in rows) and any(" 2/2 " in row for row in rows)
    for name in ("go", "fold0.txt", "fold1.txt"):
        (folder / name).unlink()
    if share == 1:
        before = one_thread if machine == "cards" else one_core
        sequential = Command(alone, *RUN, before=(before,)).finish()
        assert sequential.returncode == 0, sequential.stderr
        assert "side by side" not in sequential.stdout
        assert compare(alone, folder) == []


@pytest.mark.parametrize(
    ("machine", "number"),
    [pytest.param("cards", signal.SIGTERM, marks=pytest.mark.slow), ("cores", signal.SIGINT)],
)
def test_the_death_of_a_process_is_that_of_its_step_and_a_signal_ends_all(
    prepared, tmp_path, machine, number
):
    folder = copied(prepared, tmp_path / "side", machine)
    command = on(machine, folder, "die")
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
    command.send_signal(number)
    result = command.finish()
    assert result.returncode == 128 + number
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


def test_how_many_processes_a_run_starts_on_cores(small_project, monkeypatch):
    monkeypatch.setattr(slots, "memory_here", lambda: None)

    def processes(experiment, cores, *overrides):
        monkeypatch.setattr(slots, "cores_here", lambda: cores)
        project = ProjectFolder.open(small_project)
        steps = plan_of(project, f"exp_config/{experiment}.yml", overrides).steps
        n = processes_for(steps)
        found = slots_for(steps)
        assert n == (1 if found is None else len(found.slots))
        return n

    # Without threads a step takes all cores.
    assert processes("900", 8, "*:globals/device=cpu") == 1
    on_one = ("000:globals/threads=1", "[12]*:globals/threads=1", "*:globals/device=cpu")
    assert processes("900", 8, *on_one) == 4  # two folds of two experiments
    assert processes("900", 3, *on_one) == 3 and processes("900", 1, *on_one) == 1
    assert processes("000", 8, "globals/threads=1") == 1
    assert processes("900", 5, *on_one, "100:globals/threads=2") == 3
    # A pretraining without threads runs alone, and the folds after it side by side.
    assert processes("900", 2, *on_one[1:]) == 2
    # A step with more threads than cores runs alone too.
    assert processes("100", 2, "globals/threads=4") == 1
    # Steps on other devices do not share the cores.
    assert processes("900", 8, *on_one[:2], "100:globals/device=cuda") == 1
    monkeypatch.setattr(slots, "memory_here", lambda: 4 * 2**30)
    assert processes("900", 8, *on_one) == 2 and processes_with(1) == 2
    monkeypatch.setattr(slots, "memory_here", lambda: 2**29)
    assert processes("900", 8, *on_one) == 1
    monkeypatch.setattr(slots, "memory_here", lambda: None)
    assert [processes_with(threads) for threads in (1, 3, 16, None)] == [8, 2, 1, 1]


def test_steps_never_take_more_cores_than_there_are(small_project, monkeypatch):
    monkeypatch.setattr(slots, "cores_here", lambda: 4)
    threads = ("100:globals/threads=1", "200:globals/threads=3", "*:globals/device=cpu")
    steps = {
        step.label: step
        for step in plan_of(ProjectFolder.open(small_project), "exp_config/900.yml", threads).steps
    }
    of_100, of_200 = ([steps[f"train {n} fold {k}"] for k in (0, 1)] for n in (100, 200))
    pretraining, shares = steps["pretrain 000"], slots.CoreShares(4)
    assert [shares.share(step) for step in (pretraining, of_100[0], of_200[0])] == [4, 1, 3]
    assert shares.share(steps["ensemble 900"]) == 0
    assert shares.has_room(pretraining, []) and not shares.has_room(pretraining, of_100[:1])
    assert shares.has_room(of_200[0], of_100[:1]) and not shares.has_room(of_200[0], of_100)
    assert shares.has_room(of_100[0], of_200[:1]) and not shares.has_room(of_200[1], of_200[:1])
    assert shares.has_room(steps["ensemble 900"], of_200[:1])


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
    with parallel_engine._worker(Slot("", {}), queue.Queue()) as worker:
        pass
    assert worker.end() == 0


def test_a_step_that_all_others_wait_for_gets_all_cores(small_project, monkeypatch):
    class Worker:
        def __init__(self, slot):
            self.slot = slot

        def order(self, order):
            given[order.label] = (order.cores, order.threads)

    given = {}
    for module in (parallel_engine, slots):
        monkeypatch.setattr(module, "cores_here", lambda: 4)
    plan = plan_of(ProjectFolder.open(small_project), "exp_config/100.yml")
    cards = Cards(["0", "1"])
    workers = [Worker(slot) for slot in cards.slots]
    state = RunState(plan, plan, Options())
    run = parallel_engine._Run(state, RunView(), cards, workers, queue.Queue())
    steps = {step.label: step for step in run._waiting}
    for label in ("preprocess", "pretrain 000", "train 100 fold 0"):
        run._waiting.remove(steps[label])
        run._begin(steps[label])
        if label != "train 100 fold 0":
            run._free.append(next(iter(run._running)))
            run._running.clear()
    assert given == {"preprocess": (4, 4), "pretrain 000": (4, 2), "train 100 fold 0": (2, 2)}


@pytest.mark.parametrize(("budget", "n"), [("small", 4), ("medium", 1)])
def test_the_recommended_recipes_run_side_by_side_at_a_small_budget(
    small_project, monkeypatch, budget, n
):
    monkeypatch.setattr(slots, "cores_here", lambda: 4)
    monkeypatch.setattr(slots, "memory_here", lambda: None)
    (small_project / "project.yml").write_text(yaml.safe_dump(PROJECT | {"time": budget}))
    members = {
        "300": {"import": "foldsmith:recommended_pretraining.yml"},
        "400": {"import": "foldsmith:image_descriptors.yml"},
        "401": {
            "import": "foldsmith:recommended_frozen.yml",
            "model/pretrained": "output/pretraining/backbone_epoch_10.pth",
        },
        "410": {"import": "foldsmith:from_scratch_regression.yml"},
        "420": {"import": "foldsmith:recommended_distribution.yml"},
    }
    for name, content in members.items():
        write_experiment(small_project, name, content)
    outputs = ["image_descriptors", "frozen", "regression", "distribution"]
    blend = {"ensemble/experiments": [f"output/{name}" for name in outputs]}
    write_experiment(small_project, "900", EXPERIMENTS["900"] | blend)
    snapshots = ("300:globals/snapshot_interval=10", "*:globals/device=cpu")
    plan = plan_of(ProjectFolder.open(small_project), "exp_config/900.yml", snapshots)
    assert sum(step.kind.computes for step in plan.steps) == 9
    assert processes_for(plan.steps) == n
