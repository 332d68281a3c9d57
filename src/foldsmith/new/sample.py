"""The sample submission of a new project: found, recognised and printed."""

import logging
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from foldsmith.errors import DataError
from foldsmith.new.new_tables import NewTables
from foldsmith.new.survey.labels import Labels
from foldsmith.new.survey.targets import Target
from foldsmith.project.csv_files import read_texts
from foldsmith.project.submission_base import Sample
from foldsmith.project.submission_forms import form_of
from foldsmith.steps.output_folder import shown
from foldsmith.targets.metric import Metric
from foldsmith.utils.formatting import number_text

logger = logging.getLogger(__name__)

SAMPLE = "sample_submission.csv"


def sample_submission(
    named: Path | None,
    beside: Iterable[Path | None],
    tables: NewTables,
    id_column: str,
    target: Target | Labels,
    metric: Metric,
) -> pd.DataFrame | None:
    """Return the sample submission, and print its form; None if there is none.

    A file of the usual name beside the tables is taken if it fits, and a note says so if not.

    Args:
        named: The file that was named.
        beside: The tables.
        tables: The tables of the new project.
        id_column: Column of the ids.
        target: The target.
        metric: The metric, with the project's classes.

    Raises:
        DataError: The named file cannot be read, or has no known form.
    """
    folders = dict.fromkeys(path.parent for path in beside if path is not None)
    found = next((folder / SAMPLE for folder in folders if (folder / SAMPLE).is_file()), None)
    path = named or found
    if path is None:
        return None
    try:
        if not len(tables.test):
            raise DataError(f"{path}: needs the images to predict; name their table with --test")
        table, labels = read_texts(path), _labels(target, metric)
        form = form_of(
            Sample(
                path=path,
                table=table,
                ids=tables.test[id_column].tolist(),
                source="the test table",
                id_name=id_column,
                target=tables.target_column,
                kind=target.kind,
                needed=labels,
                labels=labels,
                named=metric.unordered,
                of_probabilities=metric.takes_probabilities,
                of_decisions=metric.decides,
            )
        )
    except DataError as error:
        if named is not None:
            raise
        reason = str(error).removeprefix(f"{path}: ")
        logger.info(f"note: {shown(path)} is not taken for the sample submission: {reason}")
        return None
    why = ", as named" if named is not None else ", found beside the tables"
    logger.info(f"sample   {path.name}{why}: {form.title}")
    return table


def _labels(target: Target | Labels, metric: Metric) -> tuple[str, ...]:
    """Return the text of each class or label, as submissions of the project have it."""
    if isinstance(target, Labels):
        return target.names
    if metric.unordered:
        return tuple(target.classes)
    return tuple(map(number_text, target.values_of_classes))
