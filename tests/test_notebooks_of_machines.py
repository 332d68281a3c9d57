"""The notebooks for Colab and Kaggle: a session that ends midway, and the next one."""

import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
SURVIVAL = Path(__file__).resolve().parent / "survival"

FIRST = "output/400_descriptors/manifest_by_last.json"

TINY = {
    "410:globals/max_epoch": 1,
    "420:globals/max_epoch": 1,
    "4*:dataset/img_size": 32,
    "402:model/n_centres": 20,
    "404:model/n_components": 4,
    "ensemble/methods": ["mean", "box"],
}

# To measure a machine takes longer than the rest of a session (test_time.py does it), and so does
# the start of processes for steps side by side (test_notebook.py).
QUICK = f"""
import sys
sys.path.append({str(SURVIVAL)!r})
from given_speeds import give_speeds
from warm import one_core
give_speeds()
one_core()
"""


def read(name, replaced):
    """Return a notebook with other paths and values in the cell that sets them."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    for before, after in replaced.items():
        assert before in cell.source, before
        cell.source = cell.source.replace(before, after)
    cell.source += QUICK
    return notebook


def client_of(notebook):
    return NotebookClient(notebook, timeout=300, kernel_name="python3")


def printed(notebook):
    """Return what the cells have printed, one text per code cell."""
    return [
        "".join(o.text for o in cell.outputs if o.output_type == "stream")
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.fixture(scope="module", autouse=True)
def kernels(tmp_path_factory):
    """Let kernels find the command, and keep out of the home of who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        yield


def colab_of(drive, here):
    replaced = {
        "/content/drive/MyDrive/foldsmith": str(drive),
        "/content/work": str(here),
        '"time": "1h"': '"time": "15m"',
        "VALUES = {": f"VALUES = {TINY!r} | {{",
    }
    return client_of(read("colab", replaced))


@pytest.fixture(scope="module")
def lost(tmp_path_factory, small_images):
    """A Drive as a session on Colab leaves it that is lost after the first member."""
    drive, here = (
        tmp_path_factory.mktemp("lost") / "drive",
        tmp_path_factory.mktemp("lost") / "work",
    )
    drive.mkdir()
    train = pd.read_csv(small_images / "train.csv")
    groups = {name: k % 2 for k, name in enumerate(train["art_series_id"].unique())}
    train["fold"] = train["art_series_id"].map(groups)
    train.to_csv(drive / "train.csv", index=False)
    shutil.copy(small_images / "test.csv", drive)
    shutil.make_archive(str(drive / "images"), "zip", small_images / "photos")
    client = colab_of(drive, here)

    def kill():
        until = time.monotonic() + 200
        while not (drive / FIRST).exists() and time.monotonic() < until:
            time.sleep(0.02)
        client.km.provisioner.process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(DeadKernelError):
        client.execute()
    killer.join()
    assert (drive / FIRST).exists() and not (drive / "submission.csv").exists()
    return drive


@pytest.mark.parametrize("name", ["colab", "kaggle"])
def test_they_are_short_and_say_that_they_were_not_run_there(name):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert 6 <= len(notebook.cells) <= 10
    assert f"run on {name.capitalize()} itself yet" in notebook.cells[0].source


def test_colab_goes_on_after_the_session_was_lost(lost, tmp_path):
    # The machine is another one: nothing but the Drive is left.
    drive = shutil.copytree(lost, tmp_path / "drive")
    first = (drive / FIRST).read_bytes()
    text = "".join(printed(colab_of(drive, tmp_path / "work").execute()))
    assert "everything is done" in text and "] fit 400:" not in text
    assert (drive / FIRST).read_bytes() == first
    submitted, to_predict = (pd.read_csv(drive / f"{name}.csv") for name in ("submission", "test"))
    assert list(submitted["object_id"]) == list(to_predict["object_id"])
    assert (drive / "901.html").is_file()


@pytest.mark.slow
def test_kaggle_goes_on_from_the_output_of_an_earlier_version(lost, tmp_path):
    kept, here, data = (tmp_path / name for name in ("working", "tmp", "competition"))
    kept.mkdir()
    shutil.copytree(lost, data)
    shutil.unpack_archive(data / "images.zip", data / "images")
    first = (data / FIRST).read_bytes()
    for path in data.rglob("*"):  # a data set cannot be written to
        path.chmod(0o555 if path.is_dir() else 0o444)
    replaced = {
        "/kaggle/input/COMPETITION": str(data),
        "/kaggle/input/THIS-NOTEBOOK/output": str(data / "output"),
        "/kaggle/working": str(kept),
        "/kaggle/tmp": str(here),
        '"time": "1h"': '"time": "15m"',
        'VALUES = ""': f"VALUES = {shlex.join(f'{k}={v}' for k, v in TINY.items())!r}",
    }
    text = printed(client_of(read("kaggle", replaced)).execute())
    assert "everything is done" in "".join(text) and "] fit 400:" not in "".join(text)
    assert "to hand in" in text[-1]
    assert (kept / FIRST).read_bytes() == first
    assert (kept / FIRST).stat().st_mode & (kept / "output").stat().st_mode & 0o200
    assert (kept / "submission.csv").is_file() and (kept / "901.html").is_file()


def test_kaggle_says_what_to_do_after_a_run_that_was_stopped(tmp_path, capsys):
    cell = nbformat.read(NOTEBOOKS / "kaggle.ipynb", as_version=4).cells[-1]
    exec(cell.source, {"KEPT": tmp_path})
    assert "not finished: save this version, add its output as input" in capsys.readouterr().out


def test_wheels_are_collected_and_install_without_the_internet(tmp_path):
    wheels = tmp_path / "wheels"
    command = [sys.executable, str(NOTEBOOKS / "wheels.py"), str(wheels), "--no-build-isolation"]
    # Here nothing is missing, so that nothing is downloaded.
    environment = os.environ | {"PIP_NO_INDEX": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    (wheel,) = wheels.iterdir()
    assert wheel.name.startswith("foldsmith-") and wheel.suffix == ".whl"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    where = [str(tmp_path / "site"), "--find-links", str(wheels), "foldsmith"]
    subprocess.run([*pip, *where], check=True, env=environment, capture_output=True)
    assert (tmp_path / "site/foldsmith/config/recipes/multi_class.yml").is_file()
