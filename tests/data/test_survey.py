"""What is found in images and tables that nothing is known of."""

import cv2
import numpy as np
import pandas as pd
import pytest

from foldsmith.errors import DataError
from foldsmith.new.survey.columns import Source
from foldsmith.new.survey.folders import class_folders
from foldsmith.new.survey.guesses import guess_group, guess_id, guess_target, locate
from foldsmith.new.survey.images import ImageFolder, ids_of
from foldsmith.new.survey.targets import choose_folds, examine_target
from foldsmith.project.csv_files import read_texts


@pytest.fixture
def images(tmp_path):
    """Make a folder of (empty) images with these names."""

    def make(*names, folder="data/photos"):
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return ImageFolder(tmp_path / folder)

    return make


def source(**columns):
    table = pd.DataFrame({name: list(map(str, values)) for name, values in columns.items()})
    return Source(table.astype(object), "train.csv")


def test_images_of_all_kinds_and_depths_are_found(images):
    names = ["a.jpg", "b.JPEG", "c/d.Png", "c/e/f.webp", "g.tif", "h.TIFF", "i.bmp"]
    folder = images(*names, "notes.txt", ".hidden.jpg", ".cache/x.jpg", "__MACOSX/._a.jpg")
    assert folder.names == sorted(names)


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("cats/1.jpg", "cats/1.jpg"),
        ("cats/1", "cats/1.jpg"),
        ("./cats/1.jpg", "cats/1.jpg"),
        ("cats\\1.jpg", "cats/1.jpg"),
        ("photos/cats/1.jpg", "cats/1.jpg"),
        ("data/photos/cats/1", "cats/1.jpg"),
        ("1.jpg", "cats/1.jpg"),
        ("1", "cats/1.jpg"),
        ("2", "dogs/2.PNG"),
        ("2.png", "dogs/2.PNG"),
        ("3.v2", "dogs/3.v2.tif"),
        ("dogs/old/2", "dogs/old/2.jpg"),
        ("old/2", "dogs/old/2.jpg"),
    ],
)
def test_an_id_may_be_a_path_a_name_or_a_stem(images, text, image):
    folder = images("cats/1.jpg", "2.PNG", "dogs/3.v2.tif", "dogs/old/2.jpg")
    # The whole path goes first: 2 stands at the top.
    assert folder.find(text) == [image.replace("dogs/2.PNG", "2.PNG")]


def test_an_absolute_path_is_found_and_another_folders_is_not(images):
    folder = images("1.jpg")
    assert folder.find(str(folder.folder / "1.jpg")) == ["1.jpg"]
    assert folder.find("elsewhere/1.jpg") == []
    assert folder.find("cats/1.jpg") == []
    assert folder.find("") == []


def test_the_id_column_is_the_one_that_names_most_images(images):
    folder = images(*(f"{k}.jpg" for k in range(6)))
    table = source(age=[1, 2, 3, 3, 2, 1], Bild=[f"{k}.jpg" for k in range(6)], n=[7] * 6)
    assert guess_id(table, folder).column == "Bild"
    with pytest.raises(DataError, match=r"no column names images of .*0\.jpg, 1\.jpg, 2\.jpg, "):
        guess_id(source(name=["x", "y"]), folder)


def test_what_is_wrong_with_ids_is_said_at_once(images):
    folder = images("a/1.jpg", "b/1.jpg", "2.jpg", "3.jpg")
    table = source(image=["2", "2", "", "4", "5", "1", "3"])
    with pytest.raises(DataError) as error:
        locate(table, "image", folder)
    lines = str(error.value).splitlines()
    assert all(line.startswith("train.csv: column image: 1") for line in [lines[0], lines[3]])
    assert "1 row has no id" in lines[0]
    assert "1 id stands more than once: 2;" in lines[1]
    assert "2 of 7 rows name images that are not in" in lines[2] and "4, 5;" in lines[2]
    assert "as 1 does: a/1.jpg, b/1.jpg;" in lines[3] and "--test-images" in lines[3]


def test_folders_are_classes(images):
    table = class_folders(images("cat/1.jpg", "cat/more/2.png", "dog/1.jpg"))
    assert table["class"].tolist() == ["cat", "cat", "dog"]
    assert table["image_id"].tolist() == ["cat/1.jpg", "cat/more/2.png", "dog/1.jpg"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1.jpg", "2.jpg"], "images such as 1.jpg lie in no folder"),
        (["cat/1.jpg"], "there is only one"),
        (["Train/cat/1.jpg", "test/2.jpg"], "Train, test, which are no classes"),
    ],
)
def test_folders_that_are_no_classes_are_refused(images, names, message):
    with pytest.raises(DataError, match=message):
        class_folders(images(*names))


SIX = {"id": [1, 2, 3, 4, 5, 6]}


@pytest.mark.parametrize(
    ("columns", "test_columns", "target", "sure"),
    [
        # The only one that is left.
        ({"tomato_id": [1, 1, 2, 2, 3, 3], "freshness": [0, 1, 0, 1, 0, 1]}, ["id"], 1, True),
        # By its name, wherever it stands.
        ({"Class Label": list("aabbab"), "weight": [1, 2, 1, 2, 1, 2]}, [], 0, True),
        ({"y": [0.5, 1, 2, 4, 8, 16], "x": [0, 1, 0, 1, 0, 1]}, [], 0, True),
        # The last, whatever kind it is: a text is not passed over for a number.
        ({"a": [0, 1, 0, 1, 0, 1], "b": [1, 2, 2, 2, 3, 1], "c": list("uuvvuv")}, [], 2, False),
        # What the test table has is no target.
        ({"a": [0, 1, 0, 1, 0, 1], "b": [1, 2, 2, 2, 3, 1]}, ["id", "b"], 0, True),
        # The more usual name; the other says the same.
        ({"label": list("uuvvuv"), "label_id": [0, 0, 1, 1, 0, 1]}, [], 0, True),
        ({"label": list("uuvvuv"), "score": [0, 0, 1, 1, 1, 0]}, [], 0, False),
        # Neither constant, nor free text, nor a row number.
        (
            {
                "Unnamed: 0": [0, 1] * 3,
                "nr": [6, 4, 5, 3, 2, 1],
                "k": [1] * 6,
                "notes": list("abcdef"),
                "z": list("uuvvuv"),
            },
            [],
            4,
            True,
        ),
    ],
)
def test_the_target_column(columns, test_columns, target, sure):
    guess = guess_target(source(**SIX, **columns), "id", test_columns)
    assert guess.column == list(columns)[target]
    assert (not guess.others) == sure


def test_many_values_go_behind_few():
    table = source(id=range(50), steps=[k % 5 for k in range(50)], size=[k / 7 for k in range(50)])
    assert guess_target(table, "id", []).column == "steps"


def test_no_target_is_an_error_that_names_the_flag():
    with pytest.raises(DataError, match=r"it has: id, patient.*--target"):
        guess_target(source(**SIX, patient=[1, 1, 2, 2, 3, 3]), "id", [])


@pytest.mark.parametrize(
    ("columns", "group", "others"),
    [
        ({"PatientID": [1, 1, 2, 2, 3, 3]}, "PatientID", ()),
        ({"site_id": [1, 1, 2, 2, 1, 2], "series": list("aabbcc")}, "series", ("site_id",)),
        # No value repeats; all are one; some have none; it says what the target says.
        ({"scan_id": range(6)}, None, ()),
        ({"scan_id": [7] * 6}, None, ()),
        ({"scan_id": [1, 1, 2, 2, "", 3]}, None, ()),
        ({"code_id": [5, 7, 5, 7, 5, 7]}, None, ()),
        ({"colour": list("aabbcc")}, None, ()),
    ],
)
def test_the_group_column(columns, group, others):
    guess = guess_group(source(**SIX, **columns, y=[0, 1, 0, 1, 0, 1]), "id", "y")
    assert (guess.column, guess.others) == (group, others)


@pytest.mark.parametrize(
    ("values", "limits", "n_classes", "class_values"),
    [
        ([0, 1, 2, 3, 1], (0, 3), 4, ()),
        ([0.5, 1.0, 1.5, 0.5], (0.5, 1.5), 3, ()),
        ([0, 1, 4], (0, 4), 5, ()),
        ([0, 1, 100], (0, 100), 3, (0, 1, 100)),
        ([k / 3 for k in range(50)], (0, 49 / 3), 4, ()),
    ],
)
def test_numbers_become_a_range_and_classes(values, limits, n_classes, class_values):
    target = examine_target(source(id=range(len(values)), t=values), "t", "id")
    assert target.range == pytest.approx(limits)
    assert (target.n_classes, target.class_values) == (n_classes, class_values)
    np.testing.assert_array_equal(target.values, values)


def test_text_becomes_numbers_in_natural_order():
    table = source(id=range(6), t=["grade 10", "grade 2", "NA", "grade 2", "NA", "grade 10"])
    target = examine_target(table, "t", "id")
    assert target.classes == ("grade 2", "grade 10", "NA")
    assert target.values.tolist() == [1, 0, 2, 0, 2, 1]
    assert (target.range, target.n_classes) == ((0, 2), 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([*range(19), "?"], r"column t: 1 row has no number .19.;"),
        ([1, 2, "nan", 1, 2, 1, 2, 1], r"1 row has no number .2.;"),
        (["a", "b", " ", "a", "b", "a"], r"1 row has no text .2.;"),
        ([3, 3, 3], "same value in every row"),
        (list("abcdef"), "6 texts in 6 rows are no classes"),
    ],
)
def test_targets_that_are_none_are_refused(values, message):
    with pytest.raises(DataError, match=message):
        examine_target(source(id=range(len(values)), t=values), "t", "id")


@pytest.mark.parametrize(
    ("targets", "groups", "method", "n_splits"),
    [
        ([0, 1] * 10, None, "StratifiedKFold", 5),
        ([0, 1] * 3, None, "StratifiedKFold", 3),
        # Fewer folds would not help a class of one image.
        ([0, 1] * 10 + [2], None, "StratifiedKFold", 5),
        ([0, 1], None, "KFold", 2),
        ([0, 1] * 10, [k // 2 for k in range(20)], "StratifiedGroupKFold", 5),
        ([0, 1] * 10, [k // 5 for k in range(20)], "StratifiedGroupKFold", 4),
        ([0, 1] * 10, [k // 10 for k in range(20)], "GroupKFold", 2),
    ],
)
def test_folds_are_as_many_as_the_data_bears(targets, groups, method, n_splits):
    folds, why = choose_folds(
        np.array(targets, float), None if groups is None else pd.Series(groups).astype(str)
    )
    assert bool(why) == (n_splits < 5)
    assert (folds.method, folds.n_splits) == (method, n_splits)


def test_ids_of_unnamed_images_are_like_the_others(images):
    folder = images("a/1.jpg", "b/2.jpg", folder="test")
    assert ids_of(folder, "test", ["7", "8"]) == ["1", "2"]
    assert ids_of(folder, "test", ["7.png"]) == ["1.jpg", "2.jpg"]
    assert ids_of(folder, "test", ["1"]) == ["a/1", "b/2"]
    assert ids_of(folder, "test", ["1.jpg", "a/1.jpg"]) == ["test/a/1.jpg", "test/b/2.jpg"]


def test_sides_are_those_of_images_that_can_be_read(tmp_path):
    for name, shape in {"a.png": (30, 50, 3), "b.bmp": (20, 40, 3)}.items():
        cv2.imwrite(str(tmp_path / name), np.zeros(shape, np.uint8))
    (tmp_path / "c.jpg").touch()
    assert ImageFolder(tmp_path).sides() == (20, 50)


def test_a_table_is_read_as_it_stands(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("id;grösse;note\n007;1,5;NA\n008;2\n", encoding="utf-8")
    table = read_texts(path)
    assert table.to_dict("list") == {
        "id": ["007", "008"],
        "grösse": ["1,5", "2"],
        "note": ["NA", ""],
    }


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (["1,5", "2", "-0,25", "3,125"], [1.5, 2, -0.25, 3.125]),
        # Of three digits each, but no thousands begin so.
        (["0,125", "1,250", "0,375"], [0.125, 1.25, 0.375]),
        (["1.5", " 2 ", "3e1"], [1.5, 2, 30]),
    ],
)
def test_decimal_commas_are_numbers(values, wanted):
    target = examine_target(source(id=range(len(values)), t=values), "t", "id")
    np.testing.assert_array_equal(target.values, wanted)
    assert not target.classes


@pytest.mark.parametrize(
    ("values", "first"),
    [
        (["1,500", "2,250", "900"], "1,500"),
        (["1.234,5", "2.000,0", "3"], "1.234,5"),
        (["1,234.5", "2", "3"], "1,234.5"),
        (["1'234", "2'345", "3"], "1'234"),
        (["1.234.567", "2", "3"], "1.234.567"),
        (["1.234", "12,5", "3"], "1.234"),
    ],
)
def test_numbers_that_may_be_several_are_refused(values, first):
    with pytest.raises(DataError, match=f"column t: numbers such as {first} may be read in sever"):
        examine_target(source(id=range(len(values)), t=values), "t", "id")


def test_texts_with_commas_are_texts():
    values = ["1,5", "Oak, old", "Elm", "Elm"] * 2
    target = examine_target(source(id=range(8), t=values), "t", "id")
    assert set(target.classes) == {"1,5", "Elm", "Oak, old"}


def test_zeros_that_a_spreadsheet_has_lost_are_said(images):
    folder = images("007.jpg", "010.jpg", "100.jpg")
    table = source(id=[7, 10, 100])
    with pytest.raises(DataError, match="the table has lost the zeros of 007, as a spreadsheet"):
        locate(table, "id", folder)
    with pytest.raises(DataError, match="the table has lost the zeros of 010, as a spreadsheet"):
        guess_id(source(id=[10, 7]), folder)
    with pytest.raises(DataError, match="8; add the images"):
        locate(source(id=["007", 8]), "id", folder)
