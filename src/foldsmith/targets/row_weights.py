"""The weight of each labelled image in losses and heads: its row's weight times its class's."""

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
        float64, shape (n,), or (n, n_labels) or (n, n_columns) if labels or several class targets
        have weights of their own; None if all weights of the training are equal.

    Raises:
        DataError: Every row of the training has the weight 0, or has it for one of the labels; or
            a target is none of the classes.
    """
    given = sample_weights_of(project, table)
    weights = np.ones(len(table)) if given is None else given
    if not (weights[seen] > 0).any():
        raise DataError(
            f"{project.data_dir / project.settings.train_csv}: column "
            f"{project.settings.sample_weight_column}: every row that a fold is trained on has "
            "the weight 0; give some of them a weight above 0"
        )
    if class_weights not in (None, "none"):
        weights = _with_classes(project, class_weights, table, seen, weights)
    learned = weights[seen]
    weightless = ~(learned > 0).any(axis=0)
    if weightless.any():
        form = project.form
        one, names = ("target", form.columns) if form.block_sizes else ("label", form.labels)
        of_label = f" for the {one} {names[weightless.argmax()]}"
        raise DataError(
            "class_weights: every row that a fold is trained on has the weight 0"
            f"{of_label if learned.ndim > 1 else ''}; give one of their classes or labels a weight "
            "above 0"
        )
    if np.ptp(learned, axis=0).max() == 0:
        return None
    normalised: Array = weights / learned.mean(axis=0)
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
            f"the targets ({low} to {high}) are not all among the class values, which "
            "class_weights need; set class_values and n_classes in project.yml, or "
            "globals/class_weights to none"
        )
    if not form.sum_to_1:
        of_present, of_absent = _of_labels(class_weights, form.labels, present, seen, of_rows)
        each: Array = of_rows[:, None] * np.where(present, of_present, of_absent)
        return each
    columns = [
        _of_block(class_weights, form.labels[place], present[:, place], seen, of_rows)
        for place in form.sum_to_1
    ]
    return columns[0] if len(columns) == 1 else np.stack(columns, axis=1)


def _of_block(
    class_weights: Any,
    names: tuple[str, ...],
    present: npt.NDArray[np.bool_],
    seen: npt.NDArray[np.bool_],
    of_rows: Array,
) -> Array:
    """Return the weights of rows times those of their classes, which exclude each other.

    Rows without a class have the mean weight of the others, so that the mean of these stays 1.
    """
    weights: Array = of_rows * (present @ _of_classes(class_weights, names, present, seen, of_rows))
    known: npt.NDArray[np.bool_] = np.asarray(present.any(axis=1))
    if known.all() or not known[seen].any():
        return weights
    return np.where(known, weights, weights[known & seen].mean())


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
    balanced: Array = np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 0)
    # A class that only the held-out fold has gets the weight of the rarest one.
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
