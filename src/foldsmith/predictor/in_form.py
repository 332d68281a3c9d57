"""Predictions of new images in the form of a sample submission."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.submission import sample_of
from foldsmith.project.submission_forms import form_of


def in_form_of(
    sample: Path, project: ProjectFolder, table: pd.DataFrame, problems: Mapping[int, str]
) -> pd.DataFrame:
    """Return predictions of images in the form of a sample submission.

    Its ids are the images' file names, with or without the suffix of an image.

    Args:
        sample: The sample submission.
        project: The project that the predicting run belongs to.
        table: Columns path, prediction and, if there are any, probability_NAME of each class.
        problems: Problem of each image without a prediction, by its row.

    Raises:
        DataError: An image has no prediction, two have one name, the ids are not those of the
            images, or the form is none of the known ones or needs probabilities.
    """
    if problems:
        raise DataError(
            f"{sample}: needs a prediction for every id, and there is none: "
            f"{next(iter(problems.values()))}"
        )
    names = table["path"].map(lambda path: Path(path).name)
    twice = names[names.duplicated()]
    if len(twice):
        raise DataError(
            f"{sample}: two images are called {twice.iloc[0]}; predict one folder at a time"
        )
    columns = [f"probability_{label}" for label in project.form.labels]
    has = set(columns) <= set(table.columns)
    known = sample_of(project, sample, names.tolist())
    form = form_of(replace(known, of_probabilities=has, source="the list of images"))
    if form.needs_probabilities and not has:
        raise DataError(
            f"{sample}: its form ({form.title}) needs class probabilities, which this run does "
            "not predict; leave out --sample, or take a run whose metric needs them"
        )
    if not form.needs_probabilities:
        return form.filled(project.form.predicted(table))
    probabilities = table[columns].to_numpy(dtype=np.float64)
    return form.filled(project.form.submitted(probabilities, project.metric))
