"""How far the predictions of two predictors are apart, on a few images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from foldsmith.errors import FoldsmithError
from foldsmith.predictor.predictor import Predictor
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import image_paths, read_test, read_train, readable_test
from foldsmith.utils.formatting import counted

# Images of the project that are compared: enough to meet a class that is nearly a tie.
_IMAGES = 32


@dataclass(frozen=True)
class Agreement:
    """A comparison of two predictors.

    Attributes:
        off: Largest difference of a prediction, a spread or a probability.
        share: The same as a share of the target's range, or of a probability.
        changed: Images whose predicted class differs; None where numbers are predicted.
        tables: The predictions themselves.
    """

    off: float
    share: float
    changed: int | None
    tables: tuple[pd.DataFrame, pd.DataFrame]

    @property
    def text(self) -> str:
        """The difference, for people: ``2.1e-06``, ``4.8e-03 (2 of 32 classes differ)``."""
        if self.changed is None:
            return f"{self.off:.1e}"
        return f"{self.off:.1e} ({self.changed} of {len(self.tables[0])} classes differ)"


def agreement(first: Predictor, second: Predictor, images: Sequence[Any]) -> Agreement:
    """Predict images by two predictors of the same run, and compare.

    Args:
        first: One.
        second: The other.
        images: Paths or RGB arrays.
    """
    tables = first.predict(images), second.predict(images)
    numbers = [table.select_dtypes("number") for table in tables]
    project = first.models[0].experiment.project
    scales = [_scale_of(name, project) for name in map(str, numbers[0])]
    off = np.abs(numbers[0].to_numpy() - numbers[1].to_numpy())
    changed = None
    if project.form.texts:
        texts = list(project.form.names_of("prediction"))
        changed = int((tables[0][texts] != tables[1][texts]).any(axis=1).sum())
    return Agreement(float(off.max()), float((off / scales).max()), changed, tables)


def _scale_of(column: str, project: ProjectFolder) -> float:
    """Return the difference that counts as 1 in a column of numbers."""
    if column.startswith("probability_") or project.form.texts:
        return 1.0
    low, high = project.form.range_of(column)
    return high - low


def sample_images(project: ProjectFolder) -> tuple[list[Any], str]:
    """Return images to compare predictors on, and their description.

    Returns:
        Paths of images from all over the project's tables, and ``images of the project``; or, if
        there are none any more, two made-up RGB arrays.
    """
    try:
        test = read_test(project)
        readable = test.iloc[readable_test(project, test)]
        paths = list(image_paths(project, read_train(project)) + image_paths(project, readable))
    except FoldsmithError:
        paths = []
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(_IMAGES, len(paths))).astype(int))
    found = [path for path in (paths[k] for k in chosen) if Path(path).is_file()]
    if found:
        return found, f"{counted(len(found), 'image')} of the project"
    return list(made_up_images()), "made-up images"


def made_up_images() -> list[Any]:
    """Return two RGB arrays of noise, uint8, of shapes (240, 320, 3) and (400, 320, 3)."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, 320, 3), np.uint8) for height in (240, 400)]
