"""The parts of a report for each form of the target with several values per image."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.project import ProjectFolder
from foldsmith.project.class_forms import ClassTargets
from foldsmith.project.label_forms import SeveralLabels
from foldsmith.project.number_forms import SeveralNumbers
from foldsmith.report.class_target_parts import class_target_parts
from foldsmith.report.label_parts import label_parts
from foldsmith.report.number_parts import number_parts
from foldsmith.report.parts import Part

Array = npt.NDArray[np.float64]

# Name of each form with several values per image -> from (project, fold table, out-of-fold
# predictions) to the table of the values and the images.
PARTS_OF_FORMS: Mapping[str, Callable[[ProjectFolder, pd.DataFrame, Array], Iterator[Part]]] = {
    SeveralLabels.kind: label_parts,
    SeveralNumbers.kind: number_parts,
    ClassTargets.kind: class_target_parts,
}
