"""The rows of a new project: reads images and tables, finds columns, leaves out incomplete rows."""

import logging
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from foldsmith.errors import DataError
from foldsmith.new.decisions import Decisions, skip_rows
from foldsmith.new.new_tables import Folders, ReadRows
from foldsmith.new.survey.class_columns import classes_in_columns
from foldsmith.new.survey.columns import Source
from foldsmith.new.survey.folders import class_folders
from foldsmith.new.survey.guesses import guess_id, guess_target, locate, other_image_columns
from foldsmith.new.survey.images import ImageFolder
from foldsmith.new.survey.labels import (
    Labels,
    as_one_class,
    binary_columns,
    labels_in_columns,
    labels_in_text,
    named_columns,
)
from foldsmith.new.survey.several import numbers_in_columns, without_targets
from foldsmith.new.survey.targets import is_text, missing_targets
from foldsmith.project.csv_files import read_texts
from foldsmith.steps.output_folder import shown
from foldsmith.targets.metric_text import split_metric
from foldsmith.targets.metrics import METRICS_OF_LABELS
from foldsmith.utils.formatting import brief, counted

logger = logging.getLogger(__name__)


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


def open_folders(data: Data) -> Folders:
    """List the images of the folders."""
    others = None
    if data.test_images is not None:
        others = ImageFolder(data.test_images, "--test-images", without=data.images)
    folders = Folders(ImageFolder(data.images, without=data.test_images), others)
    for folder in folders.all:
        _say_images(folder)
    return folders


def read_rows(data: Data, decide: Decisions, folders: Folders) -> ReadRows:
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


def _labels_of(
    train: Source, data: Data, columns: tuple[str, ...], target_column: str
) -> Labels | None:
    """Return the labels of the train table; None if an image has one class or number."""
    if columns:
        if data.labels:
            return labels_in_columns(train, columns)
        return (
            classes_in_columns(train, columns, as_classes=data.classes is True)
            or numbers_in_columns(train, columns)
            or labels_in_columns(train, columns)
        )
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
