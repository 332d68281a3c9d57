"""The parts of a report for each form of the target with several values per image."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.project import ProjectFolder
from foldsmith.project.label_forms import SeveralLabels
from foldsmith.project.number_forms import SeveralNumbers
from foldsmith.report import label_parts, number_parts
from foldsmith.report.parts import Part

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FormParts:
    """The parts of a report about the predictions of one form.

    Attributes:
        parts: From (project, fold table, out-of-fold predictions) to the table of the values and
            the images.
        image_errors: From (predictions, targets) to one error per image, shape (n,).
        errors: From the same to all errors, without missing targets, shape (n_errors,).
    """

    parts: Callable[[ProjectFolder, pd.DataFrame, Array], Iterator[Part]]
    image_errors: Callable[[Array, Array], Array]
    errors: Callable[[Array, Array], Array]


# Name of each form with several values per image -> its parts.
PARTS_OF_FORMS: Mapping[str, FormParts] = {
    SeveralLabels.kind: FormParts(
        label_parts.label_parts, label_parts.mean_errors, label_parts.all_errors
    ),
    SeveralNumbers.kind: FormParts(
        number_parts.number_parts, number_parts.mean_errors, number_parts.known_errors
    ),
}
