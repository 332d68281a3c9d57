import pytest

from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder

GOOD = """
name: demo
image_path: images/{id}.jpg
id_column: id
target_column: y
target_range: [1, 3]
n_classes: 3
folds: {method: KFold, n_splits: 4}
"""


def write(folder, text):
    (folder / "project.yml").write_text(text)
    return folder


def test_defaults_and_derived_values(tmp_path):
    project = ProjectFolder.open(write(tmp_path, GOOD))
    assert project.class_values == [1, 2, 3]
    assert project.fold_table == tmp_path.resolve() / "input" / "train_kf-4fold.csv"
    assert project.n_splits == 4


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("target_columm: y", "unknown key target_columm (did you mean target_column or"),
        ("sample_submission: 3", "sample_submission: Input should be a valid string"),
        ("metric: rsme", "metric: there is no metric rsme (did you mean RMSE or"),
        ("metric: [RMSE]", "metric: there is no metric ['RMSE']"),
        ("class_values: [1, 2]", "class_values: 2 values for n_classes: 3"),
    ],
)
def test_mistakes_are_named(tmp_path, extra, message):
    with pytest.raises(ConfigError) as error:
        ProjectFolder.open(write(tmp_path, GOOD + extra))
    assert message in str(error.value)
    assert "project.yml" in str(error.value)


def test_nested_mistakes_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown key folds/seeds \(did you mean seed\?\)"):
        ProjectFolder.open(write(tmp_path, GOOD.replace("n_splits: 4", "seeds: 4")))


def test_group_method_needs_a_group_column(tmp_path):
    with pytest.raises(ConfigError, match="GroupKFold needs one"):
        ProjectFolder.open(write(tmp_path, GOOD.replace("KFold", "GroupKFold")))


def test_no_project_file_says_where_to_go(tmp_path):
    with pytest.raises(ConfigError, match="--project DIR"):
        ProjectFolder.open(tmp_path)


def test_own_python_offers_types(tmp_path):
    (tmp_path / "parts.py").write_text("def three():\n    return 3\nTYPES = {'Three': three}\n")
    project = ProjectFolder.open(write(tmp_path, GOOD + "python: [parts.py]"))
    assert project.types["Three"]() == 3


def test_own_python_with_an_error_is_named(tmp_path):
    (tmp_path / "parts.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(ConfigError, match=r"parts\.py: ModuleNotFoundError"):
        ProjectFolder.open(write(tmp_path, GOOD + "python: [parts.py]"))


@pytest.mark.parametrize("name", ["type", "a.b", "two words"])
def test_names_of_auxiliary_targets_are_plain(tmp_path, name):
    text = f"auxiliary: {{{name!r}: {{column: x, kind: regression}}}}\n"
    with pytest.raises(ConfigError, match=r"auxiliary: .* is no name of letters"):
        ProjectFolder.open(write(tmp_path, GOOD + text))
