"""Faults while working, each injected for real: one clear line, and a run that goes on.

What cannot be made to happen here (a GPU without memory) is the one stand-in, marked as such.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from kill_and_resume import compare
from small_project import EXPERIMENTS, make_project, write_experiment
from warm import Command, foldsmith, wait_for

RUN = ["run", "--no-report", "-cfg", "exp_config/900.yml"]
RUN_200 = ["run", "--no-report", "-cfg", "exp_config/200.yml", "200:model/pretrained=null"]


def error_of(result) -> str:
    """Return the one line of an error."""
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("foldsmith: error:")]
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.fixture(scope="module")
def clean(tmp_path_factory, small_images):
    """A project after an uninterrupted run."""
    folder = make_project(tmp_path_factory.mktemp("clean") / "project", small_images)
    result = foldsmith(folder, *RUN)
    assert result.returncode == 0, result.stderr
    return folder


def longer(folder: Path, name: str, **values) -> None:
    """Make an experiment long enough to interfere with."""
    write_experiment(folder, name, EXPERIMENTS[name] | {"globals/max_epoch": 200} | values)


def in_namespace(script: str, folder: Path) -> subprocess.CompletedProcess:
    """Run a shell script that may mount file systems of its own."""
    allowed = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", "mount -t tmpfs none /tmp"], capture_output=True
    )
    if allowed.returncode:
        pytest.skip("this machine lets nobody mount a file system")
    return subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script, "sh", sys.executable],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_disk_full_then_room(small_project):
    """A real file system without room; with room, the same command goes on."""
    script = """
        mkdir -p output && mount -t tmpfs -o size=60m none output
        "$1" -m foldsmith run -cfg exp_config/200.yml 200:model/pretrained=null; echo "code $?"
        ls output/200/fold0
        mount -o remount,size=600m none output
        "$1" -m foldsmith run -cfg exp_config/200.yml 200:model/pretrained=null; echo "code $?"
    """
    result = in_namespace(script, small_project)
    lines = [line for line in result.stderr.splitlines() if line.startswith("foldsmith: error:")]
    assert len(lines) == 1, result.stderr
    assert "No space left on device; free some space and run the command again" in lines[0]
    assert "output/200/fold0/" in lines[0]
    assert "Traceback" not in result.stderr
    assert result.stdout.count("code 2") == 1
    assert result.stdout.count("code 0") == 1


def test_output_that_cannot_be_written(small_project):
    script = """
        mkdir -p output && mount --bind output output && mount -o remount,ro,bind output
        "$1" -m foldsmith run -cfg exp_config/200.yml 200:model/pretrained=null; echo "code $?"
    """
    result = in_namespace(script, small_project)
    assert "Read-only file system" in result.stderr
    assert "Traceback" not in result.stderr
    assert "code 2" in result.stdout


def test_a_image_that_goes_while_it_is_needed(small_project, clean):
    # Nothing is kept in memory: each epoch reads the images.
    values = {"globals/image_store": False, "model/pretrained": None}
    longer(small_project, "200", **values)
    image = sorted((small_project / "input/photos").glob("*.jpg"))[0]
    process = Command(small_project, "run", "--no-report", "-cfg", "exp_config/200.yml")
    wait_for(small_project / "output/200/fold0/resume.pth", process)
    away = small_project / "away.jpg"
    shutil.move(image, away)
    line = error_of(process.finish())
    assert f"{image.name}: no such image" in line
    shutil.move(away, image)
    table = foldsmith(small_project, "status", "-cfg", "exp_config/200.yml").stdout
    assert "continues at epoch" in table


def test_a_loader_process_that_is_killed(small_project):
    longer(small_project, "100", **{"model/pretrained": None})
    process = Command(small_project, "run", "--no-report", "-cfg", "exp_config/100.yml")
    wait_for(small_project / "output/100/fold0/resume.pth", process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children
    os.kill(int(children[0]), signal.SIGKILL)
    line = error_of(process.finish())
    assert "a loader process died" in line
    assert "num_workers" in line
    assert "continues at epoch" in foldsmith(small_project, "status").stdout


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_says_how_to_go_on(small_project, how, code):
    longer(small_project, "100", **{"model/pretrained": None})
    command = ["train", "-cfg", "exp_config/100.yml", "-v", "1", "-f"]
    assert foldsmith(small_project, "preprocess").returncode == 0
    process = Command(small_project, *command)
    wait_for(small_project / "output/100/fold1/resume.pth", process)
    asked = time.perf_counter()
    process.send_signal(how)
    result = process.finish()
    assert time.perf_counter() - asked < 20
    assert result.returncode == code
    assert "Traceback" not in result.stderr
    expected = "Go on with: foldsmith train -cfg exp_config/100.yml -v 1 --resume"
    assert expected in result.stderr
    # And that command does go on: the training is let end after 200 epochs more or less.
    again = Command(small_project, *expected.split()[4:])
    again.wait_for_output("continuing after epoch")
    again.kill()


def test_a_loss_that_is_no_number_stops_that_fold_and_names_what_to_do(small_project):
    diverging = {"optimizer/lr": 1e30, "scheduler": None, "model/pretrained": None}
    write_experiment(small_project, "200", EXPERIMENTS["200"] | diverging)
    result = foldsmith(small_project, *RUN)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    errors = [x for x in result.stderr.splitlines() if x.startswith("foldsmith: error:")]
    for fold in (0, 1):
        line = next(x for x in errors if f"fold{fold}" in x)
        assert "the loss is NaN or infinite at epoch 1, batch" in line
        assert "learning rate 1e+30" in line and "last good snapshot" in line
    # The other experiment does not suffer.
    assert (small_project / "output/100/manifest_by_best_metric.json").is_file()
    assert any("ensemble 900: not run, since infer 200 failed" in x for x in errors)
    # With the cause gone, the same command ends the job.
    write_experiment(small_project, "200", EXPERIMENTS["200"])
    assert foldsmith(small_project, *RUN).returncode == 0


@pytest.mark.parametrize("stop", [False, True])
def test_collapse_warns_or_stops(small_project, stop):
    # So much weight decay that all weights, and with them all features, go to zero.
    content = EXPERIMENTS["000"] | {
        "globals/max_epoch": 6,
        "optimizer/lr": 0.01,
        "optimizer/weight_decay": 90.0,
    }
    write_experiment(small_project, "000", content)
    command = [
        "run",
        "--no-report",
        "-cfg",
        "exp_config/000.yml",
        f"globals/stop_on_collapse={str(stop).lower()}",
    ]
    result = foldsmith(small_project, *command)
    assert "the features have collapsed: train/std is" in result.stderr
    assert "epoch" in result.stderr
    if stop:
        assert result.returncode == 2
        assert not (small_project / "output/000/manifest.json").exists()
    else:
        assert result.returncode == 0
        assert result.stderr.count("have collapsed") == 1


MEMORY = """
import torch

class CpuWithout(torch.nn.Module):
    def forward(self, logits, targets):
        if len(logits) <= 2:  # as check tries it
            return logits.sum()
        return torch.empty(2**58).sum() + logits.sum()

class GpuWithout(torch.nn.Module):
    # A stand-in: there need be no GPU to lack memory.
    def forward(self, logits, targets):
        if len(logits) <= 2:
            return logits.sum()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

TYPES = {"CpuWithout": CpuWithout, "GpuWithout": GpuWithout}
"""


@pytest.mark.parametrize("loss", ["CpuWithout", "GpuWithout"])
def test_out_of_memory_names_a_batch_to_try(small_project, loss):
    (small_project / "own.py").write_text(MEMORY)
    text = (small_project / "project.yml").read_text()
    (small_project / "project.yml").write_text(text + "python: [own.py]\n")
    result = foldsmith(small_project, *RUN_200, f"200:loss={{type: {loss}}}")
    line = error_of(result)
    assert "out of memory with batches of 4 images" in line
    assert "loader/train/batch_size=2 globals/grad_accum=4" in line
    assert foldsmith(small_project, *RUN_200).returncode == 0


def test_a_second_run_is_told_who_is_at_it(small_project):
    longer(small_project, "200", **{"model/pretrained": None})
    process = Command(small_project, "run", "--no-report", "-cfg", "exp_config/200.yml")
    wait_for(small_project / "output/200/fold0/resume.pth", process)
    second = foldsmith(small_project, "run", "--no-report", "-cfg", "exp_config/200.yml")
    assert f"process {process.pid}" in error_of(second)
    # The stages know the lock too.
    assert f"in use by process {process.pid}" in error_of(
        foldsmith(small_project, "train", "-cfg", "exp_config/200.yml", "-f", "-v", "0")
    )
    table = foldsmith(small_project, "status", "-cfg", "exp_config/200.yml").stdout
    assert "running" in table and "images/s" in table and "epoch" in table
    process.kill()
    # A dead process holds nothing.
    third = Command(small_project, "run", "--no-report", "-cfg", "exp_config/200.yml")
    third.wait_for_output("continuing after epoch")
    third.kill()


def test_a_damaged_file_to_resume_from_is_named(small_project):
    longer(small_project, "200", **{"model/pretrained": None})
    process = Command(small_project, "run", "--no-report", "-cfg", "exp_config/200.yml")
    resume = small_project / "output/200/fold0/resume.pth"
    wait_for(resume, process)
    process.kill()
    os.truncate(resume, 1000)
    line = error_of(foldsmith(small_project, "run", "--no-report", "-cfg", "exp_config/200.yml"))
    assert "resume.pth: not a readable snapshot" in line
    assert "delete it to start this training anew" in line


def test_a_fold_table_that_was_edited_is_not_overwritten(clean, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(clean, folder)
    path = folder / "input/train_gkf-2fold.csv"
    table = pd.read_csv(path)
    table.assign(fold=1 - table["fold"]).to_csv(path, index=False)
    edited = path.read_bytes()
    line = error_of(foldsmith(folder, *RUN))
    assert "train_gkf-2fold.csv was changed since preprocess wrote it" in line
    assert path.read_bytes() == edited
    path.unlink()
    result = foldsmith(folder, *RUN)
    assert result.returncode == 0, result.stderr
    # The same table again: nothing after it was run again.
    assert "train 100" not in result.stdout
    assert compare(clean, folder) == []
