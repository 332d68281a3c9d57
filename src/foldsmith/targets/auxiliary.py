"""Auxiliary targets: other facts about the labelled images, used in training only."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.further_targets import AuxiliaryKind, AuxiliarySettings
from foldsmith.project.number_columns import numbers
from foldsmith.project.tables import gaps, read_table
from foldsmith.targets.scale import TargetScale


@dataclass(frozen=True)
class AuxiliaryTargets:
    """Auxiliary targets of one name.

    Attributes:
        values: float32, shape (n, width), a row per row of the train table: standardised
            numbers, or 0 and 1 per label; NaN for unknown values.
        labels: Names of the columns.
        loss: Name of the loss in ``torch.nn.functional``.
    """

    values: npt.NDArray[np.float32]
    labels: tuple[str, ...]
    loss: str

    @property
    def width(self) -> int:
        """Number of outputs."""
        return len(self.labels)


def read_auxiliary(
    project: ProjectFolder, names: Iterable[str], table: pd.DataFrame, seen: npt.NDArray[np.bool_]
) -> dict[str, AuxiliaryTargets]:
    """Return the auxiliary targets that an experiment names.

    Mean, scale and vocabulary are those of the rows that are trained on.

    Args:
        project: Declares them in its section ``auxiliary``.
        names: Which of them.
        table: The fold table, n rows.
        seen: Which rows are trained on, shape (n,).

    Raises:
        DataError: A table or column is missing, or nothing can be learned from it.
    """
    declared = project.settings.auxiliary
    found = {}
    for name in names:
        settings = declared[name]
        found[name] = _READERS[settings.kind](project, name, settings, table, seen)
    return found


def _rows_of(
    project: ProjectFolder, settings: AuxiliarySettings, table: pd.DataFrame
) -> pd.DataFrame:
    """Return the ids and values that are not empty, any number of rows per id."""
    ids = project.settings.id_column
    source = settings.table
    if source is not None:
        table = read_table(project.data_dir / source, [ids, settings.column], ids, unique=False)
    elif settings.column not in table:
        raise DataError(f"{project.settings.train_csv}: no column {settings.column!r} (auxiliary)")
    rows = table[[ids, settings.column]].astype({settings.column: str})
    return rows[~gaps(rows[settings.column])]


def _regression(
    project: ProjectFolder,
    name: str,
    settings: AuxiliarySettings,
    table: pd.DataFrame,
    seen: npt.NDArray[np.bool_],
) -> AuxiliaryTargets:
    ids = project.settings.id_column
    rows = _rows_of(project, settings, table)
    by_id = numbers(rows[settings.column]).groupby(rows[ids]).mean()
    values = table[ids].map(by_id).to_numpy(np.float64, copy=True)
    known = values[seen & np.isfinite(values)]
    if not len(known) or np.nanmin(values) == np.nanmax(values):
        raise DataError(f"auxiliary/{name}: the column {settings.column} holds no two numbers")
    standardised = TargetScale.fit(known, "linear").forward(values).astype(np.float32)
    return AuxiliaryTargets(standardised[:, None], (settings.column,), "mse_loss")


def _multi_label(
    project: ProjectFolder,
    name: str,
    settings: AuxiliarySettings,
    table: pd.DataFrame,
    seen: npt.NDArray[np.bool_],
) -> AuxiliaryTargets:
    ids = project.settings.id_column
    rows = _rows_of(project, settings, table).drop_duplicates()
    known = rows[rows[ids].isin(table[ids])]
    counts = known[known[ids].isin(table[ids][seen])][settings.column].value_counts()
    labels = tuple(sorted(counts.index[counts >= settings.min_count]))
    if not labels:
        raise DataError(
            f"auxiliary/{name}: no value of {settings.column} stands at {settings.min_count} "
            "images or more; lower its min_count in project.yml"
        )
    position = pd.Series(np.arange(len(table)), index=table[ids])
    values = np.full((len(table), len(labels)), np.nan, np.float32)
    values[position[known[ids].unique()].to_numpy()] = 0
    kept = known[known[settings.column].isin(labels)]
    columns = kept[settings.column].map({label: k for k, label in enumerate(labels)})
    values[position[kept[ids]].to_numpy(), columns.to_numpy()] = 1
    return AuxiliaryTargets(values, labels, "binary_cross_entropy_with_logits")


# A line for each kind that the section ``auxiliary`` of a project may name.
_READERS: dict[AuxiliaryKind, Callable[..., AuxiliaryTargets]] = {
    "regression": _regression,
    "multi-label": _multi_label,
}
