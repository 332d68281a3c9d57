"""The notebooks for Colab and Kaggle: a session that ends midway, and the next one."""

import os
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

TINY = {
    "300:model/backbone/model_name": "test_resnet",
    "300:globals/max_epoch": 2,
    "300:loader/train/batch_size": 12,
    "401:model/base_name": "test_resnet",
    "410:model/base_name": "test_resnet",
    "420:model/base_name": "test_resnet",
    "410:globals/max_epoch": 1,
    "420:globals/max_epoch": 1,
    "[34]*:dataset/img_size": 32,
}


def read(name, replaced):
    """Return a notebook with other paths and values in the cell that sets them."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    for before, after in replaced.items():
        assert before in cell.source, before
        cell.source = cell.source.replace(before, after)
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


@pytest.fixture
def data(tmp_path, small_photos, monkeypatch):
    """A folder with photos and tables of two folds."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    folder = tmp_path / "data"
    folder.mkdir()
    train = pd.read_csv(small_photos / "train.csv")
    train["fold"] = train["art_series_id"].map(
        {g: k % 2 for k, g in enumerate(train["art_series_id"].unique())}
    )
    train.to_csv(folder / "train.csv", index=False)
    shutil.copy(small_photos / "test.csv", folder)
    shutil.copytree(small_photos / "photos", folder / "images")
    return folder


@pytest.mark.parametrize("name", ["colab", "kaggle"])
def test_they_are_short_and_say_that_they_were_not_run_there(name):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert 6 <= len(notebook.cells) <= 10
    assert f"run on {name.capitalize()} itself yet" in notebook.cells[0].source


def test_colab_goes_on_after_the_session_was_lost(data, tmp_path):
    drive, here = tmp_path / "drive", tmp_path / "work"
    shutil.make_archive(str(data / "images"), "zip", data / "images")
    shutil.rmtree(data / "images")
    data.rename(drive)
    values = '{"[0-9]*:globals/resume_interval": 5}'
    replaced = {
        "/content/drive/MyDrive/foldsmith": str(drive),
        "/content/work": str(here),
        values: repr(TINY),
    }
    first = client_of(read("colab", replaced))
    manifest = drive / "output/300_simsiam/manifest.json"

    def kill():
        until = time.monotonic() + 200
        while not manifest.exists() and time.monotonic() < until:
            time.sleep(0.02)
        first.km.provisioner.process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(DeadKernelError):
        first.execute()
    killer.join()
    pretrained = manifest.stat().st_mtime_ns
    assert not (drive / "submission.csv").exists()
    # The machine is gone, and what was on its disk.
    shutil.rmtree(here)
    second = client_of(read("colab", replaced)).execute()
    text = "".join(printed(second))
    assert "everything is done" in text and "pretrain 300" not in text
    assert manifest.stat().st_mtime_ns == pretrained
    assert list(pd.read_csv(drive / "submission.csv")["object_id"]) == list(
        pd.read_csv(drive / "test.csv")["object_id"]
    )
    assert (drive / "901.html").is_file()


def test_kaggle_goes_on_from_the_output_of_an_earlier_version(data, tmp_path):
    kept, here, earlier = (tmp_path / name for name in ("working", "tmp", "earlier"))
    values = " ".join(f"'{key}={value}'" for key, value in TINY.items())
    replaced = {
        "/kaggle/input/COMPETITION": str(data),
        "/kaggle/input/THIS-NOTEBOOK/output": str(earlier / "output"),
        "/kaggle/working": str(kept),
        "/kaggle/tmp": str(here),
        'VALUES = ""': f'VALUES = "{values} --until pretrain"',
    }
    kept.mkdir()
    first = client_of(read("kaggle", replaced)).execute()
    assert "not finished" in printed(first)[-1] and not (kept / "submission.csv").exists()
    manifest = kept / "output/300_simsiam/manifest.json"
    pretrained = manifest.read_bytes()
    kept.rename(earlier)
    for path in earlier.rglob("*"):  # a data set cannot be written to
        path.chmod(0o555 if path.is_dir() else 0o444)
    kept.mkdir()
    shutil.rmtree(here)
    replaced['VALUES = ""'] = f'VALUES = "{values}"'
    second = client_of(read("kaggle", replaced)).execute()
    text = printed(second)
    assert "everything is done" in "".join(text) and "pretrain 300: " not in "".join(text)
    assert "11 of 11 steps done" in text[-2] and "to hand in" in text[-1]
    assert manifest.read_bytes() == pretrained
    assert (kept / "submission.csv").is_file() and (kept / "901.html").is_file()


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
