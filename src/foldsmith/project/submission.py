"""Submissions: predictions in the form that the sample submission has."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.csv_files import read_texts
from foldsmith.project.submission_base import Sample, SubmissionForm
from foldsmith.project.submission_class_targets import TargetColumns
from foldsmith.project.submission_columns import LabelColumns, NumberColumns
from foldsmith.project.submission_forms import form_of
from foldsmith.project.submission_one_column import OneColumn

Array = npt.NDArray[np.float64]


def submission_form(project: ProjectFolder, test: pd.DataFrame) -> SubmissionForm:
    """Return the form of the submissions; the sample submission defines it if there is one.

    Its rows are matched to those of the test table by their ids, in whatever order and column
    they stand, with or without the suffix of an image. A sample without ids has the order of the
    test table.

    Args:
        project: The project.
        test: The table of the images to predict.

    Raises:
        DataError: As :func:`~foldsmith.project.submission_forms.form_of`.
    """
    settings = project.settings
    if settings.sample_submission is None:
        texts, columns = test[settings.id_column].to_numpy(dtype=object), project.form.handed_in
        content = {settings.id_column: texts} | dict.fromkeys(columns, "")
        table = pd.DataFrame(content, dtype=object)
        known = (table, settings.id_column, np.arange(len(test)), project.form.outputs)
        for in_columns in (LabelColumns, NumberColumns, TargetColumns):
            if project.form.kind in in_columns.suits and columns == project.form.outputs:
                return in_columns(*known, columns)
        return OneColumn(*known, columns[0])
    path = project.data_dir / settings.sample_submission
    return form_of(sample_of(project, path, test[settings.id_column].tolist()))


def sample_of(project: ProjectFolder, path: Path, ids: Sequence[str]) -> Sample:
    """Return a sample submission of a project.

    Args:
        project: The project.
        path: The file.
        ids: The ids of what is predicted, those of the test table.

    Raises:
        DataError: The file cannot be read.
    """
    return Sample(
        path=path,
        table=read_texts(path),
        ids=ids,
        source="the test table",
        id_name=project.settings.id_column,
        # Of labels in columns there is none of all of them.
        target=project.settings.target_column or "target",
        labels=project.form.outputs,
        kind=project.form.kind,
        needed=project.form.columns,
        named=bool(project.class_names),
        of_probabilities=project.metric.takes_probabilities,
        of_decisions=project.metric.decides,
    )


def submission_table(
    project: ProjectFolder,
    test: pd.DataFrame,
    predictions: npt.ArrayLike,
    probabilities: Array | None = None,
) -> pd.DataFrame:
    """Return predictions in the form of the sample submission, its rows in their order.

    Args:
        project: The project.
        test: The table of the images to predict.
        predictions: Shape (n_test,), or (n_test, n_targets), in the order of ``test``.
        probabilities: Probabilities of the classes, shape (n_test, n_classes), if there are any.

    Raises:
        DataError: The sample submission does not fit the test table, or needs probabilities.
    """
    form = submission_form(project, test)
    if not form.needs_probabilities:
        return form.filled(project.form.written(np.asarray(predictions, np.float64)))
    if probabilities is None:
        raise DataError(
            f"{project.data_dir / str(project.settings.sample_submission)}: its form ({form.title})"
            " needs class probabilities, which these predictions do not have; predict by a task "
            "that gives them, such as multi-class"
        )
    return form.filled(project.form.submitted(probabilities, project.metric))


def read_submission(project: ProjectFolder, path: Path, test: pd.DataFrame) -> Array:
    """Return the predictions of a submission.

    Args:
        project: The project.
        path: A file that :func:`submission_table` has made.
        test: The table of the images to predict.

    Returns:
        float64, shape (n_test,), in the order of ``test``; numbers of classes where those are
        texts.

    Raises:
        DataError: The file cannot be read, or is of other ids than the form has now.
    """
    form = submission_form(project, test)
    table = read_texts(path)
    kept = [name for name in form.table.columns if name not in form.value_columns]
    same = len(table) == len(form.rows) and set(table.columns) == set(form.table.columns)
    same = same and all((table[name] == form.table[name]).all() for name in kept)
    if not same:
        raise DataError(
            f"{path}: is not a submission of today's test table and sample submission; make it "
            "anew with 'foldsmith run'"
        )
    return _points(project, form.read(table, len(test)))


def _points(project: ProjectFolder, found: npt.NDArray[Any]) -> Array:
    """Return point predictions from texts, class probabilities or several numbers or texts."""
    if found.ndim == 1 or found.dtype == object:
        return project.form.points_of(pd.Series(list(found), dtype=object))
    return project.form.points(found)
