"""Several numbers per image in the columns of a table."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.errors import DataError
from foldsmith.new.survey.columns import Source
from foldsmith.new.survey.labels import Labels
from foldsmith.project.number_columns import columns_of_numbers, is_gap
from foldsmith.project.number_forms import SeveralNumbers
from foldsmith.targets.metrics import METRICS_OF_NUMBERS
from foldsmith.utils.formatting import brief
from foldsmith.utils.yaml_io import numbers_yaml, scalar_yaml


@dataclass(frozen=True)
class Numbers(Labels):
    """The targets of a new project that predicts several numbers; values have NaN for gaps.

    Attributes:
        ranges: Lowest and highest value of each target.
    """

    ranges: tuple[tuple[float, float], ...] = ()

    kind = SeveralNumbers.kind
    metrics = METRICS_OF_NUMBERS
    # Units differ from column to column.
    default_metric = METRICS_OF_NUMBERS["NRMSE"]
    about = (
        "# The columns to predict, a number each, and their lowest and highest possible values."
        "\n# target_weights and derived_columns may follow. For labels of 0 and 1 leave out\n"
        "# target_kind and target_ranges."
    )

    @property
    def project_lines(self) -> str:
        """The lines of the project file on the targets."""
        ranges = zip(self.names, self.ranges, strict=True)
        listed = "\n".join(f"  {scalar_yaml(name)}: {numbers_yaml(ends)}" for name, ends in ranges)
        names = "\n".join(f"- {scalar_yaml(name)}" for name in self.names)
        return f"target_columns:\n{names}\ntarget_kind: numbers\ntarget_ranges:\n{listed}"

    @property
    def for_folds(self) -> npt.NDArray[np.float64]:
        """The values that folds balance, shape (n,)."""
        return SeveralNumbers(self.names, self.ranges).for_folds(self.values)

    def summary(self) -> Iterator[str]:
        """Yield the range of each target, how many images have it, and which setting it is."""
        n_images = len(self.values)
        found = zip(self.names, self.ranges, (~np.isnan(self.values)).sum(axis=0), strict=True)
        listed = [
            f"{brief(name)} from {low:g} to {high:g}"
            + (f" (in {n:,} of {n_images:,} images)" if n < n_images else "")
            for name, (low, high), n in found
        ]
        more = f", and {len(listed) - 10} more" if len(listed) > 10 else ""
        yield f"numbers  {len(listed)} per image: {', '.join(listed[:10])}{more}"
        yield (
            "         (columns of 0 and 1 alone are labels; the setting in project.yml is "
            "target_kind)"
        )


def numbers_in_columns(source: Source, columns: tuple[str, ...]) -> Numbers | None:
    """Return the numbers of columns; None if all of them hold 0 and 1 alone.

    Raises:
        DataError: A column has a text that is no number, or is without any number; or a row has
            no target.
    """
    read = columns_of_numbers(source.table, columns)
    gaps = np.stack([is_gap(source.table[name]) for name in columns], axis=1)
    labels = np.isin(read, (0, 1)) | (np.isnan(read) & ~gaps)
    if labels.all() or not np.isfinite(read).any(axis=0).all():
        return None
    strange = np.isnan(read) & ~gaps
    if strange.any():
        row, k = np.argwhere(strange)[0]
        raise DataError(
            f"{source.file}: column {columns[k]}: {source.table[columns[k]].iloc[row]!r} is no "
            "number; several columns of --target are numbers, labels of 0 and 1, or all of them "
            "texts, which are classes (--classes takes numbers for classes too)"
        )
    if np.isnan(read).all(axis=1).any():
        row = int(np.isnan(read).all(axis=1).argmax())
        raise DataError(
            f"{source.file}: row {row + 1} has none of the targets {', '.join(columns)}; leave out "
            "such rows, with --skip-missing for example"
        )
    ends = [(float(np.nanmin(c)), float(np.nanmax(c))) for c in read.T]
    # Equal targets have no range of their own.
    ranges = tuple((low, high if high > low else low + 1) for low, high in ends)
    return Numbers(columns, read, ranges=ranges)


def without_targets(source: Source, columns: tuple[str, ...]) -> pd.Series:
    """Return which rows have none of the targets."""
    return source.table[list(columns)].apply(is_gap).all(axis=1)
