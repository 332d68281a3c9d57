"""The form of a target of several classes per image, one in each of several columns."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.project.number_columns import is_gap
from foldsmith.project.target_forms import Lines, OneTarget, SeveralOutputs
from foldsmith.targets.class_blocks import ClassBlocks
from foldsmith.targets.class_column_metrics import for_blocks
from foldsmith.targets.metric import CLASSES, OF_CLASS_COLUMNS, PROBABILITIES
from foldsmith.targets.metrics import METRICS_OF_CLASS_COLUMNS, Metric
from foldsmith.utils.formatting import brief, counted

Array = npt.NDArray[np.float64]

# Between a column and one of its classes.
_OF = "="


@dataclass(frozen=True)
class ClassTargets(SeveralOutputs):
    """Several classes per image, one in each column, some of which may be missing.

    Targets are class numbers, shape (n, n_columns), NaN where one is missing. Predictions are the
    probabilities of all classes, shape (n, n_outputs): a block for each column, which sums to 1.

    Attributes:
        classes_of: Texts of the classes of each column, by its name.
        given_weights: Weight of a column in the metric and in losses: 1 for columns without one.
    """

    classes_of: tuple[tuple[str, tuple[str, ...]], ...]
    given_weights: tuple[tuple[str, float], ...] = ()

    kind = "several class targets"
    needs = OF_CLASS_COLUMNS
    texts = True
    project_keys = ("target_columns", "target_kind", "target_classes")
    of_probabilities = True
    between_runs = "; "
    for_unreadable = "the frequencies of the classes"
    compared_as = "mean probability of the true classes"

    @cached_property
    def blocks(self) -> ClassBlocks:
        """The columns and the places of their probabilities."""
        weights = dict(self.given_weights)
        return ClassBlocks(
            self.columns,
            self.block_sizes,
            tuple(float(weights.get(name, 1)) for name in self.columns),
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """A column per target."""
        return tuple(name for name, _ in self.classes_of)

    @property
    def labels(self) -> tuple[str, ...]:
        """Column and text of each class, as in ``colour=red``."""
        return tuple(f"{name}{_OF}{text}" for name, classes in self.classes_of for text in classes)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self.columns

    @property
    def sum_to_1(self) -> tuple[slice, ...]:
        """The block of each column."""
        return self.blocks.slices

    @property
    def output_weights(self) -> Array:
        """Weight of each probability, which is the weight of its column, shape (n_outputs,)."""
        return np.repeat(np.asarray(self.blocks.weights), self.blocks.sizes)

    @property
    def target_range(self) -> tuple[float, float]:
        """0 and 1, those of the probabilities."""
        return 0.0, 1.0

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The package's metrics that can judge it, by name."""
        return METRICS_OF_CLASS_COLUMNS

    @property
    def loss_weights(self) -> tuple[float, ...]:
        """Weight of each column in a loss: that in the metric."""
        return self.blocks.weights

    @property
    def class_texts(self) -> tuple[tuple[str, ...], ...]:
        """Texts of the classes of each column."""
        return tuple(classes for _, classes in self.classes_of)

    def judge(self, metric: Metric) -> Metric:
        """Return a metric of classes or of all columns for the columns of this target."""
        suits = metric.needs in (CLASSES, PROBABILITIES, *OF_CLASS_COLUMNS)
        return for_blocks(metric, self.blocks) if suits and not metric.uses_order else metric

    def read(self, table: pd.DataFrame) -> Array:
        """Return the class numbers, shape (n, n_columns); NaN for gaps and for other texts."""
        return _numbers(table[list(self.columns)].to_numpy(dtype=object), self.classes_of)

    def points_of(self, column: pd.Series) -> Array:
        """Return 0 and 1 for rows of the texts of all columns, shape (n, n_outputs)."""
        texts = np.stack(column.tolist()) if len(column) else np.empty((0, len(self.columns)))
        return self.encoded(_numbers(texts, self.classes_of))

    def written(self, points: Array) -> npt.NDArray[Any]:
        """Return the text of the most probable class of each column, shape (n, n_columns).

        Args:
            points: Probabilities, shape (n, n_outputs); or targets, class numbers of shape (n,
                n_columns), whose texts are returned then, empty where one is missing. Every column
                has at least two classes, so that the shapes differ.
        """
        numbers = points
        if points.shape[1] != len(self.columns):
            numbers = self.blocks.decided(points).astype(np.float64)
        # NaN takes the last text.
        texts = [np.array([*classes, ""], dtype=object) for classes in self.class_texts]
        columns = [
            of[np.where(np.isnan(column), len(of) - 1, column).astype(np.int64)]
            for of, column in zip(texts, numbers.T, strict=True)
        ]
        return np.stack(columns, axis=1)

    def names_of(self, name: str) -> tuple[str, ...]:
        """Return the columns of :meth:`table_of`."""
        return tuple(f"{name}_{column}" for column in self.columns)

    def table_of(self, name: str, points: Array) -> dict[str, npt.NDArray[Any]]:
        """Return a column per target with the texts of its classes: ``prediction_colour``."""
        return dict(zip(self.names_of(name), self.written(points).T, strict=True))

    def of_table(self, table: pd.DataFrame, name: str) -> Array:
        """Return 0 and 1 for the classes in such columns, shape (n, n_outputs)."""
        texts = table[list(self.names_of(name))].to_numpy(dtype=object)
        return self.encoded(_numbers(texts, self.classes_of))

    def predicted(self, table: pd.DataFrame) -> npt.NDArray[Any]:
        """Return the predicted texts of a table, shape (n, n_columns)."""
        return table[list(self.names_of("prediction"))].to_numpy(dtype=object)

    def shown(self, points: Array) -> list[str]:
        """Return targets or predictions as a text for each image, with a dash for a missing one."""
        named = (zip(self.columns, row, strict=True) for row in self.written(points))
        return [", ".join(f"{name} {text or '-'}" for name, text in row) for row in named]

    def spread(self, of_points: Array, by_model: Array, probabilities: Array) -> Array:
        """Return the standard deviation of each predicted class's probability, (n, n_columns)."""
        columns = []
        for part in self.sum_to_1:
            chosen = probabilities[:, part].argmax(axis=1)
            own = by_model[:, :, part]
            columns.append(own[:, np.arange(len(chosen)), chosen].std(axis=0))
        return np.stack(columns, axis=1)

    def spreads_of(self, spread: Array) -> dict[str, Array]:
        """Return a column per target: ``spread_colour`` for example."""
        return {f"spread_{name}": spread[:, k] for k, name in enumerate(self.columns)}

    def no_prediction(self, n: int) -> dict[str, npt.NDArray[Any]]:
        """Return the columns of predictions and spreads, all NaN."""
        names = (*self.names_of("prediction"), *(f"spread_{name}" for name in self.columns))
        return dict.fromkeys(names, np.full(n, np.nan))

    def problems(
        self, table: pd.DataFrame, ids: pd.Series, lines: Lines, metric: Metric
    ) -> Iterator[str]:
        """Yield unknown classes, columns and rows without any target."""
        targets = self.read(table)
        gaps = self._gaps(table, targets)
        for k, name in enumerate(self.columns):
            wrong = pd.Series(np.isnan(targets[:, k]) & ~gaps[:, k], index=table.index)
            if wrong.any():
                example = brief(repr(str(table[name][wrong].iloc[0])))
                yield (
                    f"column {name}: {counted(int(wrong.sum()), 'target is', 'targets are')} none "
                    f"of its target_classes, such as {example} (a missing one is an empty cell), "
                    f"the first at id {ids[wrong].iloc[0]} ({lines(wrong)})"
                )
            elif np.isnan(targets[:, k]).all():
                yield f"column {name}: no row has a target; leave it out of target_columns"
        without = pd.Series(gaps.all(axis=1), index=table.index)
        if without.any():
            n = counted(int(without.sum()), "row has", "rows have")
            yield (
                f"columns {', '.join(map(brief, self.columns))}: {n} none of the targets, the "
                f"first is id {ids[without].iloc[0]} ({lines(without)}); leave out such rows"
            )

    def wrong(self, table: pd.DataFrame) -> pd.Series:
        """Return which rows have no target, or a text that is none of the classes."""
        targets = self.read(table)
        missing, gaps = np.isnan(targets), self._gaps(table, targets)
        return pd.Series((missing & ~gaps).any(axis=1) | gaps.all(axis=1), index=table.index)

    def _gaps(self, table: pd.DataFrame, targets: Array) -> npt.NDArray[np.bool_]:
        """Return which targets are missing, (n, n_columns); a class may be called ``none``."""
        gaps = np.stack([is_gap(table[name]).to_numpy() for name in self.columns], axis=1)
        return gaps & np.isnan(targets)

    def encoded(self, targets: Array) -> Array:
        """Return 0 and 1 for each class, NaN for those of a missing target: (n, n_outputs)."""
        return self.blocks.encoded(targets)

    def points(self, probabilities: Array) -> Array:
        """Return the probabilities."""
        return probabilities

    def classes(self, targets: Array) -> npt.NDArray[np.bool_]:
        """Return which classes each image has, shape (n, n_outputs); none of a missing target."""
        return self.encoded(targets) > 0

    def for_folds(self, targets: Array) -> Array:
        """Return 0 and 1 for each class, whose numbers the folds balance."""
        return self.classes(targets).astype(np.float64)

    def indicators(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return a column of 0 and 1 per class, as ``colour=red``."""
        values = self.for_folds(self.read(table)).astype(np.int64)
        return pd.DataFrame(values, columns=list(self.labels), index=table.index)

    @property
    def extremes(self) -> Array:
        """No class and all classes, shape (2, n_outputs)."""
        return np.stack([np.zeros(self.blocks.n_outputs), np.ones(self.blocks.n_outputs)])

    def submitted(self, probabilities: Array, metric: Metric) -> npt.NDArray[Any]:
        """Return the texts of the most probable classes."""
        return self.written(probabilities)

    def one_by_one(self, targets: Array) -> tuple[OneTarget, ...]:
        """Return each column."""
        return tuple(
            OneTarget(column, tuple(map(float, range(size))), unordered=True)
            for column, size in zip(targets.T, self.blocks.sizes, strict=True)
        )

    def compared(self, points: Array, probabilities: Array | None, targets: Array) -> Array:
        """Return the mean probability of each image's true classes, and ones."""
        given = 1 - self.mean_errors(points, targets)
        return np.stack([given, np.ones(len(given))])

    def mean_errors(self, points: Array, targets: Array) -> Array:
        """Return the mean over the columns of 1 minus the true class's probability, (n,)."""
        errors: Array = np.nanmean(self.missed(points, targets), axis=1)
        return errors

    def missed(self, points: Array, targets: Array) -> Array:
        """Return 1 minus the probability of each true class, NaN without one: (n, n_columns)."""
        wanted = self.encoded(targets)
        given = [(points[:, p] * wanted[:, p]).sum(axis=1) for p in self.sum_to_1]
        return 1 - np.stack(given, axis=1)

    def errors(self, points: Array, targets: Array) -> Array:
        """Return 1 minus the probabilities of all true classes in one line."""
        missed = self.missed(points, targets)
        return missed[~np.isnan(missed)]

    def facts(self) -> dict[str, Any]:
        """Return columns, classes and weights."""
        return {
            "target_columns": list(self.columns),
            "target_classes": {name: list(classes) for name, classes in self.classes_of},
            "target_weights": dict(self.given_weights),
        }


def _numbers(texts: npt.NDArray[Any], classes_of: tuple[tuple[str, tuple[str, ...]], ...]) -> Array:
    """Return class numbers of texts, NaN for others: shape (n, n_columns) of both."""
    found = np.full(texts.shape, np.nan)
    for k, (_, classes) in enumerate(classes_of):
        known = {name: number for number, name in enumerate(classes)}
        column = pd.Series(texts[:, k], dtype=object).astype(str).str.strip()
        found[:, k] = column.map(known).astype(np.float64)
    return found
