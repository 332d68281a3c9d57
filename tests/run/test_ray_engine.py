"""Steps as tasks of Ray, on a real cluster of two nodes: two raylets on this machine.

Losses of the projects' own wait for a file, or for each other: what has to happen while a training
runs happens then, however busy the machine is.
"""

import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from kill_and_resume import compare
from small_project import EXPERIMENTS, PROJECT, make_project, write_experiment
from warm import Command, foldsmith

from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.run.engine import run

pytest.importorskip("ray")

RUN = ["run", "--no-report", "-cfg", "exp_config/200.yml"]

# Seconds that may be waited for what takes a few: the machine may be busy with other tests.
PATIENCE = 120

# A node whose process is gone refuses the question how it is, three times in 1.5 s. One that is
# only slow to answer is not taken for dead.
RAY = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
    "health_check_timeout_ms": 1000 * PATIENCE,
    "agent_register_timeout_ms": 1000 * PATIENCE,
    "worker_register_timeout_seconds": PATIENCE,
}

OWN = '''
import os
import time
from pathlib import Path

import torch

FOLDER = Path(__file__).parent


def wait_for(*files):
    until = time.monotonic() + 240
    while not all(file.exists() for file in files):
        assert time.monotonic() < until, files
        time.sleep(0.05)


class WaitsAfterAnEpoch(torch.nn.MSELoss):
    """Goes on after the first epoch when it is let."""

    def __init__(self, fold):
        super().__init__()
        self.resume = FOLDER / f"output/200/fold{fold}/resume.pth"

    def forward(self, logits, targets):
        if self.resume.exists() and len(logits) > 2:
            wait_for(FOLDER / "go")
        return super().forward(logits, targets)


class MeetsTheOtherFold(torch.nn.MSELoss):
    """Goes on when the other fold is here too; in fold 0 it is no number."""

    def __init__(self, fold):
        super().__init__()
        self.fold = fold

    def forward(self, logits, targets):
        if len(logits) <= 2:  # as check tries it
            return super().forward(logits, targets)
        cards = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        (FOLDER / f"here{self.fold}").write_text(cards)
        wait_for(FOLDER / "here0", FOLDER / "here1")
        loss = super().forward(logits, targets)
        return loss * float("nan") if self.fold == 0 else loss


TYPES = {"WaitsAfterAnEpoch": WaitsAfterAnEpoch, "MeetsTheOtherFold": MeetsTheOtherFold}
'''


def one_thread() -> None:
    """Compute as a task with one CPU does: the number of threads may change the last digits."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two nodes with a CPU each; the first has a GPU, as far as Ray is told."""
    from ray.cluster_utils import Cluster

    # Sockets lie in it, whose paths must be short.
    folder = tempfile.mkdtemp(prefix="fs-ray-", dir="/tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        # What nobody looks at is not started.
        spare = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
        head = node | spare | {"num_gpus": 1, "_system_config": RAY}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        cluster.add_node(wait=False, **node)
        cluster.wait_for_nodes(timeout=PATIENCE)
        yield cluster
        cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, small_images):
    """A project that is preprocessed, with losses of its own."""
    folder = make_project(tmp_path_factory.mktemp("ray") / "project", small_images)
    (folder / "own.py").write_text(OWN)
    settings = PROJECT | {"python": ["own.py"], "resources": {"train": {"cpus": 1}}}
    (folder / "project.yml").write_text(yaml.safe_dump(settings))
    result = foldsmith(folder, *RUN, "--until", "preprocess", "200:model/pretrained=null")
    assert result.returncode == 0, result.stderr
    return folder


def copy_of(prepared: Path, folder: Path, loss: str) -> Path:
    shutil.copytree(prepared, folder)
    values = {
        "model/pretrained": None,
        "globals/device": "cpu",
        "loss": {"type": loss, "fold": "@/globals/val_fold"},
    }
    write_experiment(folder, "200", EXPERIMENTS["200"] | values)
    return folder


def on_ray(cluster) -> list[str]:
    return [*RUN, "--engine", "ray", "--address", cluster.address]


@pytest.mark.slow
def test_a_node_dies_and_the_driver_goes_and_the_result_is_that_of_a_local_run(
    cluster, prepared, tmp_path
):
    local = copy_of(prepared, tmp_path / "local", "WaitsAfterAnEpoch")
    (local / "go").touch()
    alone = Command(local, *RUN, before=(one_thread,))  # beside the other

    folder = copy_of(prepared, tmp_path / "ray", "WaitsAfterAnEpoch")
    command = on_ray(cluster)
    driver = Command(folder, *command)
    # There is a CPU for one fold on either node.
    for fold in (0, 1):
        driver.wait_for_output(f"train 200 fold {fold} |     1/2 ", timeout=PATIENCE)
    driver.send_signal(signal.SIGINT)
    left = driver.finish()
    assert left.returncode == 130
    asked = " ".join(["foldsmith", *command])
    last = left.stderr.splitlines()[-1]
    assert last == f"foldsmith: the run goes on. Attach to it with: {asked}; stop it with: " + (
        f"{asked} --stop"
    )
    table = foldsmith(folder, "status", "-cfg", "exp_config/200.yml").stdout
    assert table.count("running") == 2 and table.count("epoch 2/2") == 2

    # Another wish is not mistaken for this run.
    other = foldsmith(folder, *command, "--until", "train")
    assert other.returncode == 2 and "asked for with other values or options" in other.stderr

    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    driver = Command(folder, *command)
    driver.wait_for_output("attached to the run", timeout=PATIENCE)
    cluster.wait_for_nodes(timeout=PATIENCE)  # that is, until the loss is known
    # The fold that lives ends, and the other one gets its CPU.
    (folder / "go").touch()
    result = driver.finish()
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout.count("its process or node has died; attempt 2 of 4") == 1
    assert result.stdout.count("continuing after epoch 1 of 2") == 1
    assert "everything is done: 4 steps" in result.stdout
    # All but times, memory and dates (TIMES there): weights, tables, logs, predictions, manifests.
    assert alone.finish().returncode == 0, alone.read()
    assert compare(local, folder) == []
    assert (folder / "output/200/submission_by_best_metric.csv").is_file()


def test_two_steps_share_a_card_and_one_that_fails_does_not_stop_the_other(
    cluster, prepared, tmp_path
):
    folder = copy_of(prepared, tmp_path / "ray", "MeetsTheOtherFold")
    write_resources(folder, cpus=0.5, gpus=0.5)
    result = foldsmith(folder, *on_ray(cluster))
    assert result.returncode == 2 and "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("foldsmith: error:")]
    assert len(errors) == 2, result.stderr
    assert "fold0: the loss is NaN or infinite at epoch 1" in errors[0]
    assert errors[1] == ("foldsmith: error: infer 200: not run, since train 200 fold 0 failed")
    # Both were there at once, or they had not met, on the one card; and this one went on.
    assert [(folder / f"here{fold}").read_text() for fold in (0, 1)] == ["0", "0"]
    assert (folder / "output/200/fold1/manifest.json").is_file()
    assert "attempt 2" not in result.stdout


def test_what_no_node_has_is_said_before_anything_starts(prepared, tmp_path):
    """In a Ray of its own, which ends with the command."""
    folder = copy_of(prepared, tmp_path / "ray", "WaitsAfterAnEpoch")
    write_resources(folder, cpus=1000)
    command = Command(folder, *RUN, "--engine", "ray")
    result = command.finish()
    assert result.returncode == 2
    (line,) = [text for text in result.stderr.splitlines() if "error" in text]
    assert "project.yml: resources/train/cpus: 1000: no node has that" in line
    assert not (folder / "output").exists()
    assert started_by(command.pid) == []


def test_without_ray_it_says_how_to_install_it(small_project, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'ray>="):
        run(ProjectFolder.open(small_project), "exp_config/200.yml", engine="ray")


def started_by(pid: int) -> list[str]:
    """Return the command lines of servers that a process has started and that live."""
    session = f"_{pid}/"  # the folder of a Ray is called after its process
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has just ended
        if "/session_" in text and session in text:
            found.append(text)
    return found


def write_resources(folder: Path, **resources) -> None:
    settings = yaml.safe_load((folder / "project.yml").read_text())
    (folder / "project.yml").write_text(
        yaml.safe_dump(settings | {"resources": {"train": resources}})
    )
