"""The choices of a new project: its target, groups, metric, folds and time."""

import logging
from dataclasses import dataclass

import pandas as pd

from foldsmith.data.folds import own_folds
from foldsmith.data.intensity import IntensityRange, range_text
from foldsmith.data.intensity_proposal import first_range
from foldsmith.errors import DataError
from foldsmith.new.decisions import (
    Decisions,
    choose_metric,
    choose_time,
    say_folds,
    say_labels,
)
from foldsmith.new.files import Found
from foldsmith.new.new_rows import Data, open_folders, read_rows
from foldsmith.new.new_tables import IMAGES, Folders, NewTables, ReadRows, below, new_tables
from foldsmith.new.sample import sample_submission
from foldsmith.new.survey.columns import Source
from foldsmith.new.survey.guesses import check_group, guess_group
from foldsmith.new.survey.images import ImageFolder
from foldsmith.new.survey.labels import Labels, choose_label_folds
from foldsmith.new.survey.targets import Target, choose_folds, examine_target
from foldsmith.project.settings import FoldSettings
from foldsmith.project.tables import FOLD_COLUMN
from foldsmith.steps.output_folder import shown
from foldsmith.targets.metrics import Metric, metric_named
from foldsmith.utils.formatting import brief

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Chosen:
    """The choices that depend on the form of the target.

    Attributes:
        target: The target, or labels or numbers where an image has several.
        ordered: It is a scale.
        group_column: Column of the groups, if there are groups.
        metric: The metric.
        judge: The same, with the project's classes.
        folds: How to split.
    """

    target: Target | Labels
    ordered: bool
    group_column: str | None
    metric: Metric
    judge: Metric
    folds: FoldSettings


def find(data: Data, decide: Decisions) -> Found:
    """Look at the data and choose; nothing is written."""
    folders = open_folders(data)
    rows = read_rows(data, decide, folders)
    if rows.labels is None:
        chosen = _choose(data, decide, rows)
    else:
        chosen = _choose_for_labels(data, decide, rows, rows.labels)
    target, ordered = chosen.target, chosen.ordered
    time = choose_time(data.time, sum(len(folder.names) for folder in folders.all))
    tables = new_tables((data.train, data.test), rows, folders, target, ordered)
    beside = (data.test, data.train)
    sample = sample_submission(data.sample, beside, tables, rows.id_column, target, chosen.judge)
    _say_unused(folders.images, tables)
    return Found(
        train=tables.train,
        test=tables.test,
        sample=sample,
        skipped=pd.DataFrame(rows.skipped),
        links=folders.links,
        id_column=rows.id_column,
        path_column=tables.path_column,
        source_column=target.target if isinstance(target, Labels) else rows.target_column,
        target_column=tables.target_column,
        group_column=chosen.group_column,
        target=target,
        ordered=ordered,
        folds=chosen.folds,
        metric=chosen.metric,
        time=time,
        intensity=_intensity(folders),
    )


def _choose(data: Data, decide: Decisions, rows: ReadRows) -> _Chosen:
    """Choose for one class or number per image."""
    train, column = rows.train, rows.target_column
    named = None if data.metric is None else metric_named(data.metric)
    as_classes = True if rows.one_hot else data.classes
    ordered = decide.has_order(train, column, named, as_classes, folders=data.train is None)
    target = examine_target(
        train,
        column,
        rows.id_column,
        as_classes=not ordered,
        judge=named.name if named is not None and named.of_classes else "",
        as_text=data.train is None and not ordered,
    )
    example = brief(rows.paths[0], 60), brief(train.table[column].iloc[0])
    logger.info(f"example  {example[0]} -> {example[1]}")
    group_column = _choose_group(data, decide, rows, (column,))
    metric = choose_metric(named, target, ordered, column)
    folds = _choose_folds(train, target, group_column, ordered)
    judge = metric.for_classes(target.values_of_classes, unordered=not ordered)
    return _Chosen(target, ordered, group_column, metric, judge, folds)


def _choose_for_labels(data: Data, decide: Decisions, rows: ReadRows, labels: Labels) -> _Chosen:
    """Choose for several labels or numbers per image."""
    say_labels(labels)
    columns = labels.names if labels.column is None else (labels.column,)
    group_column = _choose_group(data, decide, rows, columns)
    metric, why = labels.default_metric, f": {labels.kind}"
    if data.metric is not None:
        metric, why = metric_named(data.metric, metrics=labels.metrics), ", as named"
    logger.info(f"metric   {metric.title}{why}")
    groups = None if group_column is None else rows.train.table[group_column]
    folds, why = choose_label_folds(labels, groups)
    folds, why = _or_own_folds(rows.train, folds, why)
    logger.info(f"folds    {folds.n_splits} by {folds.method}{f': {why}' if why else ''}")
    return _Chosen(labels, False, group_column, metric, labels.judged_by(metric), folds)


def _choose_group(
    data: Data, decide: Decisions, rows: ReadRows, columns: tuple[str, ...]
) -> str | None:
    """Return the column of the groups, None without groups.

    Args:
        data: The data and options.
        decide: Chooses a column.
        rows: The rows.
        columns: Columns of the target.

    Raises:
        DataError: It is the column of the ids or the target, or the ids are a target, or it cannot
            be a group.
    """
    train, id_column = rows.train, rows.id_column
    group_column = decide.optional(
        "group", train, data.group_column, lambda: guess_group(train, id_column, columns[0])
    )
    for name in columns:
        if name == id_column or group_column in (id_column, name):
            raise DataError(
                f"id {id_column}, target {name} and group {group_column} must be different "
                "columns; name them with --id, --target and --group"
            )
    if group_column is not None:
        check_group(train, group_column)
    return group_column


def _choose_folds(
    train: Source, target: Target, group_column: str | None, ordered: bool
) -> FoldSettings:
    """Choose how the rows are split, and print it with the reason."""
    groups = None if group_column is None else train.table[group_column]
    folds, why = choose_folds(target.values, groups, classes=not ordered)
    folds, why = _or_own_folds(train, folds, why)
    say_folds(folds, why, target, groups, target.repeats or not ordered)
    return folds


def _or_own_folds(train: Source, folds: FoldSettings, why: str) -> tuple[FoldSettings, str]:
    """Return the settings, with as many folds as the train table's own column has if it has one.

    Args:
        train: The train table.
        folds: The settings.
        why: Their reason.

    Raises:
        DataError: The column holds no folds.
    """
    if FOLD_COLUMN not in train.table.columns:
        return folds, why
    try:
        own = own_folds(train.table[FOLD_COLUMN])
    except DataError as error:
        raise DataError(
            f"{train.file}: column {FOLD_COLUMN}: {error}; mend or rename the column"
        ) from None
    return folds.model_copy(update={"n_splits": own.n_splits}), f"those of column {FOLD_COLUMN}"


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
