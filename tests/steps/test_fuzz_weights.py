"""Damaged keys of weights and of several numbers: an answer or one line for people."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from number_data import make_numbers
from small_project import make_project
from test_fuzz import FUZZ, MANY, TOKENS, YAML_TOKENS, edited
from test_fuzz_labels import one_line

from foldsmith.config import Experiment
from foldsmith.config.check import check_experiment
from foldsmith.data.table_checks import table_problems
from foldsmith.errors import FoldsmithError
from foldsmith.project import ProjectFolder
from foldsmith.steps.registry import types_of

# Pieces of the keys of weights and numbers.
WORDS = [
    *("target_columns: ", "target_ranges: ", "target_weights: ", "derived_columns: ", "width"),
    *("{width: [0, 1]}", "{light: .inf}", "{total: width +}", "{width: width}", "{a: 1 / 0 * b}"),
    *("class_weights: ", "balanced", "{0: 2}", "{0: -1}", "none", "sample_weight_column: "),
    *("metric_weight_column: ", "w", "site", "target_kind: ", "numbers", "[0, 40]", "{1: .nan}"),
]
OVERRIDES = ("loader/train/sampler=balanced", "globals/class_weights={0: 2, 3: 1}")


def weighted(folder):
    """Add a column of weights to the train table and name it in the project file."""
    path = folder / "input/train.csv"
    table = pd.read_csv(path)
    table.assign(w=1 + table.index % 3).to_csv(path, index=False)
    keys = "sample_weight_column: w\nmetric_weight_column: w\n"
    (folder / "project.yml").write_text((folder / "project.yml").read_text() + keys)
    return folder


@pytest.fixture(scope="module")
def projects(tmp_path_factory, small_images):
    folder = tmp_path_factory.mktemp("fuzz")
    numbers = make_numbers(folder / "x", 12, 3, target_weights={"around": 2.0})
    classes = weighted(make_project(folder / "classes", small_images))
    with (classes / "project.yml").open("a") as file:
        file.write("class_weights: {0: 2, 3: 1}\n")
    return {"numbers": (weighted(numbers), "410"), "classes": (classes, "100")}


def opened(folder, name, *overrides):
    """Return the problems of a project's tables; check one of its experiments."""
    project = ProjectFolder.open(folder)
    problems = table_problems(project)
    # Its backbone is not trained here.
    overrides = ("model/pretrained=null", *overrides)
    check_experiment(
        Experiment.load(project, f"exp_config/{name}.yml", overrides), types_of(project)
    )
    return problems


@pytest.mark.parametrize("form", ["numbers", "classes"])
def test_the_undamaged_projects_are_in_order(projects, form):
    assert opened(*projects[form]) == []


@pytest.mark.parametrize("form", ["numbers", "classes"])
@settings(max_examples=60 * MANY, **FUZZ)
@given(data=st.data())
def test_project_files_of_weights_and_numbers(projects, form, data):
    folder, name = projects[form]
    path = folder / "project.yml"
    original = path.read_text()
    path.write_text(data.draw(edited(original, [*YAML_TOKENS, *WORDS])), encoding="utf-8")
    try:
        problems = opened(folder, name)
    except FoldsmithError as error:
        one_line(error)
    else:
        assert all("\n" not in line for line in problems)
    finally:
        path.write_text(original)


@pytest.mark.parametrize("form", ["numbers", "classes"])
@settings(max_examples=60 * MANY, **FUZZ)
@given(data=st.data())
def test_tables_of_weights_and_numbers(projects, form, data):
    folder, _ = projects[form]
    path = folder / "input/train.csv"
    original = path.read_bytes()
    path.write_bytes(data.draw(edited(original, [*TOKENS, b"w", b"0", b"inf", b"n/a", b"1e308"])))
    try:
        problems = table_problems(ProjectFolder.open(folder))
    finally:
        path.write_bytes(original)
    assert all("train.csv" in line and "\n" not in line for line in problems), problems


@settings(max_examples=60 * MANY, **FUZZ)
@given(data=st.data())
def test_overrides_of_weights_and_samplers(projects, data):
    folder, name = projects["classes"]
    override = data.draw(
        st.sampled_from(OVERRIDES).flatmap(lambda text: edited(text, [*YAML_TOKENS, *WORDS]))
    )
    try:
        opened(folder, name, override)
    except FoldsmithError as error:
        one_line(error)
