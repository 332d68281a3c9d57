"""Every form of a sample submission is recognised, filled with the right values and read back."""

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.submission import read_submission, submission_form, submission_table
from foldsmith.project.submission_forms import FORMS
from foldsmith.project.tables import read_test

IDS = ["007", "a", "b.png", "NA"]
NAMES = ["cat", "dog", "eel", "fox"]


def make(folder, sample, names=NAMES, **settings):
    content = {
        **{"name": "x", "image_path": "{id}.png", "id_column": "id", "target_column": "label"},
        **{"class_names": names, "folds": {"method": "KFold"}, "metric": "LogLoss"},
        **{"sample_submission": "sample.csv", **settings},
    }
    content = {key: value for key, value in content.items() if value is not None}
    (folder / "input").mkdir(exist_ok=True)
    pd.DataFrame({"id": IDS}).to_csv(folder / "input/test.csv", index=False)
    sample.to_csv(folder / "input/sample.csv", index=False)
    (folder / "project.yml").write_text(yaml.safe_dump(content))
    project = ProjectFolder.open(folder)
    return project, read_test(project)


def class_columns(order, prefix=""):
    return pd.DataFrame({"Id": IDS, **{f"{prefix}{NAMES[k]}": "0.25" for k in order}})


def long_form(order):
    rows = [(IDS[i], NAMES[k], "0") for k in order for i in range(4)]
    return pd.DataFrame(rows, columns=["Id", "class", "p"])


def ranked(k=3):
    return pd.DataFrame({"Id": IDS, "label": [" ".join(NAMES[:k])] * 4})


def probabilities(seed):
    return np.random.default_rng(seed).dirichlet(np.ones(4), 4)


SAMPLES = {
    "one column per class (4 prob": class_columns(range(4)),
    "one column per class": class_columns([2, 0, 3, 1], "class_"),
    "long: a row per id and class (class), its probability in p": long_form([3, 1, 0, 2]),
    "ranked classes in label, the 3 most probable": ranked(),
    "one column, label": pd.DataFrame({"label": ["cat"] * 4, "Id": IDS}),
}


@pytest.mark.parametrize("title", SAMPLES)
@settings(max_examples=8)
@given(seed=st.integers(0, 1000), order=st.permutations(range(4)))
def test_it_is_recognised_filled_and_read_back(tmp_path_factory, title, seed, order):
    folder, sample = tmp_path_factory.mktemp("form"), SAMPLES[title]
    # The order of the rows is the sample's affair.
    sample = sample.iloc[[k + 4 * b for b in range(len(sample) // 4) for k in order]]
    project, test = make(folder, sample)
    assert submission_form(project, test).title.startswith(title)
    known = probabilities(seed)
    classes = known.argmax(axis=1)
    table = submission_table(project, test, classes.astype(float), 2 * known)
    assert table.columns.tolist() == sample.columns.tolist()
    assert table["Id"].tolist() == sample["Id"].tolist()
    for _, row in table.iterrows():
        of_row = known[IDS.index(row["Id"])]
        by_name = dict(zip(NAMES, of_row, strict=True))
        if "p" in table:
            assert row["p"] == pytest.approx(by_name[row["class"]])
        elif "label" in table:
            best = [NAMES[k] for k in np.argsort(-of_row)]
            assert row["label"] == (" ".join(best[:3]) if "ranked" in title else best[0])
        else:
            found = row.drop("Id").rename(lambda name: name.removeprefix("class_"))
            assert found.to_dict() == pytest.approx(by_name) and found.sum() == pytest.approx(1)
    table.to_csv(folder / "out.csv", index=False)
    assert read_submission(project, folder / "out.csv", test).tolist() == classes.tolist()
    other = table.iloc[::-1] if order[0] != order[-1] else table[:2]
    other.to_csv(folder / "out.csv", index=False)
    with pytest.raises(DataError, match="is not a submission of today's test table"):
        read_submission(project, folder / "out.csv", test)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_the_example_of_the_documentation_has_the_form(tmp_path, form):
    head, *lines = [line.split(",") for line in form.example]
    sample = pd.DataFrame(lines, columns=head)
    settings = {"names": ["cat", "dog"], "target_column": "target"}
    if "several labels" in form.suits and "one column" not in form.suits:
        settings |= {"label_names": ["cat", "dog"], "label_separator": " ", "names": ()}
    elif "several numbers" in form.suits:
        settings = {"names": None, "target_column": None, "metric": "RMSE", "target_range": [0, 1]}
        settings |= {"target_columns": ["width", "height"], "target_kind": "numbers"}
    elif "several class targets" in form.suits:
        classes = {"colour": ["red", "blue"], "shape": ["disc", "square"]}
        settings = {"names": None, "target_column": None, "target_columns": list(classes)}
        settings |= {"target_kind": "classes", "target_classes": classes}
    project, _ = make(tmp_path, sample, **settings)
    test = pd.DataFrame({"id": ["a", "b"]})
    assert type(submission_form(project, test)) is form


def test_numbers_for_two_names_are_the_probability_of_the_second(tmp_path):
    sample = pd.DataFrame({"id": IDS, "label": ["0.5"] * 4})
    project, test = make(tmp_path, sample, names=["no", "yes"], metric="AUC")
    assert submission_form(project, test).title == "one column, label: the probability of yes"
    known = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0.4, 0.6]])
    table = submission_table(project, test, [0, 0, 1, 1], known)
    assert table["label"].tolist() == [0.1, 0.5, 0.8, 0.6]
    table.to_csv(tmp_path / "out.csv", index=False)
    assert read_submission(project, tmp_path / "out.csv", test).tolist() == [0, 0, 1, 1]
    # Where decisions are judged, they are handed in.
    project, test = make(tmp_path, sample, names=["no", "yes"], metric="F1")
    assert submission_table(project, test, [0, 0, 1, 1], known)["label"].tolist()[3] == "yes"


def test_ordered_classes_have_columns_too(tmp_path):
    sample = pd.DataFrame({"id": IDS, "g0": 0, "g1": 0, "g2": 0})
    of_scale = {"names": None, "target_range": [0, 2], "n_classes": 3}
    project, test = make(tmp_path, sample, **of_scale)
    known = np.random.default_rng(0).dirichlet(np.ones(3), 4)
    points = known @ [0, 1, 2]
    table = submission_table(project, test, points, known)
    np.testing.assert_allclose(table[["g0", "g1", "g2"]], known)
    table.to_csv(tmp_path / "out.csv", index=False)
    np.testing.assert_allclose(read_submission(project, tmp_path / "out.csv", test), points)
    with pytest.raises(DataError, match="needs class probabilities, which these predictions do"):
        submission_table(project, test, points)
    project, test = make(tmp_path, sample, **of_scale, metric="RMSE")
    with pytest.raises(DataError, match="a column for each class, which needs class prob.*LogLoss"):
        submission_form(project, test)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (class_columns([0, 1]), "has columns of classes such as cat, but none of eel"),
        (class_columns(range(4)).assign(gnu=0), "such as cat, but gnu, which is no class"),
        (long_form(range(4))[:-1], "for each id and class, but some are missing: it has 15 rows"),
        (
            pd.concat([long_form(range(4)), long_form([0])[:1]]),
            "but one stands twice, in line 18: it has 17 rows, and 4 ids with 4 classes need 16",
        ),
        (
            pd.DataFrame({"Id": IDS, "label": ["cat dog", "cat gnu", "cat", "cat"]}),
            "column label, line 3: ranks classes, and 'gnu' is none of the train table",
        ),
        (
            pd.DataFrame({"Id": IDS, "a": 0, "b": 0}),
            "it has: Id, a, b.; have one column per class, or a row per id and class, or a column ",
        ),
    ],
)
def test_a_form_in_part_is_one_line(tmp_path, sample, message):
    project, test = make(tmp_path, sample)
    with pytest.raises(DataError, match=message) as error:
        submission_form(project, test)
    assert str(error.value).startswith(f"{project.data_dir / 'sample.csv'}: ")
    assert "\n" not in str(error.value)


def test_classes_with_spaces_are_not_ranked(tmp_path):
    names = ["red cat", "dog", "eel", "fox"]
    project, test = make(tmp_path, pd.DataFrame({"Id": IDS, "label": ["red cat"] * 4}), names=names)
    assert submission_form(project, test).title == "one column, label"
    project, test = make(tmp_path, pd.DataFrame({"Id": IDS, "label": ["eel dog"] * 4}), names=names)
    with pytest.raises(DataError, match="ranks classes with spaces .* 'red cat' has one itself"):
        submission_form(project, test)
