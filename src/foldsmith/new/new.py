"""A new project: the recommended recipe, and a project file to fill in or made from the data."""

import logging
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from foldsmith.data.folds import own_folds
from foldsmith.data.intensity import IntensityRange, range_text
from foldsmith.data.intensity_proposal import first_range
from foldsmith.errors import DataError, FoldsmithError
from foldsmith.new.decisions import (
    Ask,
    Decisions,
    choose_metric,
    choose_time,
    say_folds,
    say_labels,
    skip_rows,
)
from foldsmith.new.files import (
    README,
    RECIPES_OF_TARGETS,
    TEMPLATE,
    TO_FILL_IN,
    Content,
    Found,
    LinkToImages,
    filled_in,
    own_name,
    project_values,
    readme_values,
    recipe_texts,
    refuse_finished,
    templates,
    write_all,
)
from foldsmith.new.new_tables import (
    IMAGES,
    TEST_IMAGES,
    Folders,
    NewTables,
    ReadRows,
    below,
    new_tables,
)
from foldsmith.new.sample import SAMPLE, sample_submission
from foldsmith.new.survey.columns import Source
from foldsmith.new.survey.folders import class_folders
from foldsmith.new.survey.guesses import (
    check_group,
    guess_group,
    guess_id,
    guess_target,
    locate,
    other_image_columns,
)
from foldsmith.new.survey.images import ImageFolder
from foldsmith.new.survey.labels import (
    Labels,
    as_one_class,
    binary_columns,
    choose_label_folds,
    labels_in_columns,
    labels_in_text,
    named_columns,
)
from foldsmith.new.survey.several import Numbers, numbers_in_columns, without_targets
from foldsmith.new.survey.targets import (
    Target,
    choose_folds,
    examine_target,
    is_text,
    missing_targets,
)
from foldsmith.new.timing.planned import measured, planned, read_plan
from foldsmith.project import ProjectFolder
from foldsmith.project.csv_files import read_texts
from foldsmith.project.planned_time import TIME_PLAN
from foldsmith.project.project_file import PROJECT_FILE
from foldsmith.project.settings import FoldSettings
from foldsmith.project.tables import FOLD_COLUMN
from foldsmith.steps.output_folder import shown
from foldsmith.targets.label_metrics import F1_OF_LABELS
from foldsmith.targets.metric_text import split_metric
from foldsmith.targets.metrics import METRICS_OF_LABELS, METRICS_OF_NUMBERS, metric_named
from foldsmith.utils.formatting import brief, counted
from foldsmith.utils.log_output import lines_hidden

logger = logging.getLogger(__name__)

_INPUT = Path("input")
# Rows that were left out, with the reason.
_SKIPPED = "skipped.csv"


@dataclass(frozen=True)
class Data:
    """Data and options of a new project.

    Attributes:
        images: Folder of the images.
        train: Table of the labelled images; None if ``images`` holds one folder per class.
        test: Table of the images to predict, if there is one.
        test_images: Folder of the images to predict, if it is another than ``images``.
        sample: The sample submission; None takes a ``sample_submission.csv`` beside the tables.
        id_column: Name of the id column; None to be found.
        target_column: Name of the target column; None to be found.
        group_column: Name of the group column; ``none`` for no groups, None to be found.
        metric: Name of the metric; None to be chosen.
        time: How long a run may take, as in ``15m``; None to be chosen.
        classes: Whether targets are classes without an order (False: steps of a scale); None to
            be found.
        skip_missing: Leave out rows without an image or target.
        labels: Take columns of 0 and 1 for labels, also if every image has exactly one.
    """

    images: Path
    train: Path | None = None
    test: Path | None = None
    test_images: Path | None = None
    sample: Path | None = None
    id_column: str | None = None
    target_column: str | None = None
    group_column: str | None = None
    metric: str | None = None
    time: str | None = None
    classes: bool | None = None
    skip_missing: bool = False
    labels: bool = False


def new_project(folder: Path, time: str | None = None) -> Path:
    """Write a project file to fill in and the experiments of the recommended recipe.

    Args:
        folder: The project folder; made if it is not there.
        time: How long a run may take, as in ``15m``; None for 15 minutes.

    Returns:
        The project file.

    Raises:
        OutputError: One of the files is there already; nothing is written then.
    """
    refuse_finished(folder)
    time = choose_time(time or "small", 0)
    values = TO_FILL_IN | {"name": own_name(folder), "time": time}
    write_all(folder, filled_in(templates("numbers"), values))
    logger.info(
        f"next: set the lines of {shown(folder / PROJECT_FILE)} that describe your data; then, "
        f"in {shown(folder)}: foldsmith doctor, foldsmith run -cfg exp_config/901.yml --time {time}"
    )
    return folder / PROJECT_FILE


def new_project_of(folder: Path, data: Data, ask: Ask | None = None, yes: bool = False) -> Path:
    """Look at images and tables, and write a project that is ready to run.

    The tables are written anew into its ``input``, with all their columns, the column ``path``
    and, where targets of text are taken for a scale, one of numbers; the images stay where they
    are, behind the link ``input/images``. How columns are chosen is said by
    :func:`~foldsmith.new.survey.guesses.guess_id`, ``guess_target`` and ``guess_group``, the rest
    by ``examine_target``, ``choose_folds`` and
    :meth:`~foldsmith.new.decisions.Decisions.has_order`. The default metric is RMSE for a scale and
    Accuracy for classes; the time 15 minutes without a GPU, else an hour, and 8 hours from
    20,000 images on. Sizes, backbones and epochs that fit the time are chosen by
    :func:`~foldsmith.new.timing.rule.choose`. Each choice is printed, and the first row with its
    image and target.

    Classes without an order, and targets with a metric that needs probabilities (LogLoss, AUC), get
    experiments that predict the probabilities of classes.

    Args:
        folder: The project folder; made if it is not there.
        data: The data, and its known properties.
        ask: Asks a person where several columns are possible.
        yes: Ask nothing. Among several possible columns take the one with a usual name; numbers
            are a scale unless they may be ids of classes and their column
            is called so, or the metric judges classes without an order.

    Returns:
        The project file.

    Raises:
        DataError: The data has errors, or a column must be named because there is no terminal to
            ask.
        OutputError: One of the files is there already. Nothing is written in either case.
    """
    refuse_finished(folder)
    found = _find(data, Decisions(ask, yes))
    contents = _planned(folder, found, _contents(folder, found))
    # One project is not to be mixed with another of fewer files.
    may_be = [name for recipe in RECIPES_OF_TARGETS for name in templates(recipe)]
    may_be += [_INPUT / name for name in (_SKIPPED, SAMPLE, IMAGES, TEST_IMAGES)]
    write_all(folder, contents, others=[name for name in may_be if name not in contents])
    logger.info(
        f"next, in {shown(folder)}: foldsmith doctor, foldsmith run -cfg exp_config/901.yml"
    )
    return folder / PROJECT_FILE


def _contents(folder: Path, found: Found) -> dict[Path, Content]:
    """Return the content of each file of a project in a folder, without planned values."""
    names = {Path(README): TEMPLATE / README, **templates(found.recipe)}
    return {
        **{_INPUT / name: LinkToImages(to, folder) for name, to in found.links.items()},
        **{_INPUT / "train.csv": found.train, _INPUT / "test.csv": found.test},
        **({_INPUT / _SKIPPED: found.skipped} if len(found.skipped) else {}),
        **({} if found.sample is None else {_INPUT / SAMPLE: found.sample}),
        **filled_in(names, project_values(folder, found) | readme_values(folder, found)),
    }


def _planned(folder: Path, found: Found, contents: dict[Path, Content]) -> dict[Path, Content]:
    """Return the contents with the values that fit the time, and the record of the plan first.

    The same project is written into a temporary folder, where its own experiments are timed. The
    plan of a command that was killed while it wrote is taken as it is.
    """
    texts = recipe_texts(found.recipe, found.budget, len(found.train) + len(found.test))
    plan = read_plan(folder)
    if plan is None or plan.time != found.time:
        try:
            with tempfile.TemporaryDirectory(prefix="foldsmith-") as trial, lines_hidden():
                write_all(Path(trial), _contents(Path(trial), found))
                timed = measured(ProjectFolder.open(trial), found.time, texts)
        except FoldsmithError as error:
            logger.info(f"note: sizes and epochs are not planned: {error}")
            logger.info(f"      (when that is mended: foldsmith run --time {found.time})")
            return contents
        plan = planned(timed, found.time)
    experiments = {Path(name) for name in texts}
    return {
        Path(TIME_PLAN): plan.text,
        **{path: content for path, content in contents.items() if path not in experiments},
        **{Path(name): text for name, text in plan.texts.items()},
    }


def _find(data: Data, decide: Decisions) -> Found:
    """Look at the data; nothing is written."""
    folders = _open_folders(data)
    rows = _read_rows(data, decide, folders)
    if rows.labels is not None:
        return _find_labels(data, decide, folders, rows, rows.labels)
    if rows.one_hot:
        data = replace(data, classes=True)
    train, id_column, target_column = rows.train, rows.id_column, rows.target_column
    named = None if data.metric is None else metric_named(data.metric)
    ordered = decide.has_order(
        train, target_column, named, data.classes, folders=data.train is None
    )
    target = examine_target(
        train,
        target_column,
        id_column,
        as_classes=not ordered,
        judge=named.name if named is not None and named.of_classes else "",
        as_text=data.train is None and not ordered,
    )
    example = brief(rows.paths[0], 60), brief(train.table[target_column].iloc[0])
    logger.info(f"example  {example[0]} -> {example[1]}")
    group_column = decide.optional(
        "group", train, data.group_column, lambda: guess_group(train, id_column, target_column)
    )
    _refuse_same(id_column, target_column, group_column)
    if group_column is not None:
        check_group(train, group_column)
    metric = choose_metric(named, target, ordered, target_column)
    folds = _choose_folds(train, target, group_column, ordered)
    time = choose_time(data.time, sum(len(folder.names) for folder in folders.all))
    tables = new_tables((data.train, data.test), rows, folders, target, ordered)
    judge = metric.for_classes(target.values_of_classes, unordered=not ordered)
    sample = sample_submission(
        data.sample, (data.test, data.train), tables, id_column, target, judge
    )
    _say_unused(folders.images, tables)
    return Found(
        train=tables.train,
        test=tables.test,
        sample=sample,
        skipped=pd.DataFrame(rows.skipped),
        links=folders.links,
        id_column=id_column,
        path_column=tables.path_column,
        source_column=target_column,
        target_column=tables.target_column,
        group_column=group_column,
        target=target,
        ordered=ordered,
        folds=folds,
        metric=metric,
        time=time,
        intensity=_intensity(folders),
    )


def _find_labels(
    data: Data, decide: Decisions, folders: Folders, rows: ReadRows, labels: Labels
) -> Found:
    """Look at data with several labels per image; nothing is written."""
    train, id_column = rows.train, rows.id_column
    columns = labels.names if labels.column is None else (labels.column,)
    say_labels(labels)
    group_column = decide.optional(
        "group", train, data.group_column, lambda: guess_group(train, id_column, columns[0])
    )
    for name in columns:
        _refuse_same(id_column, name, group_column)
    if group_column is not None:
        check_group(train, group_column)
    known, metric, kind = METRICS_OF_LABELS, F1_OF_LABELS, "labels"
    if isinstance(labels, Numbers):
        # Units differ from column to column.
        known, kind = dict(METRICS_OF_NUMBERS), "several numbers"
        metric = known["NRMSE"]
    if data.metric is not None:
        metric = metric_named(data.metric, metrics=known)
    logger.info(f"metric   {metric.title}{', as named' if data.metric else f': {kind}'}")
    groups = None if group_column is None else train.table[group_column]
    folds, why = choose_label_folds(labels, groups)
    if FOLD_COLUMN in train.table.columns:
        folds, why = _own_folds(train, folds), f"those of column {FOLD_COLUMN}"
    logger.info(f"folds    {folds.n_splits} by {folds.method}{f': {why}' if why else ''}")
    time = choose_time(data.time, sum(len(folder.names) for folder in folders.all))
    tables = new_tables((data.train, data.test), rows, folders, None, False)
    beside = (data.test, data.train)
    sample = sample_submission(data.sample, beside, tables, id_column, labels, metric)
    _say_unused(folders.images, tables)
    return Found(
        train=tables.train,
        test=tables.test,
        sample=sample,
        skipped=pd.DataFrame(rows.skipped),
        links=folders.links,
        id_column=id_column,
        path_column=tables.path_column,
        source_column=labels.target,
        target_column=tables.target_column,
        group_column=group_column,
        target=labels,
        ordered=False,
        folds=folds,
        metric=metric,
        time=time,
        intensity=_intensity(folders),
    )


def _labels_of(
    train: Source, data: Data, columns: tuple[str, ...], target_column: str
) -> Labels | None:
    """Return the labels of the train table; None if an image has one class or number."""
    if columns:
        several = None if data.labels else numbers_in_columns(train, columns)
        return several or labels_in_columns(train, columns)
    other = data.metric is not None and split_metric(data.metric)[0] not in METRICS_OF_LABELS
    found = None
    if not (data.train is None or data.classes is not None or other):
        found = labels_in_text(train, target_column) if is_text(train, target_column) else None
    if data.labels and found is None:
        raise DataError(
            f"{train.file}: column {target_column}: has no texts that share labels, as 'a;b'; "
            "leave out --labels, or name columns of 0 and 1 with --target a,b"
        )
    return found


def _open_folders(data: Data) -> Folders:
    """List the images of the folders."""
    others = None
    if data.test_images is not None:
        others = ImageFolder(data.test_images, "--test-images", without=data.images)
    folders = Folders(ImageFolder(data.images, without=data.test_images), others)
    for folder in folders.all:
        _say_images(folder)
    return folders


def _read_rows(data: Data, decide: Decisions, folders: Folders) -> ReadRows:
    """Read the tables, find the columns of ids and targets, and leave out incomplete rows."""
    images = folders.images
    train, test = _read(data, images)
    n_read = len(train.table), 0 if test is None else len(test.table)
    skipped: list[dict[str, str]] = []
    known = None if test is None else list(test.table.columns)
    id_column = decide("id", train, data.id_column, lambda: guess_id(train, images, known))
    if data.skip_missing:
        train = _with_images(train, id_column, images, skipped)
        if test is not None and id_column in test.table.columns:
            test = _with_images(test, id_column, folders.others or images, skipped)
    paths = locate(train, id_column, images)
    for name in other_image_columns(train, id_column, images):
        logger.info(
            f"note: column {brief(name)} names images too, which are not used: a row is one image"
        )
    test_table = None if test is None else test.table
    columns = named_columns(train, data.target_column)
    target_column = data.target_column or ""
    why = ", as named"
    if data.target_column is None and data.train is not None and data.classes is None:
        columns = binary_columns(train, id_column, known)
        why = ": the other columns, all of 0 and 1 (for one of them: --target)"
    one_hot = as_one_class(train, columns) if columns and not data.labels else None
    if columns:
        logger.info(f"target   {', '.join(map(brief, columns))}{why}")
    if one_hot is not None:
        train, target_column = one_hot
        logger.info(
            f"classes  every image has exactly one of them: classes, in the column {target_column}"
        )
        logger.info("         (for labels, of which an image may have several: --labels)")
    elif not columns:
        target_column = decide(
            "target",
            train,
            data.target_column,
            lambda: guess_target(train, id_column, known or [], test_table),
        )
    if columns and data.skip_missing:
        gone = without_targets(train, columns)
        train = skip_rows(train, gone, id_column, "no target", skipped)
        paths = [path for path, gap in zip(paths, gone, strict=True) if not gap]
    labels = None if one_hot else _labels_of(train, data, columns, target_column)
    # An image may have no label.
    if data.skip_missing and labels is None:
        gaps = missing_targets(train, target_column)
        train = skip_rows(train, gaps, id_column, "no target", skipped)
        paths = [path for path, gap in zip(paths, gaps, strict=True) if not gap]
    _say_skipped(skipped, n_read, train)
    return ReadRows(train, test, id_column, target_column, labels, paths, skipped, bool(one_hot))


def _choose_folds(
    train: Source, target: Target, group_column: str | None, ordered: bool
) -> FoldSettings:
    """Choose how the rows are split, and print it with the reason."""
    groups = None if group_column is None else train.table[group_column]
    folds, why = choose_folds(target.values, groups, classes=not ordered)
    if FOLD_COLUMN in train.table.columns:
        folds, why = _own_folds(train, folds), f"those of column {FOLD_COLUMN}"
    n_splits = f"{folds.n_splits} by {folds.method}"
    say_folds(n_splits, why, target, folds.n_splits, target.repeats or not ordered)
    return folds


def _say_unused(images: ImageFolder, tables: NewTables) -> None:
    """Print how many images are in no table."""
    used = {*tables.train[tables.path_column], *tables.test[tables.path_column]}
    unused = len(set(below(IMAGES, images.names)) - used)
    if unused:
        are = "image is" if unused == 1 else "images are"
        logger.info(f"note: {unused:,} {are} in no table and not used ({shown(images.folder)})")


def _intensity(folders: Folders) -> IntensityRange | None:
    """Return the scale of images with more than 8 bits per channel, and print it."""
    found = first_range([folder.folder / name for folder in folders.all for name in folder.names])
    if found is not None:
        logger.info(
            f"range    {range_text(found)} becomes 0 to 255: there are images with more than 8 "
            "bits per channel"
        )
    return found


def _own_folds(train: Source, folds: FoldSettings) -> FoldSettings:
    """Return the settings with as many folds as the train table's own column has.

    Raises:
        DataError: The column holds no folds.
    """
    try:
        own = own_folds(train.table[FOLD_COLUMN])
    except DataError as error:
        raise DataError(
            f"{train.file}: column {FOLD_COLUMN}: {error}; mend or rename the column"
        ) from None
    return folds.model_copy(update={"n_splits": own.n_splits})


def _with_images(
    source: Source, id_column: str, images: ImageFolder, skipped: list[dict[str, str]]
) -> Source:
    """Return a table without the rows whose image is missing."""
    ids = source.table[id_column]
    missing = ids.map(lambda text: not images.find(text)).astype(bool)
    return skip_rows(source, missing, id_column, "no image", skipped)


def _say_skipped(skipped: list[dict[str, str]], n_read: tuple[int, int], train: Source) -> None:
    """Print how many rows are left out, of which table and why, and the first of them."""
    reasons = pd.DataFrame(skipped, columns=["table", "id", "reason"])
    for (table, reason), rows in reasons.groupby(["table", "reason"], sort=False):
        ids = ", ".join(map(brief, rows["id"].head(3))) + (", ..." if len(rows) > 3 else "")
        logger.info(f"skipped  {counted(len(rows), 'row')} of {table}: {reason} ({ids})")
    if (reasons["table"] != train.file.name).any():
        logger.info("         (the submission will have no row for those of the test table)")
    if train.table.empty:
        raise DataError(f"{train.file}: none of {n_read[0]:,} rows has an image and a target")


def _read(data: Data, images: ImageFolder) -> tuple[Source, Source | None]:
    """Return the tables of the labelled images and, if there is one, of those to predict."""
    if data.train is None:
        if data.test is not None:
            raise DataError("--test needs --train; without tables it is --test-images DIR")
        return Source(class_folders(images), images.folder), None
    train = Source(read_texts(data.train), data.train)
    if train.table.empty:
        raise DataError(f"{data.train}: has a line of column names but no rows")
    if data.test is None:
        return train, None
    return train, Source(read_texts(data.test), data.test)


def _refuse_same(id_column: str, target_column: str, group_column: str | None) -> None:
    if target_column == id_column or group_column in (id_column, target_column):
        raise DataError(
            f"id {id_column}, target {target_column} and group {group_column} must be different "
            "columns; name them with --id, --target and --group"
        )


def _say_images(found: ImageFolder) -> None:
    kinds = sorted({Path(name).suffix[1:].lower() for name in found.names})
    sides = found.sides()
    text = "none of a sample can be read" if sides is None else _sides(*sides)
    logger.info(
        f"{shown(found.folder)}: {counted(len(found.names), 'image')} ({', '.join(kinds)}; {text})"
    )
    if str(found.left_out):
        logger.info(f"note: {shown(found.folder)}: not taken for images: {found.left_out}")


def _sides(shortest: int, longest: int) -> str:
    return f"sides of {shortest} to {longest} px" if shortest < longest else f"{longest} px"
