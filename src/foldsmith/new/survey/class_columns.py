"""Several class targets per image in the columns of a table."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.errors import DataError
from foldsmith.new.survey.columns import Source
from foldsmith.new.survey.labels import Labels
from foldsmith.new.survey.targets import natural_order
from foldsmith.project.class_forms import ClassTargets
from foldsmith.project.number_columns import is_gap, numbers
from foldsmith.targets.metric import ACCURACY, Metric
from foldsmith.targets.metrics import METRICS_OF_CLASS_COLUMNS
from foldsmith.utils.formatting import brief
from foldsmith.utils.yaml_io import scalar_yaml

# Targets that a line names.
_LISTED = 10


@dataclass(frozen=True)
class ClassTargetColumns(Labels):
    """The targets of a new project that predicts several classes; values have NaN for gaps.

    Attributes:
        classes_of: Texts of the classes of each column.
    """

    classes_of: tuple[tuple[str, ...], ...] = ()

    kind = ClassTargets.kind
    metrics = METRICS_OF_CLASS_COLUMNS
    default_metric = ACCURACY
    about = (
        "# The columns to predict, a class each, and the texts of their classes, which have no "
        "order.\n# target_weights may follow."
    )

    @property
    def form(self) -> ClassTargets:
        """The form of the target."""
        return ClassTargets(tuple(zip(self.names, self.classes_of, strict=True)))

    @property
    def project_lines(self) -> str:
        """The lines of the project file on the targets."""
        names = "\n".join(f"- {scalar_yaml(name)}" for name in self.names)
        classes = "\n".join(
            f"  {scalar_yaml(name)}:\n" + "\n".join(f"  - {scalar_yaml(text)}" for text in texts)
            for name, texts in zip(self.names, self.classes_of, strict=True)
        )
        return f"target_columns:\n{names}\ntarget_kind: classes\ntarget_classes:\n{classes}"

    @property
    def for_folds(self) -> npt.NDArray[np.float64]:
        """The values that folds balance: 0 and 1 for each class."""
        return self.form.for_folds(self.values)

    def judged_by(self, metric: Metric) -> Metric:
        """Return a metric for these columns.

        Raises:
            ConfigError: Its options do not fit the number of classes of a column.
        """
        return self.form.judge(metric).with_options({})

    def summary(self) -> Iterator[str]:
        """Yield the number of classes of each target, and how many images have it."""
        n_images = len(self.values)
        counts = (~np.isnan(self.values)).sum(axis=0)
        found = zip(self.names, self.classes_of, counts, strict=True)
        listed = [
            f"{brief(name)} {len(texts):,} ({_some(texts)}"
            + (f"; in {n:,} of {n_images:,} images)" if n < n_images else ")")
            for name, texts, n in found
        ]
        more = f", and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
        yield (
            f"classes  of {len(listed)} targets per image: {', '.join(listed[:_LISTED])}{more}; no "
            "order is assumed"
        )
        yield (
            "         (texts are classes, numbers only with --classes; the settings in project.yml "
            "are target_kind and target_classes)"
        )


def _some(texts: tuple[str, ...]) -> str:
    return ", ".join(map(brief, texts[:3])) + (", ..." if len(texts) > 3 else "")


def classes_in_columns(
    source: Source, columns: tuple[str, ...], as_classes: bool
) -> ClassTargetColumns | None:
    """Return the class targets of columns; None if a column holds numbers.

    Args:
        source: The table of the labelled images.
        columns: The columns.
        as_classes: Whether numbers are classes too.

    Raises:
        DataError: A column has fewer than two classes, or nearly as many as rows; or a row has no
            target.
    """
    texts = source.table[list(columns)].astype(str).apply(lambda column: column.str.strip())
    # A class may be called none.
    gaps = texts.apply(lambda column: is_gap(column) & (column.str.lower() != "none"))
    if not as_classes:
        has_number = [numbers(texts[name][~gaps[name]]).notna().any() for name in columns]
        if any(has_number):
            return None
    if gaps.all(axis=1).any():
        row = int(gaps.all(axis=1).to_numpy().argmax())
        raise DataError(
            f"{source.file}: row {row + 1} has none of the targets {', '.join(columns)}; leave out "
            "such rows, with --skip-missing for example"
        )
    classes_of = tuple(_classes(source, name, texts[name][~gaps[name]]) for name in columns)
    values = np.stack(
        [
            texts[name].map({text: k for k, text in enumerate(texts_of)}).to_numpy(np.float64)
            for name, texts_of in zip(columns, classes_of, strict=True)
        ],
        axis=1,
    )
    return ClassTargetColumns(columns, values, classes_of=classes_of)


def _classes(source: Source, name: str, known: pd.Series) -> tuple[str, ...]:
    """Return the classes of a column in their order."""
    distinct = known.unique()
    if len(distinct) < 2:
        raise DataError(
            f"{source.file}: column {name}: has fewer than two classes; leave it out of --target"
        )
    if len(distinct) > max(2, len(known) // 2):
        raise DataError(
            f"{source.file}: column {name}: {len(distinct):,} texts in {len(known):,} rows are no "
            "classes; leave it out of --target"
        )
    values = numbers(pd.Series(distinct))
    if values.notna().all():
        of_text = dict(zip(distinct, values, strict=True))
        return tuple(sorted(distinct, key=lambda text: (of_text[text], text)))
    return tuple(sorted(distinct, key=natural_order))
