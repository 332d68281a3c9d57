"""A new project: the recommended recipe, and a project file to fill in or made from the data."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Literal

import pandas as pd

from foldsmith.atomic import write_csv, write_text
from foldsmith.config.budget import Budget
from foldsmith.config.experiment import RECIPES
from foldsmith.config.project import (
    PROJECT_FILE,
    TEMPLATE,
    TEMPLATE_OF_CLASSES,
    FoldSettings,
)
from foldsmith.config.yaml_io import read_yaml, scalar_yaml
from foldsmith.data.csv_files import read_texts
from foldsmith.data.intensity import IntensityRange, first_range, range_text
from foldsmith.data.survey import (
    Guess,
    PhotoFolder,
    Source,
    Target,
    check_group,
    choose_folds,
    class_folders,
    examine_target,
    guess_group,
    guess_id,
    guess_target,
    ids_of,
    locate,
)
from foldsmith.data.tables import numbers
from foldsmith.errors import DataError, OutputError
from foldsmith.stages.output_folder import shown

NewMetric = Literal["RMSE", "MAE", "QWK", "Accuracy", "LogLoss", "AUC"]

# Metrics of a scale, and those of class probabilities; Accuracy may be either.
_OF_SCALES: tuple[NewMetric, ...] = ("RMSE", "MAE", "QWK")
_OF_PROBABILITIES: tuple[NewMetric, ...] = ("LogLoss", "AUC")

# From a question, the answers and the best guess to an answer.
Ask = Callable[[str, Sequence[str], str], str]

NO_GROUP = "none"

_README = "README.md"
_PRETRAINING = Path("exp_config/300.yml")

# The links to the photos, in the new project's input folder.
_PHOTOS, _TEST_PHOTOS = "photos", "test_photos"

# From so many photos on, the largest models are worth their time.
_LARGE = 20_000

# What the project file says of a target that is a scale.
_SCALE = """\
target_range: {range}

# The values of the classes; [] for n_classes of them, evenly spaced over target_range.
n_classes: {n_classes}
class_values: {class_values}"""

_METRICS = "RMSE, MAE, QWK or Accuracy"
_METRICS_OF_CLASSES = "Accuracy, LogLoss or AUC"

# What it says of images with more than 8 bits per channel.
_INTENSITY = """

# The images have more than 8 bits per channel: these values become black (0) and white (255), in
# between linearly. One scale for all images, new ones too, so that brighter ones stay brighter.
intensity_range: {}"""

# Values of the project file that nobody has set yet.
_TO_FILL_IN = {
    "how_made": "Set these lines.",
    "image_path": "photos/{photo_id}.jpg",
    "intensity": "",
    "id_column": "photo_id",
    "about_target": "# The column to predict, a number, and its lowest and highest possible value.",
    "target_column": "target",
    "target_values": _SCALE.format(range="[0, 3]", n_classes=4, class_values="[]"),
    "metrics": _METRICS,
    "group_column": "group",
    "method": "StratifiedGroupKFold",
    "n_splits": 5,
    "metric": "RMSE",
    "batch": "",
}


@dataclass(frozen=True)
class Data:
    """What a project is to be made of.

    Attributes:
        images: Folder of the photos.
        train: Table of the labelled photos; None if ``images`` holds one folder per class.
        test: Table of the photos to predict, if there is one.
        test_images: Folder of the photos to predict, if it is another than ``images``.
        id_column: Name of the id column; None to be found.
        target_column: Name of the target column; None to be found.
        group_column: Name of the group column; ``none`` for no groups, None to be found.
        metric: The metric; None to be chosen.
        budget: How much time it may take; None to be chosen.
    """

    images: Path
    train: Path | None = None
    test: Path | None = None
    test_images: Path | None = None
    id_column: str | None = None
    target_column: str | None = None
    group_column: str | None = None
    metric: NewMetric | None = None
    budget: Budget | None = None


def new_project(folder: Path, budget: Budget) -> Path:
    """Write a project file to fill in and the experiments of the recommended recipe.

    Args:
        folder: The project folder; made if it is not there.
        budget: How much time it may take.

    Returns:
        The project file.

    Raises:
        OutputError: One of the files is there already; nothing is written then.
    """
    names = _templates(of_classes=False)
    _refuse_existing(folder, list(names))
    _write_templates(folder, names, _TO_FILL_IN | {"name": _own_name(folder), "budget": budget})
    print(
        f"next: set the lines of {shown(folder / PROJECT_FILE)} that say what your data is; then, "
        f"in {shown(folder)}: foldsmith doctor, foldsmith run -cfg exp_config/901.yml"
    )
    return folder / PROJECT_FILE


def new_project_of(folder: Path, data: Data, ask: Ask | None = None, yes: bool = False) -> Path:
    """Look at photos and tables, and write a project that is ready to run.

    The tables are written anew into its ``input``, with all their columns, the column ``path``
    and, where targets of text are taken for a scale, one of numbers; the photos stay where they
    are, behind the link ``input/photos``. How columns are chosen is said by
    :func:`~foldsmith.data.survey.guess_id`, ``guess_target`` and ``guess_group``, the rest by
    ``examine_target`` and ``choose_folds``. The metric is RMSE for numbers and Accuracy for text;
    the budget small without a CUDA device, else medium, and large from 20,000 photos on. Each
    choice is printed.

    Numbers are a scale. Text is classes without an order, unless a metric of scales is named;
    these, and whatever LogLoss and AUC are to judge, get experiments that predict the
    probabilities of classes.

    Args:
        folder: The project folder; made if it is not there.
        data: The data, and what is known of it.
        ask: Asks a person where several columns are possible.
        yes: Take the best guess instead.

    Returns:
        The project file.

    Raises:
        DataError: The data is wrong, or a column must be named because nobody can be asked.
        OutputError: One of the files is there already. Nothing is written in either case.
    """
    # Of both kinds: one project is not to be written over another.
    own = [Path(_README), *_templates(of_classes=False), *_templates(of_classes=True)]
    inputs = [Path("input") / name for name in ("train.csv", "test.csv", _PHOTOS, _TEST_PHOTOS)]
    _refuse_existing(folder, [*own, *inputs])
    found = _find(data, _Decisions(ask, yes))
    # The project file comes last: where it is, the rest is.
    for link, target in found.links.items():
        _link(folder / "input" / link, target, folder)
    for name, table in (("train.csv", found.train), ("test.csv", found.test)):
        write_csv(folder / "input" / name, table)
        print(f"wrote {shown(folder / 'input' / name)}: {len(table):,} rows")
    names = {Path(_README): TEMPLATE / _README, **_templates(found.of_classes)}
    _write_templates(folder, names, _project_values(folder, found) | _readme_values(folder, found))
    print(f"next, in {shown(folder)}: foldsmith doctor, foldsmith run -cfg exp_config/901.yml")
    return folder / PROJECT_FILE


@dataclass(frozen=True)
class _Found:
    """What a project is made of.

    Attributes:
        train: The table of the labelled photos, as it is to be written.
        test: That of the photos to predict.
        links: Name of each link in ``input`` -> folder of photos.
        id_column: Column of the ids.
        path_column: Column of the photos' paths.
        source_column: Column of the targets as they were.
        target_column: Column of the targets as the project takes them.
        group_column: Column of the groups, if there are groups.
        target: What the targets are.
        folds: How to split.
        metric: What predictions are judged by.
        budget: How much time it may take.
        intensity: Scale of images with more than 8 bits per channel, if there are any.
    """

    train: pd.DataFrame
    test: pd.DataFrame
    links: Mapping[str, Path]
    id_column: str
    path_column: str
    source_column: str
    target_column: str
    group_column: str | None
    target: Target
    folds: FoldSettings
    metric: NewMetric
    budget: Budget
    intensity: IntensityRange | None

    @property
    def unordered(self) -> bool:
        """The targets are classes without an order."""
        return bool(self.target.classes) and self.metric not in _OF_SCALES

    @property
    def of_classes(self) -> bool:
        """What is wanted are probabilities of classes."""
        return self.unordered or self.metric in _OF_PROBABILITIES


def _find(data: Data, decide: "_Decisions") -> _Found:
    """Look at the data; nothing is written."""
    photos = PhotoFolder(data.images)
    others = None if data.test_images is None else PhotoFolder(data.test_images, "--test-images")
    for folder in (photos, others):
        if folder is not None:
            _say_photos(folder)
    train, test = _read(data, photos)

    id_column = decide("id", train, data.id_column, lambda: guess_id(train, photos))
    paths = locate(train, id_column, photos)
    known = [] if test is None else list(test.table.columns)
    target_column = decide(
        "target", train, data.target_column, lambda: guess_target(train, id_column, known)
    )
    target = examine_target(train, target_column, id_column)
    group_column = decide.optional(
        "group", train, data.group_column, lambda: guess_group(train, id_column, target_column)
    )
    _refuse_same(id_column, target_column, group_column)
    if group_column is not None:
        check_group(train, group_column)
    folds = choose_folds(target.values, None if group_column is None else train.table[group_column])
    print(f"folds    {folds.n_splits} by {folds.method}")
    metric = _metric(data, target, train, target_column)
    budget = _budget(data, len(photos.names) + (0 if others is None else len(others.names)))

    path_column = _free_name("path", train, test)
    new_train = train.table.assign(**{path_column: _below(_PHOTOS, paths)})
    new_target = target_column
    if not target.classes and numbers(new_train[target_column]).isna().any():
        print(f"note: the decimal commas of {_on_one_line(target_column)} are written as points")
        new_train[target_column] = target.values
    if target.classes and metric in _OF_SCALES:
        new_target = _free_name("target", train, test)
        new_train[new_target] = target.values.astype(int)
    new_test = _test_table(test, id_column, path_column, photos, others, train)
    _refuse_overlap(data, id_column, path_column, new_train, new_test)
    used = {*new_train[path_column], *new_test[path_column]}
    unused = len(set(_below(_PHOTOS, photos.names)) - used)
    if unused:
        print(f"note: {unused:,} photos of {shown(photos.folder)} are in no table and not used")
    return _Found(
        train=new_train,
        test=new_test,
        links={_PHOTOS: photos.folder} | ({} if others is None else {_TEST_PHOTOS: others.folder}),
        id_column=id_column,
        path_column=path_column,
        source_column=target_column,
        target_column=new_target,
        group_column=group_column,
        target=target,
        folds=folds,
        metric=metric,
        budget=budget,
        intensity=_intensity(photos, others),
    )


def _intensity(photos: PhotoFolder, others: PhotoFolder | None) -> IntensityRange | None:
    """Return the scale of images with more than 8 bits per channel, and print it."""
    folders = [photos] if others is None else [photos, others]
    found = first_range([folder.folder / name for folder in folders for name in folder.names])
    if found is not None:
        print(
            f"range    {range_text(found)} becomes 0 to 255: there are images with more than 8 "
            "bits per channel"
        )
    return found


class _Decisions:
    """Takes, asks for or guesses columns, and prints each with its reason."""

    def __init__(self, ask: Ask | None, yes: bool) -> None:
        self._ask = ask
        self._yes = yes
        self._taken: list[str] = []

    def __call__(
        self, what: str, source: Source, given: str | None, guess: Callable[[], Guess]
    ) -> str:
        """Return the column that there must be."""
        column = self.optional(what, source, given, guess)
        assert column is not None, f"a guess of the {what} is a column or an error"
        return column

    def optional(
        self, what: str, source: Source, given: str | None, guess: Callable[[], Guess]
    ) -> str | None:
        """Return the column, or None if there is none.

        Args:
            what: Name of the flag, without dashes.
            source: The table.
            given: The column that was named.
            guess: Looks for it.
        """
        column, why = self._choose(what, source, given, guess)
        print(f"{what:<8} {column or 'none'}{why}")
        if column is not None:
            self._taken.append(column)
        return column

    def _choose(
        self, what: str, source: Source, given: str | None, guess: Callable[[], Guess]
    ) -> tuple[str | None, str]:
        """Return the column and why it is the one."""
        columns = source.table.columns
        if given is not None:
            if what == "group" and given == NO_GROUP and given not in columns:
                return None, ", as named"
            source.has(given, f"--{what}")
            return given, ", as named"
        found = guess()
        if found.column is None or not found.others:
            return found.column, f": {found.why}"
        if self._yes:
            return found.column, f": {found.why} (or {', '.join(found.others)}: --{what})"
        answer = self._answer(what, source, found, found.column)
        return answer if answer in columns else None, ", as answered"

    def _answer(self, what: str, source: Source, found: Guess, best: str) -> str:
        choices = [best, *found.others, *([NO_GROUP] if what == "group" else [])]
        if self._ask is None:
            raise DataError(
                f"{source.file}: which column is the {what}? It may be {', '.join(choices)}; name "
                f"it with --{what}, or take the first with --yes"
            )
        # Any column may be meant, not only those that look like it.
        known = {*choices, *self._taken}
        others = [name for name in source.table.columns if name not in known]
        return self._ask(f"Which column is the {what}?", [*choices, *others], best)


def _read(data: Data, photos: PhotoFolder) -> tuple[Source, Source | None]:
    """Return the tables of the labelled photos and, if there is one, of those to predict."""
    if data.train is None:
        if data.test is not None:
            raise DataError("--test needs --train; without tables it is --test-images DIR")
        return Source(class_folders(photos), photos.folder), None
    train = Source(read_texts(data.train), data.train)
    if train.table.empty:
        raise DataError(f"{data.train}: has a line of column names but no rows")
    if data.test is None:
        return train, None
    return train, Source(read_texts(data.test), data.test)


def _test_table(
    test: Source | None,
    id_column: str,
    path_column: str,
    photos: PhotoFolder,
    others: PhotoFolder | None,
    train: Source,
) -> pd.DataFrame:
    """Return the table of the photos to predict; without rows if there are none."""
    prefix = _PHOTOS if others is None else _TEST_PHOTOS
    if test is not None:
        test.has(id_column, "the ids")
        paths = locate(test, id_column, others or photos)
        return test.table.assign(**{path_column: _below(prefix, paths)})
    if others is None:
        return pd.DataFrame({id_column: [], path_column: []}, dtype=object)
    ids = ids_of(others, prefix, train.table[id_column])
    return pd.DataFrame({id_column: ids, path_column: _below(prefix, others.names)}, dtype=object)


def _refuse_same(id_column: str, target_column: str, group_column: str | None) -> None:
    if target_column == id_column or group_column in (id_column, target_column):
        raise DataError(
            f"id {id_column}, target {target_column} and group {group_column} must be different "
            "columns; name them with --id, --target and --group"
        )


def _refuse_overlap(
    data: Data, id_column: str, path_column: str, train: pd.DataFrame, test: pd.DataFrame
) -> None:
    # By its photo too: 7 and 7.jpg are two ids of one.
    twice = train[train[path_column].duplicated(keep=False)]
    if len(twice):
        raise DataError(
            f"{data.train}: column {id_column}: {', '.join(twice[id_column].head(2))} name the "
            f"same photo, {twice[path_column].iloc[0]}; keep one row of each photo"
        )
    both = test[id_column].isin(train[id_column]) | test[path_column].isin(train[path_column])
    if both.any():
        raise DataError(
            f"{data.test}: column {id_column}: {both.sum()} photos are in {data.train} too, the "
            f"first is {test[id_column][both].iloc[0]}; a photo is either labelled or to predict"
        )


def _refuse_existing(folder: Path, names: Sequence[Path]) -> None:
    for name in names:
        if os.path.lexists(folder / name):
            raise OutputError(f"{folder / name}: exists already; name another folder")


def _say_photos(found: PhotoFolder) -> None:
    kinds = sorted({Path(name).suffix[1:].lower() for name in found.names})
    sides = found.sides()
    text = "none of a sample can be read" if sides is None else _sides(*sides)
    print(f"{shown(found.folder)}: {len(found.names):,} photos ({', '.join(kinds)}; {text})")


def _sides(shortest: int, longest: int) -> str:
    return f"sides of {shortest} to {longest} px" if shortest < longest else f"{longest} px"


def _metric(data: Data, target: Target, train: Source, column: str) -> NewMetric:
    """Choose the metric, and say what it means for the target."""
    metric: NewMetric = data.metric or ("Accuracy" if target.classes else "RMSE")
    if metric in _OF_PROBABILITIES and not target.few:
        raise DataError(
            f"{train.file}: column {column}: --metric {metric} judges classes, but these are "
            f"{len(set(target.values)):,} numbers; name another metric or another column"
        )
    listed = ", ".join(map(_on_one_line, target.classes[:8]))
    listed += ", ..." if len(target.classes) > 8 else ""
    if target.classes and metric in _OF_SCALES:
        print(f"classes  {listed}: taken for steps of one scale, in this order")
        print("         (for classes without an order: --metric Accuracy)")
    elif target.classes:
        print(f"classes  {listed}: no order is assumed")
        print("         (for steps of one scale, in this order: --metric QWK, RMSE or MAE)")
    elif target.few and metric not in _OF_PROBABILITIES:
        print("classes  the numbers are taken for a scale")
        print("         (where they only number classes: --metric LogLoss or AUC)")
    why = ", as named" if data.metric else ": text" if target.classes else ": numbers"
    print(f"metric   {metric}{why}")
    return metric


def _budget(data: Data, n_photos: int) -> Budget:
    if data.budget is not None:
        print(f"budget   {data.budget}, as named")
        return data.budget
    import torch

    budget: Budget = "small"
    why = "no CUDA device"
    if torch.cuda.is_available():
        budget = "large" if n_photos >= _LARGE else "medium"
        why = f"{n_photos:,} photos and a CUDA device"
    print(f"budget   {budget}: {why}")
    return budget


def _free_name(name: str, train: Source, test: Source | None) -> str:
    """Return a name that no column has yet."""
    taken = {*train.table.columns, *([] if test is None else test.table.columns)}
    while name in taken:
        name = f"new_{name}"
    return name


def _below(folder: str, paths: Sequence[str]) -> list[str]:
    return [f"{folder}/{path}" for path in paths]


def _project_values(folder: Path, found: _Found) -> dict[str, Any]:
    """Return what the project file says."""
    return {
        "how_made": "Found in the data by 'foldsmith new': look it over.",
        "name": _own_name(folder),
        "image_path": scalar_yaml(f"{{{found.path_column}}}"),
        "intensity": ""
        if found.intensity is None
        else _INTENSITY.format(range_text(found.intensity)),
        "id_column": scalar_yaml(found.id_column),
        "about_target": _about_target(found),
        "target_column": scalar_yaml(found.target_column),
        "target_values": _target_values(found),
        "metrics": _METRICS_OF_CLASSES if found.of_classes else _METRICS,
        "group_column": scalar_yaml(found.group_column),
        "method": found.folds.method,
        "n_splits": found.folds.n_splits,
        "metric": found.metric,
        "budget": found.budget,
        "batch": _batch(found.budget, len(found.train) + len(found.test)),
    }


def _target_values(found: _Found) -> str:
    """Return the lines of the project file on the values of the target."""
    target = found.target
    if found.unordered:
        return "class_names:\n" + "\n".join(f"- {scalar_yaml(name)}" for name in target.classes)
    return _SCALE.format(
        range=_numbers(target.range),
        n_classes=target.n_classes,
        class_values=_numbers(target.class_values),
    )


def _batch(budget: Budget, n_photos: int) -> str:
    """Return the pretraining's line for a smaller batch, where the photos do not fill one."""
    recipe = read_yaml(RECIPES / "recommended_pretraining.yml")
    if n_photos >= recipe["loader/train/batch_size"][budget]:
        return ""
    fits = 2 ** (n_photos.bit_length() - 1)
    why = "# The recipe's batch is larger than all photos together."
    return f"\n{why}\nloader/train/batch_size: {fits}"


def _about_target(found: _Found) -> str:
    """Return the comment above the target."""
    classes = found.target.classes
    if not classes:
        return str(_TO_FILL_IN["about_target"])
    if found.unordered:
        return (
            "# The column to predict, a text, and its classes, which have no order. For steps of "
            "a scale,\n# begin anew with 'foldsmith new ... --metric QWK'."
        )
    lines = [
        f"The column to predict: the classes of {_on_one_line(found.source_column)} as numbers, in "
        "the order below;",
        f"for another order, change the numbers of {found.target_column} in input/train.csv. The "
        "experiments",
        "take them for steps of one scale. For classes without an order, begin anew with",
        "'foldsmith new ... --metric Accuracy'.",
        *(f"  {number} = {_on_one_line(name)}" for number, name in enumerate(classes)),
    ]
    return "\n".join(f"# {line}" for line in lines)


def _readme_values(folder: Path, found: _Found) -> dict[str, str]:
    """Return what the README says."""
    target, added = found.target, f"the photo's `{found.path_column}`"
    what = f"the numbers {target.range[0]:g} to {target.range[1]:g}"
    if found.unordered:
        what = f"{len(target.classes)} classes"
    elif target.classes:
        what = f"{len(target.classes)} classes (their order is in `project.yml`)"
        added += f" and the number of its class, `{found.target_column}`"
    groups = "every photo by itself"
    if found.group_column is not None:
        groups = f"no {_on_one_line(found.group_column)} in two of them"
    submission = "`submission.csv`: the predictions to hand in;"
    fine_tunings = (
        "`exp_config/410.yml`, `420.yml` | fine-tuning as regression, as a label distribution"
    )
    if found.of_classes:
        submission += " `probabilities.csv`: those of each class;"
        fine_tunings = "`exp_config/410.yml` | fine-tuning as classification"
    to_predict = f"{len(found.test):,} photos to predict."
    if not len(found.test):
        submission = "`submission.csv`: empty, as there is nothing to predict;"
        to_predict = (
            "no photos to predict.\n\nTo predict some later, put them below `input`, their ids and "
            f"paths into `input/test.csv` ({', '.join(found.test.columns)}), and run the same "
            "command. It begins anew, since the pretraining sees all photos."
        )
    return {
        "title": folder.resolve().name,
        "summary": f"{len(found.train):,} labelled photos; target "
        f"{_on_one_line(found.source_column)}, {what}; {found.folds.n_splits} folds, {groups}; "
        f"{to_predict}",
        "submission": submission,
        "fine_tunings": fine_tunings,
        "added": added,
        "links": ", ".join(f"`input/{name}`" for name in found.links),
    }


def _on_one_line(text: str) -> str:
    """Return a text of the data for a comment or a README: on one line."""
    return " ".join(text.split())


def _numbers(values: Sequence[float]) -> str:
    """Return numbers as YAML, with all their digits."""
    return str([int(v) if v == int(v) and abs(v) < 1e15 else v for v in values])


def _own_name(folder: Path) -> str:
    return scalar_yaml(folder.resolve().name)


def _link(link: Path, target: Path, project: Path) -> None:
    """Link to a folder of photos: relative if the project holds it, so that it may move."""
    link.parent.mkdir(parents=True, exist_ok=True)
    inside = target.is_relative_to(os.path.abspath(project))
    start = os.path.abspath(link.parent)
    link.symlink_to(os.path.relpath(target, start) if inside else target, target_is_directory=True)
    print(f"linked {shown(link)} to {target}")


def _templates(of_classes: bool) -> dict[Path, Path]:
    """Return the YAML files of a new project: their paths in it -> their templates.

    Args:
        of_classes: The experiments predict probabilities of classes.
    """
    found = {path.relative_to(TEMPLATE): path for path in sorted(TEMPLATE.rglob("*.yml"))}
    if not of_classes:
        return found
    own = sorted(TEMPLATE_OF_CLASSES.rglob("*.yml"))
    shared = (Path(PROJECT_FILE), _PRETRAINING)
    return {name: found[name] for name in shared} | {
        path.relative_to(TEMPLATE_OF_CLASSES): path for path in own
    }


def _write_templates(folder: Path, names: Mapping[Path, Path], values: Mapping[str, Any]) -> None:
    for name in sorted(names, key=lambda path: path.name == PROJECT_FILE):
        text = names[name].read_text(encoding="utf-8")
        write_text(folder / name, Template(text).substitute(values))
        print(f"wrote {shown(folder / name)}")
