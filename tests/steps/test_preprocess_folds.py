"""What preprocess makes of folds, classes and groups as people's tables have them."""

import cv2
import numpy as np
import pandas as pd
import pytest

from foldsmith.errors import ConfigError, DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import groups_of, image_paths, read_folds, read_train
from foldsmith.steps.inputs.preprocess import preprocess_inputs
from foldsmith.steps.manifest import PREPROCESS_MANIFEST, differences, read_manifest
from foldsmith.steps.preprocess import preprocess
from foldsmith.utils.hashing import FileHashes
from foldsmith.utils.yaml_io import dump_yaml

N = 60
SKF, TWO = {"method": "StratifiedKFold"}, {"n_splits": 2}


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Images without anything alike."""
    folder, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for k in range(N):
        cv2.imwrite(str(folder / f"{k}.png"), rng.integers(0, 255, (16, 16, 3), np.uint8))
    return folder


@pytest.fixture
def make(tmp_path, noise):
    """Make a project of a train table; its image is the row's number."""

    def make(columns, **settings):
        folder = tmp_path / "project"
        (folder / "input").mkdir(parents=True, exist_ok=True)
        link = folder / "input/photos"
        if not link.exists():
            link.symlink_to(noise)
        train = pd.DataFrame(columns)
        train.insert(0, "id", range(len(train)))
        train.to_csv(folder / "input/train.csv", index=False)
        (folder / "input/test.csv").write_text("id\n")
        content = {
            "name": "mine",
            "image_path": "photos/{id}.png",
            "id_column": "id",
            "target_column": "label",
            "folds": {"method": "StratifiedKFold", "n_splits": 5},
        }
        if "class_names" not in settings:
            content |= {"target_range": [0, 3], "n_classes": 4}
        (folder / "project.yml").write_text(dump_yaml(content | settings))
        return ProjectFolder.open(folder)

    return make


def labels(n_classes=2):
    return [f"k{k % n_classes}" for k in range(N)]


def named(values):
    return {"class_names": sorted(set(values))}


@pytest.mark.parametrize("first", [0, 1])
def test_a_column_of_folds_is_used_and_printed(make, capsys, first):
    folds = np.random.default_rng(0).permutation(np.arange(N) % 5)
    project = make({"label": labels(), "fold": folds + first}, **named(labels()))
    table = preprocess(project)
    said = capsys.readouterr().out
    assert "\nfolds: column fold of train.csv, 5 folds" in said
    assert ("(its fold 1 is fold 0 here, and so on)" in said) == bool(first)
    assert read_folds(project, None)["fold"].tolist() == folds.tolist()
    assert table["images"].tolist() == [12] * 5
    # Its content is an input.
    folds[:2] = folds[:2][::-1] if folds[0] != folds[1] else [(folds[0] + 1) % 5, folds[1]]
    before = read_manifest(project.data_dir / PREPROCESS_MANIFEST)
    project = make({"label": labels(), "fold": folds + first}, **named(labels()))
    now = preprocess_inputs(project, FileHashes(project.hash_store))
    assert any("train.csv" in line for line in differences(before.inputs, now))
    preprocess(project)
    assert read_folds(project, None)["fold"].tolist() == folds.tolist()


@pytest.mark.parametrize(
    ("fold", "message"),
    [
        (lambda k: k % 4, "holds 4 folds, but folds/n_splits is 5; set n_splits: 4 in project.yml"),
        (lambda k: "train" if k % 5 else "valid", "column fold: valid, train are no fold"),
        (lambda k: k % 5 if k else "", "1 row has no fold"),
        (lambda k: k % 5 + k % 5 // 4, "no row is in fold 4, but rows are in fold 5"),
    ],
)
def test_a_column_that_cannot_be_the_folds_is_refused_by_name(make, fold, message):
    project = make({"label": labels(), "fold": [fold(k) for k in range(N)]}, **named(labels()))
    with pytest.raises(DataError, match=message) as error:
        preprocess(project)
    assert "train.csv: column fold: " in str(error.value) and "rename" in str(error.value)
    assert not project.fold_table.exists()


def test_folds_of_one_s_own_may_not_tear_groups_apart(make):
    columns = {"label": labels(), "fold": np.arange(N) % 5, "site": np.arange(N) // 6}
    grouped = {"group_column": "site", "folds": {"method": "GroupKFold", "n_splits": 5}}
    with pytest.raises(DataError, match=r"a group by site must stay in one fold, but ids 0 and 1"):
        preprocess(make(columns, **grouped, **named(labels())))
    # Without a method of groups they are no matter.
    preprocess(make(columns, group_column="site", **named(labels())))
    columns["fold"] = np.arange(N) // 6 % 5
    preprocess(make(columns, **grouped, **named(labels())))


def test_near_identical_images_in_two_folds_of_one_s_own(make, tmp_path, noise):
    project = make(
        {"label": labels(), "fold": np.arange(N) % 5},
        folds={"method": "KFold", "n_splits": 5, "merge_near_duplicates": True},
        **named(labels()),
    )
    link = project.data_dir / "photos"
    link.unlink()
    link.mkdir()
    for k in range(N):
        (link / f"{k}.png").symlink_to(noise / f"{k if k != 8 else 1}.png")
    with pytest.raises(DataError, match="near-identical images .* but ids 1 and 8 are in folds 1 "):
        preprocess(project)


def test_a_column_merged_group_is_refused_by_name(make):
    project = make({"label": labels(), "merged_group": np.arange(N)}, **named(labels()))
    with pytest.raises(DataError, match=r"train\.csv: column merged_group: preprocess writes one"):
        preprocess(project)


@pytest.mark.parametrize("key", ["id_column", "target_column", "group_column"])
@pytest.mark.parametrize("name", ["fold", "merged_group", "prediction"])
def test_columns_that_foldsmith_adds_are_nobody_else_s(make, key, name):
    with pytest.raises(ConfigError, match=f"{key}: {name}: foldsmith writes a column of this name"):
        make({"label": labels()}, **{key: name}, **named(labels()))


def test_ids_are_not_called_like_what_is_measured(make):
    columns = {"label": labels(), "height": range(N)}
    project = make(columns, id_column="height", image_path="photos/{height}.png", **named(labels()))
    with pytest.raises(DataError, match="id_column: height: preprocess writes a column"):
        preprocess(project)


def test_more_than_20_classes_of_text(make, capsys):
    names = labels(30)
    table = preprocess(make({"label": names}, **named(names), folds=SKF | TWO))
    # Two images of each of the 30 classes: every fold has one.
    assert table.to_dict("list") == {"classes": [30, 30], "images": [30, 30]}
    said = capsys.readouterr().out
    assert "30 classes of 2 to 2 images (fewest: k0 2, " in said


def test_classes_with_fewer_images_than_folds_are_said(make, capsys):
    names = ["rare", "odd", "odd", *labels()[3:]]
    project = make({"label": names}, class_names=["k0", "k1", "odd", "rare", "never"])
    preprocess(project)
    captured = capsys.readouterr()
    assert "\n5 classes: k0 28, k1 29, odd 2, rare 1, never 0\n" in captured.out
    assert captured.err.startswith(
        "warning: 3 classes have fewer images than the 5 folds, so that some folds have none of "
        "them: never 0, rare 1, odd 2; a class with a single image"
    )
    assert (project.data_dir / PREPROCESS_MANIFEST).is_file()


@pytest.mark.parametrize("n_groups", [6, 12])
def test_few_groups_are_said(make, capsys, n_groups):
    project = make(
        {"label": labels(), "site": np.arange(N) % n_groups},
        group_column="site",
        folds={"method": "GroupKFold", "n_splits": 3},
        **named(labels()),
    )
    preprocess(project)
    said = capsys.readouterr().err
    assert said.startswith("warning: only 6 groups: scores") == (n_groups == 6)
    assert ("only" in said) == (n_groups == 6)


STRANGE = [
    "images",
    "groups",
    "all images",
    "fold",
    "id",
    "label",
    "total",
    "a, b",
    "x\ny",
    "k" * 99,
]


@pytest.mark.parametrize("group", [None, "site"])
def test_classes_may_be_called_like_anything(make, capsys, group):
    names = [STRANGE[k % 10] for k in range(N)]
    settings = {"class_names": STRANGE} | ({} if group is None else {"group_column": group})
    table = preprocess(make({"label": names, "site": range(N)}, **settings))
    lines = capsys.readouterr().out.split("5 folds")[0].splitlines()
    assert table.columns.is_unique
    assert table["all all images"].tolist() == [12] * 5
    counts = table[STRANGE]
    assert counts.sum().tolist() == [6] * 10 and (counts.max() - counts.min()).max() <= 1
    printed = next(line for line in lines if line.startswith("label"))
    assert "a, b" in printed and "x y" in printed and "kkkkkkkkkkkkk..." in printed
    if group is not None:
        assert table["all groups"].tolist() == [12] * 5


def test_a_continuous_target_stays_in_bins_and_has_quartiles(make, capsys):
    values = np.random.default_rng(0).uniform(0, 3, N)
    table = preprocess(make({"label": values}))
    assert len(table.columns) == 5 and table["images"].tolist() == [12] * 5
    assert "classes" not in capsys.readouterr().out
    # Without a metric of classes, the classes of a project need not fit.
    assert read_train(ProjectFolder.open(make({"label": values}).folder)) is not None


@pytest.mark.parametrize("metric", ["QWK", "Accuracy", "LogLoss", "AUC"])
def test_targets_that_are_no_class_are_not_rounded_to_one(make, metric):
    numbers = [k % 30 for k in range(N)]
    project = make({"label": numbers}, target_range=[0, 29], metric=metric)
    with pytest.raises(
        DataError, match=r"56 targets are none of the 4 class values \(0, 9\.6"
    ) as e:
        preprocess(project)
    assert f"the first is 1 (lines 3, 4, 5, ...), but {metric} judges classes" in str(e.value)
    project = make(
        {"label": numbers},
        target_range=[0, 29],
        n_classes=30,
        metric=metric,
        folds=SKF | TWO,
    )
    assert preprocess(project)["classes"].tolist() == [30, 30]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_values": [0, 1, 2, 7]}, "class_values: 7 is outside target_range 0..3"),
        ({"class_values": [0, 1, 1, 2]}, "class_values: a value stands twice"),
        ({"class_names": ["a", ""]}, "class_names: a name is empty"),
        (
            {"class_names": ["a", False]},
            "class_names: False is no text in YAML",
        ),
        ({"class_names": [1, 2]}, "class_names: 1 is no text in YAML; write it in quotes"),
        ({"group_column": "label"}, "must be different columns"),
    ],
)
def test_what_project_yml_says_of_classes_is_checked(make, settings, message):
    with pytest.raises(ConfigError, match=message):
        make({"label": labels()}, **settings)


LIKE_OTHERS = ["1.1", "1.10", "1.100", "01", "1", "NA", "nan", "None", "1e5", "TRUE", "000", "0"]


def test_groups_classes_and_folders_stay_text(make, capsys):
    names = [LIKE_OTHERS[k % 12] for k in range(N)]
    groups = [f"{LIKE_OTHERS[k // 5]}" for k in range(N)]
    columns = {"label": names, "site": groups, "note": names}
    project = make(
        columns,
        class_names=LIKE_OTHERS,
        group_column="site",
        folds={"method": "GroupKFold", "n_splits": 4},
    )
    preprocess(project)
    table = read_folds(project, None)
    for column, expected in columns.items():
        assert table[column].tolist() == expected
    assert (table.groupby("site")["fold"].nunique() == 1).all()
    assert len(set(groups_of(project, table))) == 12
    assert image_paths(project, table)[7].name == "7.png"
    said = capsys.readouterr().err
    assert "column site: 5 rows have the group NA, which is taken for a name" in said


def test_that_many_values_are_classes_makes_folds_stale_and_nothing_else_does(make):
    def inputs(values, **settings):
        project = make({"label": values}, **settings)
        return preprocess_inputs(project, FileHashes(project.hash_store))

    many, few = [k % 30 for k in range(N)], [k % 4 for k in range(N)]
    steps = {"target_range": [0, 29], "n_classes": 30}
    four = {"target_range": [0, 29], "n_classes": 4}
    assert differences(inputs(many, **steps), inputs(many, **four)) == ["many classes changed"]
    plain = {"folds": {"method": "KFold", "n_splits": 5}}
    assert differences(inputs(many, **steps, **plain), inputs(many, **four, **plain)) == []
    assert differences(inputs(few), inputs(few, target_range=[0, 29])) == []
