"""``foldsmith new`` takes the columns and folders that are meant, or asks, or refuses."""

import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml

from foldsmith.errors import DataError
from foldsmith.new.new import new_project_of
from foldsmith.new.new_rows import Data
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import image_paths, read_train

N = 20


def write(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = cv2.imencode(".png", np.full((8, 8, 3), hash(name) % 200, np.uint8))[1]
        path.write_bytes(data.tobytes())


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images 0.png to 23.png."""
    folder = tmp_path_factory.mktemp("new") / "im"
    write(folder, *(f"{k}.png" for k in range(24)))
    return folder


# Another order than that of the rows.
MIXED = [(7 * k + 3) % N for k in range(N)]
KINDS = ["cat", "dog"] * (N // 2)


@pytest.fixture
def made(tmp_path, images):
    """Make a project of a train table (and others), and return its settings and train table."""

    def make(columns, test=None, ask=None, yes=True, **arguments):
        for name, table in (("train", columns), ("test", test)):
            if table is not None:
                pd.DataFrame(table).to_csv(tmp_path / f"{name}.csv", index=False)
        data = Data(
            images=arguments.pop("images", images),
            train=tmp_path / "train.csv",
            test=None if test is None else tmp_path / "test.csv",
            time="small",
            **arguments,
        )
        new_project_of(tmp_path / "p", data, ask, yes)
        project = ProjectFolder.open(tmp_path / "p")
        return project.settings, read_train(project)

    return make


# --- the id

FILES = [f"{k}.png" for k in MIXED]
COUNT = list(range(N))


@pytest.mark.parametrize(
    ("columns", "id_column"),
    [
        # The index that pandas writes names images too, and comes first.
        ({"": COUNT, "image": FILES, "label": KINDS}, "image"),
        ({"": COUNT, "x": FILES, "label": KINDS}, "x"),
        ({"": COUNT, "id": MIXED, "label": KINDS}, "id"),
        ({"": COUNT, "code": MIXED, "label": KINDS}, "code"),
        ({"index": COUNT, "file": FILES, "label": KINDS}, "file"),
        ({"Unnamed: 0": COUNT, "Unnamed: 0.1": COUNT, "image": FILES, "label": KINDS}, "image"),
        # File names before numbers that happen to name images.
        ({"id": COUNT, "image": FILES, "label": KINDS}, "image"),
        ({"age": MIXED[::-1], "filename": FILES, "label": KINDS}, "filename"),
        # Numbers in the order of the rows are ids where nothing else is.
        ({"id": COUNT, "label": KINDS}, "id"),
        ({"": COUNT, "label": KINDS}, "Unnamed: 0"),
        # Both name the same images: the one that is called like an id.
        ({"file": FILES, "id": MIXED, "label": KINDS}, "id"),
        ({"x": FILES, "id": MIXED, "label": KINDS}, "id"),
        # A target that names images, 0.png and 1.png, is no id.
        ({"target": [0, 1] * 10, "image": FILES}, "image"),
        # Paths of another machine.
        ({"image": [f"/kaggle/input/x/{name}" for name in FILES], "y": [0, 1] * 10}, "image"),
        ({"image": [f"C:\\x\\{name}" for name in FILES], "label": KINDS}, "image"),
        ({"image": [f"https://x.org/{name}" for name in FILES], "label": KINDS}, "image"),
        # Called so, though another column names images as well.
        ({"width": MIXED[::-1], "image_id": MIXED, "label": KINDS}, "image_id"),
    ],
)
def test_the_id_is_the_column_that_is_meant(made, columns, id_column, capsys):
    settings, train = made(columns)
    assert settings.id_column == id_column
    own = next(c for c in columns if c == id_column or (c == "" and "Unnamed" in id_column))
    wanted = [str(v).replace("\\", "/").split("/")[-1].removesuffix(".png") for v in columns[own]]
    assert train["path"].tolist() == [f"images/{name}.png" for name in wanted]
    target = train[settings.target_column].iloc[0]
    assert f"example  {wanted[0]}.png -> {target}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        # Two columns of images, neither or both called like an id.
        (
            {"a": FILES, "b": FILES[::-1]},
            "which column is the id.*; name it with --id$",
        ),
        ({"left_image": FILES, "right_image": FILES[::-1]}, "which column is the id"),
        ({"width": MIXED[::-1], "code": MIXED}, "which column is the id"),
        (
            {"image": [f"x/{name}" for name in FILES]},
            "no column names images .*first row has image",
        ),
        # No line of column names.
        ({"21.png": FILES, "cat": KINDS}, "the first line names an image, 21.png; put a line of"),
    ],
)
def test_an_id_that_is_not_clear_is_refused(made, columns, message):
    with pytest.raises(DataError, match=message):
        made({**columns, "label": KINDS})


def test_blanks_do_not_separate_columns(made):
    with pytest.raises(DataError, match="the columns must be separated by commas, semicolons or"):
        made({"id target": [f"{k} 1" for k in COUNT]})


def test_a_second_column_of_images_is_said(made, capsys):
    made({"a": FILES, "b": FILES[::-1], "label": KINDS}, id_column="a")
    assert "note: column b names images too, which are not used" in capsys.readouterr().out


# --- the target

NUMBERS = [k % 5 for k in range(N)]
OTHERS = [k // 7 for k in range(N)]


@pytest.mark.parametrize(
    ("columns", "test", "target"),
    [
        # A placeholder in the test table.
        ({"width": NUMBERS, "target": KINDS}, {"target": [0] * 4}, "target"),
        ({"width": NUMBERS, "label": KINDS}, {"label": [""] * 4}, "label"),
        ({"width": NUMBERS, "y": NUMBERS}, {"y": [0.5] * 4}, "y"),
        ({"width": NUMBERS, "price": NUMBERS}, {"width": [1, 2, 3, 4], "price": [0] * 4}, "price"),
        # Called so, and with values in the test table.
        ({"width": NUMBERS, "label": KINDS}, {"label": ["cat", "dog", "cat", "cat"]}, "label"),
        # The usual name before others, text before a side column of numbers.
        ({"label": KINDS, "width": NUMBERS, "age": NUMBERS}, None, "label"),
        ({"score": NUMBERS, "target": KINDS}, None, "target"),
        ({"class": KINDS, "class_id": [0, 1] * 10}, None, "class"),
        # Only the labelled images have it.
        ({"width": NUMBERS, "breed": KINDS}, {"width": [1, 2, 3, 4]}, "breed"),
    ],
)
def test_the_target_is_the_column_that_is_meant(made, columns, test, target):
    test = None if test is None else {"id": range(20, 24), **test}
    assert made({"id": COUNT, **columns}, test)[0].target_column == target


@pytest.mark.parametrize(
    ("columns", "test"),
    [
        ({"width": NUMBERS, "breed": KINDS}, None),
        ({"length": NUMBERS, "weight": [k / 7 for k in COUNT]}, None),
        # Two targets.
        ({"length": [k / 3 for k in COUNT], "weight": [k / 7 for k in COUNT]}, None),
        ({"width": NUMBERS, "price": OTHERS}, {"price": [0] * 4}),
        ({"score": NUMBERS, "grade": OTHERS}, None),
    ],
)
def test_a_target_that_is_not_clear_is_refused_with_yes_too(made, columns, test):
    test = None if test is None else {"id": range(20, 24), **test}
    with pytest.raises(DataError, match=r"train\.csv: which column is the target\? .* --target$"):
        made({"id": COUNT, **columns}, test)


@pytest.mark.parametrize(
    ("values", "read"),
    [
        ([f"{k * 5}%" for k in COUNT], [k * 5 for k in COUNT]),
        ([f"{k / 2} %" for k in COUNT], [k / 2 for k in COUNT]),
        ([f"$ {k}" for k in COUNT], COUNT),
        ([f"{k},5€" for k in COUNT], [k + 0.5 for k in COUNT]),
        ([f"£{k}.25" for k in COUNT], [k + 0.25 for k in COUNT]),
    ],
)
def test_one_sign_of_all_numbers_is_left_out_and_said(made, values, read, capsys):
    _, train = made({"id": COUNT, "target": values})
    assert train["target"].tolist() == read
    assert (
        f"note: target: {values[0]} is read as {read[0]:g}, and so are" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([f"{k}%" if k % 2 else k for k in COUNT], "column target: .*% and .* same unit"),
        ([f"${k}" if k % 2 else f"{k}€" for k in COUNT], "do not have the same unit"),
        ([f"{k + 1},234" for k in COUNT], "numbers such as 1,234 may be read in several ways"),
        ([f"${k + 1},234" for k in COUNT], "numbers such as 1,234 may be read in several ways"),
        ([f"{k + 1}.234,5" for k in COUNT], "numbers such as 1.234,5 may be read in several"),
        ([f"2021-03-{k + 1:02}" for k in COUNT], "holds dates, such as '2021-03-01' of 0; write"),
        ([f"{k % 3 + 1}.5.2021" for k in COUNT], "holds dates, such as '1.5.2021' of 0; write"),
        ([f"{k} cm" for k in COUNT], "20 texts in 20 rows are no classes, such as '0 cm' of 0; if"),
        ([5] * N, "column target: has the same value in every row"),
    ],
)
def test_what_is_wrong_with_a_target_is_said_of_its_column(made, values, message):
    """And no other column is taken for it."""
    with pytest.raises(DataError, match=message):
        made({"id": COUNT, "target": values, "width": NUMBERS})


# --- classes or a scale


@pytest.mark.parametrize(
    ("name", "values", "arguments", "classes"),
    [
        ("target", NUMBERS, {}, None),
        ("target", NUMBERS, {"classes": True}, ["0", "1", "2", "3", "4"]),
        ("target", NUMBERS, {"metric": "Accuracy"}, ["0", "1", "2", "3", "4"]),
        ("target", NUMBERS, {"metric": "Accuracy", "classes": False}, None),
        ("target", NUMBERS, {"metric": "QWK"}, None),
        # By its name.
        ("label", NUMBERS, {}, ["0", "1", "2", "3", "4"]),
        ("class_id", [k % 3 * 10 for k in COUNT], {}, ["0", "10", "20"]),
        ("label", NUMBERS, {"classes": False}, None),
        ("label", NUMBERS, {"metric": "RMSE"}, None),
        # Not what does not repeat, or is not whole.
        ("label", [k * 3 for k in COUNT], {}, None),
        ("label", [k % 3 / 2 for k in COUNT], {}, None),
        # As they stand.
        ("label", [f"{k % 2:02}" for k in COUNT], {}, ["00", "01"]),
        ("label", ["1.0", "2.0"] * 10, {}, ["1.0", "2.0"]),
        ("label", ["1.0", "1", "10", "2"] * 5, {}, ["1", "2", "10"]),
        ("target", KINDS, {"classes": False}, None),
        ("target", KINDS, {"classes": True}, ["cat", "dog"]),
        ("target", ["cat ", "dog"] * 10, {}, ["cat", "dog"]),
    ],
)
def test_numbers_are_a_scale_or_ids_of_classes(made, name, values, arguments, classes, capsys):
    settings, _ = made({"id": COUNT, name: values}, **arguments)
    assert settings.class_names == tuple(classes or ())
    wanted = "RMSE" if classes is None else "Accuracy"
    assert settings.metric == arguments.get("metric", wanted)
    said = capsys.readouterr().out
    if classes:
        assert "no order is assumed" in said and f"{len(classes)} classes: {classes[0]}: " in said
    else:
        assert "no order is assumed" not in said


def test_whoever_can_be_asked_is_asked_about_numbers(made):
    questions = []

    def ask(question, answers, best):
        questions.append((question, answers, best))
        return "classes"

    settings, _ = made({"id": COUNT, "target": NUMBERS}, ask=ask, yes=False)
    assert settings.class_names == ("0", "1", "2", "3", "4")
    ((question, answers, best),) = questions
    assert "numbers of target a scale" in question
    assert (list(answers), best) == (["scale", "classes"], "scale")


def test_what_contradicts_itself_is_refused(made):
    with pytest.raises(DataError, match="--classes are without an order, and --metric QWK judges"):
        made({"id": COUNT, "target": NUMBERS}, classes=True, metric="QWK")
    with pytest.raises(DataError, match="20 numbers in 20 rows, .* are no ids of classes"):
        made({"id": COUNT, "target": [k / 3 for k in COUNT]}, classes=True)


@pytest.mark.parametrize("metric", ["Accuracy", "QWK", "LogLoss"])
def test_more_than_20_number_classes_stay_what_they_are(tmp_path, metric):
    write(tmp_path / "im", *(f"{k}.png" for k in range(60)))
    table = pd.DataFrame({"id": range(60), "target": [k % 30 for k in range(60)]})
    table.to_csv(tmp_path / "t.csv", index=False)
    data = Data(tmp_path / "im", tmp_path / "t.csv", metric=metric, time="small")
    new_project_of(tmp_path / "p", data, yes=True)
    project = ProjectFolder.open(tmp_path / "p")
    assert project.n_classes == 30
    assert project.class_values == list(range(30))
    assert project.class_names == (tuple(map(str, range(30))) if metric == "Accuracy" else ())


def test_several_labels_of_one_image_are_said(made, tmp_path, capsys):
    for values in (["A", "A, B", "B", "A"], ["a", "a b", "b", "b"], ["x|y", "x", "y", "y"]):
        made({"id": COUNT, "label": values * 5}, classes=True)
        said = capsys.readouterr().out
        assert "note: label: 5 rows hold several labels, as" in said
        assert "each combination is taken for a class of its own" in said
        shutil.rmtree(tmp_path / "p")
    made({"id": COUNT, "label": ["very good", "good", "Oak, old", "good"] * 5})
    assert "several labels" not in capsys.readouterr().out


def test_names_that_differ_in_case_alone_are_said(made, capsys):
    made({"id": COUNT, "label": ["Cat", "cat"] * 10})
    assert "note: label: 'Cat', 'cat' are different classes" in capsys.readouterr().out


def test_why_there_are_fewer_folds_is_said(made, capsys):
    made({"id": COUNT, "label": ["a"] * 17 + ["b"] * 3})
    said = capsys.readouterr().out
    assert "images   2 classes: a: 17, b: 3\n" in said
    assert "folds    3 by StratifiedKFold: the smallest class has 3 images\n" in said


def test_folds_of_ones_own_are_no_target_and_count(made, capsys):
    settings, _ = made({"id": COUNT, "breed": KINDS, "fold": [k % 4 for k in COUNT]})
    assert (settings.target_column, settings.folds.n_splits) == ("breed", 4)
    assert "folds    4 by StratifiedKFold: those of column fold\n" in capsys.readouterr().out


def test_a_column_fold_without_folds_is_refused(made):
    with pytest.raises(DataError, match="column fold: .* no fold; .*mend or rename the column"):
        made({"id": COUNT, "breed": KINDS, "fold": ["a", "b"] * 10})


# --- rows that are left out


def test_rows_without_image_or_target_are_left_out_counted_and_listed(made, tmp_path, capsys):
    columns = {
        "id": [*range(17), 77, 78, ""],
        "target": [*NUMBERS[:15], "", "NA", 1, 2, 3],
    }
    for message in ("2 of 20 rows name images that are not", "--skip-missing"):
        with pytest.raises(DataError, match=message):
            made(columns)
    _, train = made(columns, {"id": [20, 21, 99]}, skip_missing=True)
    assert train["id"].tolist() == [str(k) for k in range(15)]
    assert [path.is_file() for path in image_paths(ProjectFolder.open(tmp_path / "p"), train)] == [
        True
    ] * 15
    said = capsys.readouterr().out
    assert "skipped  3 rows of train.csv: no image (77, 78, )" in said
    assert "skipped  2 rows of train.csv: no target (15, 16)" in said
    assert "skipped  1 row of test.csv: no image (99)" in said
    listed = pd.read_csv(tmp_path / "p/input/skipped.csv", dtype=str, keep_default_na=False)
    assert listed["id"].tolist() == ["77", "78", "", "99", "15", "16"]
    assert set(listed["reason"]) == {"no image", "no target"}


def test_nothing_is_listed_where_nothing_is_left_out(made, tmp_path):
    made({"id": COUNT, "label": KINDS}, skip_missing=True)
    assert not (tmp_path / "p/input/skipped.csv").exists()


def test_no_row_that_is_left_is_an_error(made):
    with pytest.raises(DataError, match="none of 20 rows has an image and a target"):
        made({"id": COUNT, "label": [""] * N}, skip_missing=True, target_column="label")


# --- folders


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Make class folders, and a project of them; return its settings and train table."""
    monkeypatch.chdir(tmp_path)

    def make(*folders, test_images=None, n=6, **arguments):
        for folder in folders:
            write(tmp_path / "im" / folder, *(f"{k}.png" for k in range(n)))
        data = Data(tmp_path / "im", test_images=test_images, time="small", **arguments)
        new_project_of(tmp_path / "p", data, yes=True)
        project = ProjectFolder.open(tmp_path / "p")
        return project.settings, read_train(project)

    return make


@pytest.mark.parametrize(
    "names", [[str(k) for k in range(10)], ["1", "2", "10"], ["00", "01"], ["1.1", "1.10"]]
)
@pytest.mark.parametrize("metric", [None, "Accuracy"])
def test_folders_are_classes_whatever_they_are_called(tree, names, metric):
    settings, train = tree(*names, metric=metric)
    assert settings.metric == "Accuracy"
    assert settings.class_names == tuple(names)
    assert set(train["class"]) == set(names)


def test_folders_may_be_said_to_be_a_scale(tree):
    settings, train = tree("10", "20", "40", metric="RMSE")
    assert settings.target_range == (10, 40) and settings.class_names == ()
    assert set(train["class"]) == {10, 20, 40}


def test_the_folder_to_predict_is_no_class(tree, tmp_path):
    settings, train = tree("cat", "dog", "test", test_images=tmp_path / "im/test")
    assert settings.class_names == ("cat", "dog")
    assert len(train) == 12
    assert len(pd.read_csv(tmp_path / "p/input/test.csv")) == 6


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["cat", "dog", "test"], "test among the class folders .cat, dog.* --test-images im/test"),
        (
            ["cat", "dog", "Val"],
            "Val among the class folders .cat, dog. .* give its folder another",
        ),
        (
            ["cat", "dog", "train", "test"],
            "test, train among the class folders .*move it elsewhere",
        ),
        (
            ["train/cat", "train/dog", "test"],
            "no classes; .* --images im/train --test-images im/te",
        ),
        (["train/cat", "train/dog", "val/cat", "val/dog"], "train, val, .*--images im/train"),
        (["data/cat", "data/dog"], "there is only one; perhaps --images im/data"),
        (
            ["a/cat", "a/dog", "b/cat", "b/dog"],
            "may be a, b or the folders in each of them, cat, d",
        ),
    ],
)
def test_folders_that_are_not_clear_are_refused(tree, folders, message):
    with pytest.raises(DataError, match=message):
        tree(*folders)


def test_folders_within_a_class_belong_to_it(tree):
    settings, _ = tree("cat/2020", "cat/2021", "dog/2020", "dog/old")
    assert settings.class_names == ("cat", "dog")


def test_no_class_vanishes_by_its_suffix(tree, tmp_path, capsys):
    (tmp_path / "im/bird").mkdir(parents=True)
    for k in range(3):
        (tmp_path / f"im/bird/{k}.heic").touch()
    with pytest.raises(DataError, match=r"folder bird holds no images but 3 \.heic; convert them"):
        tree("cat", "dog")
    for path in (tmp_path / "im/bird").iterdir():
        path.unlink()
    (tmp_path / "im/@eaDir").mkdir()
    (tmp_path / "im/cat/.DS_Store").touch()
    (tmp_path / "im/cat/._0.png").touch()
    (tmp_path / "im/cat/notes.txt").touch()
    settings, train = tree("cat", "dog")
    assert settings.class_names == ("cat", "dog") and len(train) == 12
    said = capsys.readouterr().out
    assert "note: folder bird is empty and no class" in said
    assert "not taken for images: 1 .txt, 1 hidden image" in said


def test_all_suffixes_and_links_are_taken(tree, tmp_path):
    write(tmp_path / "im/bird", *(f"{k}{s}" for k, s in enumerate([".GIF", ".jfif", ".Jpe"])))
    write(tmp_path / "far", "1.png", "2.png", "3.png")
    (tmp_path / "im/cow").symlink_to(tmp_path / "far", target_is_directory=True)
    settings, train = tree("cat", "dog")
    assert settings.class_names == ("bird", "cat", "cow", "dog")
    assert (train["class"] == "cow").sum() == 3


# --- the command


def test_flags_of_the_command(tmp_path, images, cli):
    pd.DataFrame({"id": COUNT, "target": NUMBERS, "u": KINDS}).to_csv(
        tmp_path / "t.csv", index=False
    )
    flags = ["--images", str(images), "--train", "t.csv", "--time", "small"]
    said = cli(tmp_path, "new", "a", *flags, "--target", "target", "--target", "u", code=2).stderr
    assert "--target is given 2 times (target, u); a project has one" in said
    cli(tmp_path, "new", "b", *flags, "--classes", "--skip-missing", "--target", "target")
    settings = yaml.safe_load((tmp_path / "b/project.yml").read_text())
    assert settings["class_names"] == ["0", "1", "2", "3", "4"]
