"""Output to a terminal or file that is not UTF-8: escaped, and never an error."""

import shutil
import sys

import pandas as pd
import pytest
from warm import Command


def _encoded(encoding: str) -> None:
    # As PYTHONIOENCODING or a locale of another time: strict for stdout.
    sys.stdout.reconfigure(encoding=encoding, errors="strict")
    sys.stderr.reconfigure(encoding=encoding, errors="strict")


def run(folder, encoding, *arguments, code=0):
    command = Command(folder, *arguments, before=(_encoded, encoding))
    assert command.wait(120) == code, [path.read_bytes() for path in command.outputs]
    return [path.read_bytes().decode(encoding, "replace") for path in command.outputs]


@pytest.fixture
def named(tmp_path, small_images):
    """Images and a table whose target has a Japanese name."""
    folder = tmp_path / "データ"
    shutil.copytree(small_images / "photos", folder / "写真")
    table = pd.read_csv(small_images / "train.csv")[["object_id", "target"]]
    table.rename(columns={"target": "目標"}).to_csv(folder / "t.csv", index=False)
    return folder


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_every_stream_takes_every_name(named, encoding):
    new = ("new", "プ", "--images", "写真", "--train", "t.csv", "--target", "目標", "--yes")
    out, err = run(named, encoding, *new)
    assert "\\u76ee\\u6a19" in out
    # Other tests keep the cores busy, which a plan of the time tells.
    assert all(line.startswith("warning: other processes keep") for line in err.splitlines())
    # The files are UTF-8 as ever.
    assert "目標" in (named / "プ/project.yml").read_text(encoding="utf-8")
    _, err = run(named / "プ", encoding, "check", "-cfg", "無い.yml", code=2)
    (line,) = err.splitlines()
    assert line.startswith("foldsmith: error: ") and "\\u7121\\u3044.yml" in line
    out, _ = run(named / "プ", encoding, "status")
    assert "preprocess" in out
    out, _ = run(named / "プ", encoding, "run", "-cfg", "exp_config/901.yml", "--dry-run")
    assert "train" in out
