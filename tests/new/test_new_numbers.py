"""``foldsmith new`` with several numbers per image."""

import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "steps"))
from number_data import NUMBERS, make_numbers

from foldsmith.project import ProjectFolder
from foldsmith.project.number_forms import SeveralNumbers


def new(cli, tmp_path, folder, *more, code=0):
    data = folder / "input"
    return cli(
        *(tmp_path, "new", "fresh", "--images", str(data / "images"), "--yes"),
        *("--train", str(data / "train.csv"), "--test", str(data / "test.csv"), *more),
        code=code,
    )


@pytest.mark.parametrize("form", ["columns", "long"])
def test_columns_of_numbers_are_recognised_and_planned(tmp_path, cli, form):
    folder = make_numbers(tmp_path / "x")
    ids = pd.read_csv(folder / "input/test.csv")["id"]
    sample = pd.DataFrame({"id": ids}).assign(**dict.fromkeys(NUMBERS, 0))
    if form == "long":
        sample = sample.melt("id", var_name="which")
    sample.to_csv(tmp_path / "sample.csv", index=False)
    named = ("--target", ",".join(NUMBERS), "--sample", str(tmp_path / "sample.csv"))
    said = new(cli, tmp_path, folder, *named).stdout
    width = pd.read_csv(folder / "input/train.csv")["width"]
    found = f"width from {width.min():g} to {width.max():g} (in 34 of 40 images), light from"
    assert f"numbers  3 per image: {found}" in said and "are labels" in said
    readme = (tmp_path / "fresh/README.md").read_text()
    assert "two networks with an output per target" in readme and "probabilities" not in readme
    assert ("one column per target" if form == "columns" else "a row per id and target") in said
    project = ProjectFolder.open(tmp_path / "fresh")
    assert isinstance(project.form, SeveralNumbers) and project.form.columns == NUMBERS
    assert project.metric.name == "NRMSE"
    members = yaml.safe_load((tmp_path / "fresh/exp_config/901.yml").read_text())
    listed = [name.removeprefix("output/")[:3] for name in members["ensemble/experiments"]]
    assert {"400", "402", "403", "404", "410", "420"} <= set(listed)
    cli(tmp_path / "fresh", "run", "--dry-run", "-cfg", "exp_config/901.yml")


def test_columns_of_0_and_1_stay_labels(tmp_path, cli):
    folder = make_numbers(tmp_path / "x", missing=False)
    path = folder / "input/train.csv"
    table = pd.read_csv(path)
    for name, limit in zip(NUMBERS, (20, 500, 10), strict=True):
        table[name] = (table[name] > limit).astype(int)
    table.to_csv(path, index=False)
    new(cli, tmp_path, folder, "--target", ",".join(NUMBERS))
    assert ProjectFolder.open(tmp_path / "fresh").settings.several_labels


def test_a_text_and_a_row_without_targets_are_one_line(tmp_path, cli):
    folder = make_numbers(tmp_path / "x")
    path = folder / "input/train.csv"
    table = pd.read_csv(path, dtype=str)
    table.loc[2, list(NUMBERS)] = None
    table.to_csv(path, index=False)
    named = ("--target", ",".join(NUMBERS))
    assert "none of the targets" in new(cli, tmp_path, folder, *named, code=2).stderr
    new(cli, tmp_path, folder, *named, "--skip-missing")
    assert len(pd.read_csv(tmp_path / "fresh/input/train.csv")) == len(table) - 1
    table.loc[2, "light"] = "dim"
    table.to_csv(path, index=False)
    (tmp_path / "y").mkdir()
    stderr = new(cli, tmp_path / "y", folder, *named, code=2).stderr
    assert "column light: 'dim' is no number" in stderr
