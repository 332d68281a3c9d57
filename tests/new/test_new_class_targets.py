"""``foldsmith new`` with several class targets per image."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "steps"))
from class_target_data import CLASSES, TARGETS, make_class_targets

from foldsmith.errors import ConfigError, DataError
from foldsmith.new.survey.class_columns import classes_in_columns
from foldsmith.new.survey.columns import Source
from foldsmith.new.survey.several import numbers_in_columns
from foldsmith.project import ProjectFolder
from foldsmith.project.class_forms import ClassTargets
from foldsmith.targets.metrics import METRICS


def source(**columns):
    return Source(pd.DataFrame(columns, dtype=str), Path("train.csv"))


def found(as_classes=False, **columns):
    return classes_in_columns(source(**columns), tuple(columns), as_classes)


def test_columns_of_text_are_recognised(tmp_path, cli):
    folder = make_class_targets(tmp_path / "x")
    ids = pd.read_csv(folder / "input/test.csv")["id"]
    pairs = [(f"{k}_{name}", 0) for k in ids for name in TARGETS]
    pd.DataFrame(pairs, columns=["row", "value"]).to_csv(tmp_path / "sample.csv", index=False)
    data = folder / "input"
    said = cli(
        *(tmp_path, "new", "fresh", "--images", str(data / "images"), "--yes"),
        *("--train", str(data / "train.csv"), "--test", str(data / "test.csv")),
        *("--target", ",".join(TARGETS), "--sample", str(tmp_path / "sample.csv")),
    ).stdout
    assert "of 2 targets per image: colour 3 (blue, green, red; in 34 of 40 images), size 2" in said
    assert "a row per id and target, joined as" in said and "sizes and epochs are not" not in said
    project = ProjectFolder.open(tmp_path / "fresh")
    assert isinstance(project.form, ClassTargets) and project.form.columns == TARGETS
    assert {name: sorted(texts) for name, texts in CLASSES.items()} == {
        name: list(texts) for name, texts in project.form.classes_of
    }
    assert project.metric.name == "Accuracy"
    members = yaml.safe_load((tmp_path / "fresh/exp_config/901.yml").read_text())
    listed = [name.removeprefix("output/")[:3] for name in members["ensemble/experiments"]]
    assert {"400", "402", "403", "404", "410"} <= set(listed)
    cli(tmp_path / "fresh", "run", "--dry-run", "-cfg", "exp_config/901.yml")


def test_numbers_are_classes_only_if_they_are_said_to_be():
    columns = {"root": ["3", "10", "3", "10"], "vowel": ["a", "", "b", "b"]}
    assert found(**columns) is None
    with pytest.raises(DataError, match="or all of them texts, which are classes"):
        numbers_in_columns(source(root=["3", "1", "2"], vowel=["a", "1", "2"]), ("root", "vowel"))
    both = found(as_classes=True, **columns)
    assert both.classes_of == (("3", "10"), ("a", "b"))
    assert np.array_equal(both.values, [[0, 0], [1, np.nan], [0, 1], [1, 1]], equal_nan=True)


def test_a_class_may_be_called_none_but_not_na():
    both = found(mark=["none", "dot", "none", "NA"], size=["s", "l", "s", "l"])
    assert both.classes_of[0] == ("dot", "none") and np.isnan(both.values[3, 0])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": ["x", "x", "x"], "b": ["y", "z", "y"]}, "column a: has fewer than two classes"),
        ({"a": list("uvwxyz"), "b": list("ppqqpp")}, "column a: 6 texts in 6 rows are no classes"),
        ({"a": ["x", "", "z"], "b": ["y", "", "y"]}, "row 2 has none of the targets a, b"),
    ],
)
def test_columns_that_are_no_targets_are_one_line(columns, message):
    with pytest.raises(DataError, match=message) as caught:
        found(**columns)
    assert "\n" not in str(caught.value)


def test_options_of_a_metric_must_fit_each_column():
    both = found(a=["x", "y", "z", "x", "y", "z"], b=["p", "q", "p", "q", "p", "q"])
    with pytest.raises(ConfigError, match="column b: k=2 must be below"):
        both.judged_by(METRICS["TopKAccuracy"])
    assert both.judged_by(METRICS["F1"]).blocks.sizes == (3, 2)
