"""Several labels per image in the columns of a table."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.data.folds import ClassSizes, assign_folds
from foldsmith.errors import DataError
from foldsmith.new.survey.columns import Source, like_group, target_rank
from foldsmith.project.label_forms import LabelsInText, split_labels
from foldsmith.project.number_columns import columns_of_numbers, numbers
from foldsmith.project.settings import FoldMethod, FoldSettings
from foldsmith.project.tables import FOLD_COLUMN
from foldsmith.targets.label_metrics import F1_OF_LABELS, METRICS_OF_LABELS
from foldsmith.targets.metric import Metric
from foldsmith.utils.formatting import brief, counted
from foldsmith.utils.yaml_io import scalar_yaml

# Separators other than blanks, the most usual first.
_SEPARATORS = (";", "|", ",", "/")
# So many of the texts with several parts have parts that other texts have too.
_SHARED = 0.9


@dataclass(frozen=True)
class Labels:
    """The labels of a new project.

    Attributes:
        names: Their names.
        values: 0 or 1, float64, shape (n, n_labels).
        column: The column of text that they stand in; None for a column per label.
        separator: Text between them in that column.
        example: Text of a row with several labels.
    """

    names: tuple[str, ...]
    values: npt.NDArray[np.float64]
    column: str | None = None
    separator: str = ""
    example: str = ""

    kind: ClassVar[str] = LabelsInText.kind
    metrics: ClassVar[Mapping[str, Metric]] = METRICS_OF_LABELS
    default_metric: ClassVar[Metric] = F1_OF_LABELS
    about: ClassVar[str] = (
        "# The labels to predict, any number of them per image. For one class per image, begin "
        "anew\n# with 'foldsmith new ... --classes'."
    )

    @property
    def project_lines(self) -> str:
        """The lines of the project file on the target."""
        names = "\n".join(f"- {scalar_yaml(name)}" for name in self.names)
        if self.column is None:
            return f"target_columns:\n{names}"
        separator = f"label_separator: {json.dumps(self.separator)}\n"
        return f"target_column: {scalar_yaml(self.column)}\n{separator}label_names:\n{names}"

    @property
    def target(self) -> str:
        """Names of the target's columns, for people."""
        return self.column or ", ".join(self.names)

    @property
    def for_folds(self) -> npt.NDArray[np.float64]:
        """The values that folds balance: the labels."""
        return self.values

    def judged_by(self, metric: Metric) -> Metric:
        """Return a metric for the targets."""
        return metric

    def summary(self) -> Iterator[str]:
        """Yield how many images have each label, and how to take them for something else."""
        counts = self.values.sum(axis=0).astype(int)
        pairs = list(zip(self.names, counts, strict=True))[:10]
        listed = ", ".join(f"{brief(name)} {count:,}" for name, count in pairs)
        more = f", and {len(self.names) - 10} more" if len(self.names) > 10 else ""
        without = int((self.values.sum(axis=1) == 0).sum())
        images = counted(without, "image")
        yield f"labels   {len(self.names)} labels: {listed}{more}; {images} without any"
        sizes = ClassSizes(dict(zip(self.names, counts.tolist(), strict=True)), "labels")
        hint = sizes.imbalance(len(self.values))
        if hint is not None:
            yield f"note: {hint}"
        if self.column is not None:
            yield (
                f"         (several per image, as {brief(repr(self.example))}; to take each "
                "combination for a class: --classes)"
            )


def named_columns(source: Source, given: str | None) -> tuple[str, ...]:
    """Return the columns that ``--target a,b,c`` names; none if it names one column.

    Raises:
        DataError: The table lacks one of them.
    """
    if given is None or "," not in given or given in source.table.columns:
        return ()
    names = tuple(name.strip() for name in given.split(",") if name.strip())
    for name in names:
        source.has(name, "--target")
    return names


def binary_columns(source: Source, id_column: str, known: Sequence[str] | None) -> tuple[str, ...]:
    """Return the columns of 0 and 1 if a table has no others beside its ids; else none.

    None too if one is called as people call a target or a group.

    Args:
        source: The table of the labelled images.
        id_column: Its column of ids.
        known: Columns of the test table, which are no targets; None without one.
    """
    beside = {id_column, FOLD_COLUMN, *(known or ())}
    names = [name for name in source.table.columns if name not in beside]
    if any(target_rank(name) or like_group(name) for name in names):
        return ()
    binary = all(numbers(source.table[name]).isin((0, 1)).all() for name in names)
    return tuple(map(str, names)) if binary and len(names) > 1 else ()


def as_one_class(source: Source, columns: tuple[str, ...]) -> tuple[Source, str] | None:
    """Return a table with a column of classes in the place of columns of 0 and 1, and its name.

    Returns:
        None if a row has not exactly one 1.
    """
    read = columns_of_numbers(source.table, columns)
    if not np.isin(read, (0, 1)).all() or not (read.sum(axis=1) == 1).all():
        return None
    name = "class"
    while name in source.table.columns:
        name = f"new_{name}"
    texts = np.asarray(columns, dtype=object)[read.argmax(axis=1)]
    return Source(source.table.assign(**{name: texts}), source.file), name


def labels_in_columns(source: Source, columns: tuple[str, ...]) -> Labels:
    """Return the labels of columns of 0 and 1.

    Raises:
        DataError: A column has another value.
    """
    values = columns_of_numbers(source.table, columns)
    for k, name in enumerate(columns):
        wrong = ~np.isin(values[:, k], (0, 1))
        if wrong.any():
            first = source.table[name].iloc[int(wrong.argmax())]
            raise DataError(
                f"{source.file}: column {name}: {first!r} is neither 0 nor 1; several columns of "
                "--target are labels, a column of 0 and 1 each"
            )
    return Labels(columns, values)


def labels_in_text(source: Source, column: str) -> Labels | None:
    """Return the labels of a column whose texts share parts; None if it holds no such texts.

    The parts stand between one of the separators ; | , and /, or between blanks. They are labels if
    (nearly) all texts with several parts have parts that stand in other texts too; of blanks, that
    stand alone as well, since names of one class may have blanks.
    """
    texts = source.table[column].astype(str).str.strip()
    distinct = [text for text in texts.unique() if text]
    for separator in (*_SEPARATORS, " "):
        parts = {text: split_labels(text, separator) for text in distinct}
        several = [found for found in parts.values() if len(found) > 1]
        if not several:
            continue
        seen: dict[str, int] = {}
        for found in parts.values():
            for part in set(found):
                seen[part] = seen.get(part, 0) + 1
        alone = {found[0] for found in parts.values() if len(found) == 1}
        shared = [
            all(part in alone if separator == " " else seen[part] > 1 for part in found)
            for found in several
        ]
        twice = any(len(set(found)) < len(found) for found in several)
        numeric = all(re.fullmatch(r"[-+.\d]+", part) for part in seen)
        if not twice and not numeric and np.mean(shared) >= _SHARED and len(seen) > 1:
            names = tuple(sorted(seen))
            values = LabelsInText(names, column, separator).points_of(texts)
            example = next(text for text, found in parts.items() if len(found) > 1)
            return Labels(names, values, column, separator, example)
    return None


def choose_label_folds(labels: Labels, groups: pd.Series | None) -> tuple[FoldSettings, str]:
    """Choose how to split: stratified in five folds, or fewer if there are fewer rows or groups.

    Returns:
        The settings, and the reason if there are fewer than five folds; "" if not.

    Raises:
        DataError: The rows cannot be split at all.
    """
    method: FoldMethod = "StratifiedKFold" if groups is None else "StratifiedGroupKFold"
    reason = DataError("there are too few")
    for n_splits in (5, 4, 3, 2):
        settings = FoldSettings(method=method, n_splits=n_splits)
        try:
            assign_folds(settings, labels.for_folds, groups)
        except DataError as error:
            reason = error
        else:
            units = "labelled image" if groups is None else "group"
            n = len(labels.values) if groups is None else groups.nunique()
            return settings, "" if n_splits == 5 else f"there are {counted(n, units)}"
    raise DataError(f"the labelled images cannot be split: {reason}")
