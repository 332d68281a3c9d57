"""The weight of each labelled image in losses and heads: of its row, and of its classes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import sample_weights_of, targets_of
from foldsmith.utils.formatting import number_text

Array = npt.NDArray[np.float64]


def training_weights(
    project: ProjectFolder,
    class_weights: Any,
    table: pd.DataFrame,
    seen: npt.NDArray[np.bool_],
) -> Array | None:
    """Return the weight of each row of the fold table in the training of a fold.

    Weights have the mean 1 over the rows of the training, so that they change neither the learning
    rate nor the strength of a regularisation as a whole. Rows that are held out have weights on the
    same scale, for the loss of the validation.

    Args:
        project: The project, for ``sample_weight_column`` and the form of the target.
        class_weights: ``globals/class_weights`` of the experiment.
        table: The fold table.
        seen: Whether a row is trained on, shape (n,).

    Returns:
        float64, shape (n,), or (n, n_labels) if labels have weights of their own; None if all
        weights of the training are equal.

    Raises:
        DataError: Every row of the training has the weight 0, or the targets are no classes.
    """
    of_rows = sample_weights_of(project, table)
    weights = np.ones(len(table)) if of_rows is None else of_rows
    if not (weights[seen] > 0).any():
        raise DataError(
            f"{project.data_dir / project.settings.train_csv}: column "
            f"{project.settings.sample_weight_column}: every row that a fold is trained on has "
            "the weight 0"
        )
    if class_weights not in (None, "none"):
        weights = _with_classes(project, class_weights, table, seen, weights)
    if np.ptp(weights[seen], axis=0).max() == 0:
        return None
    means = weights[seen].mean(axis=0)
    # A label may have no weight at all.
    normalised: Array = weights / np.where(means > 0, means, 1.0)
    return normalised


def _with_classes(
    project: ProjectFolder,
    class_weights: Any,
    table: pd.DataFrame,
    seen: npt.NDArray[np.bool_],
    of_rows: Array,
) -> Array:
    """Return weights of rows times those of their classes."""
    form, targets = project.form, targets_of(project, table)
    present = form.classes(targets)
    if present is None:
        low, high = (number_text(value) for value in (np.nanmin(targets), np.nanmax(targets)))
        raise DataError(
            f"{project.data_dir / project.settings.train_csv}: column {', '.join(form.columns)}: "
            f"the targets ({low} to {high}) are none of the class values, so that class_weights "
            "fit none; set class_values and n_classes in project.yml, or globals/class_weights to "
            "none"
        )
    if form.several:
        of_present, of_absent = _of_labels(class_weights, form.labels, present, seen, of_rows)
        each: Array = of_rows[:, None] * np.where(present, of_present, of_absent)
        return each
    of_classes = _of_classes(class_weights, form.labels, present, seen, of_rows)
    weights: Array = of_rows * (present @ of_classes)
    if not (weights[seen] > 0).any():
        raise DataError("class_weights: every row that a fold is trained on has the weight 0")
    return weights


def _given(class_weights: Mapping[str, float], names: tuple[str, ...]) -> Array:
    return np.array([class_weights.get(name, 1.0) for name in names])


def _of_classes(
    class_weights: Any,
    names: tuple[str, ...],
    present: npt.NDArray[np.bool_],
    seen: npt.NDArray[np.bool_],
    of_rows: Array,
) -> Array:
    """Return the weight of each class, shape (n_classes,)."""
    if class_weights != "balanced":
        return _given(class_weights, names)
    sums = of_rows[seen] @ present[seen]
    # A class without an image to train on changes nothing.
    balanced: Array = np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 0)
    # Of a class that only the fold held out has: about that of the rarest one.
    balanced[sums == 0] = balanced.max()
    return balanced


def _of_labels(
    class_weights: Any,
    names: tuple[str, ...],
    present: npt.NDArray[np.bool_],
    seen: npt.NDArray[np.bool_],
    of_rows: Array,
) -> tuple[Array, Array]:
    """Return the weights of each label where it is present and where it is absent."""
    if class_weights != "balanced":
        return _given(class_weights, names), np.ones(len(names))
    with_label = of_rows[seen] @ present[seen]
    without = of_rows[seen] @ ~present[seen]
    # A label that all images have, or none, has nothing to balance.
    both = (with_label > 0) & (without > 0)
    return (
        np.where(both, 1 / np.where(both, with_label, 1), 1.0),
        np.where(both, 1 / np.where(both, without, 1), 1.0),
    )
