"""The form of a target of several numbers per image."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.project.number_columns import GAPS, columns_of_numbers, numbers
from foldsmith.project.target_forms import Lines, SeveralOutputs
from foldsmith.targets.column_metrics import for_columns
from foldsmith.targets.formulas import Formula
from foldsmith.targets.judged_columns import JudgedColumns, with_derived
from foldsmith.targets.metric import OF_NUMBERS, VALUES
from foldsmith.targets.metrics import METRICS_OF_NUMBERS, Metric
from foldsmith.targets.row_means import column_means
from foldsmith.utils.formatting import brief, counted, number_text

Array = npt.NDArray[np.float64]

# Folds balance the place of an image along one line; digits beyond these are noise.
_DECIMALS = 6

# A computed column of the train table may be rounded, by this share of its largest value.
_ROUNDED = 1e-3


@dataclass(frozen=True)
class SeveralNumbers(SeveralOutputs):
    """Several numbers per image, some of which may be missing: NaN in targets.

    Predictions are arrays of the targets, shape (n, n_targets). Tables have further columns that
    are computed from them.

    Attributes:
        names: Columns of the targets.
        limits: Lowest and highest possible value of each target.
        given_weights: Weight of a judged column in the metric: 1 for targets without one.
            Computed columns without one are not judged.
        formulas: Formula of each computed column.
    """

    names: tuple[str, ...]
    limits: tuple[tuple[float, float], ...]
    given_weights: tuple[tuple[str, float], ...] = ()
    formulas: tuple[tuple[str, Formula], ...] = ()

    kind = "several numbers"
    needs = OF_NUMBERS
    for_unreadable = "the mean of each target"
    project_keys = ("target_columns", "label_separator", "label_names", "target_kind")
    between_runs = "; "
    compared_as = "errors in deviations of the targets"

    @property
    def columns(self) -> tuple[str, ...]:
        """A column per target."""
        return self.names

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the targets and of the columns that are computed from them."""
        return (*self.names, *(name for name, _ in self.formulas))

    @property
    def handed_in(self) -> tuple[str, ...]:
        """The targets and the columns that are computed from them."""
        return self.labels

    @property
    def target_range(self) -> tuple[float, float]:
        """Lowest and highest possible value of any target."""
        return min(low for low, _ in self.limits), max(high for _, high in self.limits)

    @property
    def bounds(self) -> tuple[Array, Array]:
        """Lowest and highest possible value of each target, shape (n_targets,) each."""
        low, high = np.asarray(self.limits, dtype=np.float64).T
        return low, high

    @cached_property
    def judged(self) -> JudgedColumns:
        """The columns that metrics judge, with their weights."""
        given = dict(self.given_weights)
        derived = [(name, formula) for name, formula in self.formulas if name in given]
        return JudgedColumns(
            self.names,
            tuple(name for name, _ in derived),
            tuple(formula for _, formula in derived),
            tuple(float(given.get(name, 1)) for name in (*self.names, *(n for n, _ in derived))),
        )

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The package's metrics that can judge it, by name."""
        return METRICS_OF_NUMBERS

    @property
    def loss_weights(self) -> tuple[float, ...]:
        """Weight of each target in a loss: that in the metric."""
        return self.judged.weights[: len(self.names)]

    @property
    def output_weights(self) -> Array:
        """Weight of each target, shape (n_targets,)."""
        return np.asarray(self.loss_weights, dtype=np.float64)

    def judge(self, metric: Metric) -> Metric:
        """Return a metric of values or columns for the columns of this target."""
        return for_columns(metric, self.judged) if metric.needs in (VALUES, *OF_NUMBERS) else metric

    def read(self, table: pd.DataFrame) -> Array:
        """Return the columns, shape (n, n_targets); NaN for gaps, and for other texts."""
        values = columns_of_numbers(table, self.names)
        return np.where(np.isfinite(values), values, np.nan)

    def points_of(self, column: pd.Series) -> Array:
        """Return the targets of rows of numbers, shape (n, n_targets)."""
        return np.stack(column.tolist()).astype(np.float64)[:, : len(self.names)]

    def written(self, points: Array) -> npt.NDArray[Any]:
        """Return the targets and the computed columns, shape (n, n_columns)."""
        return with_derived(points, self.names, [formula for _, formula in self.formulas])

    def table_of(self, name: str, points: Array) -> dict[str, npt.NDArray[Any]]:
        """Return a column per target and computed column: ``prediction_a`` for example."""
        return dict(zip(self.names_of(name), self.written(points).T, strict=True))

    def names_of(self, name: str) -> tuple[str, ...]:
        """Return the columns of :meth:`table_of`."""
        return tuple(f"{name}_{column}" for column in self.labels)

    def shown(self, points: Array) -> list[str]:
        """Return a text for each image, with a dash for a missing target."""
        return [
            ", ".join(
                f"{name} {'-' if np.isnan(value) else f'{value:.4g}'}"
                for name, value in zip(self.names, row, strict=True)
            )
            for row in points
        ]

    def spreads_of(self, spread: Array) -> dict[str, Array]:
        """Return a column per target: ``spread_a`` for example."""
        return {f"spread_{column}": spread[:, k] for k, column in enumerate(self.names)}

    def no_prediction(self, n: int) -> dict[str, npt.NDArray[Any]]:
        """Return the columns of predictions and spreads, all NaN."""
        missing = np.full((n, len(self.names)), np.nan)
        return self.table_of("prediction", missing) | self.spreads_of(missing)

    def predicted(self, table: pd.DataFrame) -> npt.NDArray[Any]:
        """Return the predictions of a table and the columns that are computed from them."""
        return self.written(self.of_table(table, "prediction"))

    def range_of(self, column: str) -> tuple[float, float]:
        """Return the range of the target of a column; of a computed one its widest target's."""
        name = column.partition("_")[2]
        of_target = dict(zip(self.names, self.limits, strict=True))
        if name in of_target:
            return of_target[name]
        taken = dict(self.formulas)[name].names
        return max((of_target[each] for each in taken), key=lambda ends: ends[1] - ends[0])

    def of_table(self, table: pd.DataFrame, name: str) -> Array:
        """Return the targets of such columns, shape (n, n_targets)."""
        columns = [numbers(table[f"{name}_{column}"]).to_numpy() for column in self.names]
        return np.stack(columns, axis=1)

    def problems(
        self, table: pd.DataFrame, ids: pd.Series, lines: Lines, metric: Metric
    ) -> Iterator[str]:
        """Yield rows without a target, texts that are no numbers, and values out of range."""
        targets = self.read(table)
        without = pd.Series(np.isnan(targets).all(axis=1), index=table.index)
        for k, name in enumerate(self.names):
            low, high = self.limits[k]
            values = pd.Series(targets[:, k], index=table.index)
            texts = table[name].astype(str).str.strip()
            strange = values.isna() & ~texts.str.lower().isin(GAPS)
            without &= ~strange
            for wrong, what in (
                (strange, "no number (a missing one is an empty cell)"),
                (
                    (values < low) | (values > high),
                    f"outside target_range {number_text(low)}..{number_text(high)}",
                ),
            ):
                if wrong.any():
                    example = brief(repr(str(table[name][wrong].iloc[0])))
                    yield (
                        f"column {name}: {counted(int(wrong.sum()), 'target is', 'targets are')} "
                        f"{what}, such as {example}, the first "
                        f"at id {ids[wrong].iloc[0]} ({lines(wrong)})"
                    )
            if values.isna().all():
                yield f"column {name}: no row has a target; leave it out of target_columns"
        if without.any():
            n = counted(int(without.sum()), "row has", "rows have")
            yield (
                f"columns {', '.join(map(brief, self.names))}: {n} none of the targets, the first "
                f"is id {ids[without].iloc[0]} ({lines(without)}); leave out such rows"
            )
        yield from self._unjudged(targets, metric, lines, table.index)

    def _unjudged(
        self, targets: Array, metric: Metric, lines: Lines, index: pd.Index
    ) -> Iterator[str]:
        if metric.unjudged is None or metric.judged is None:
            return
        for name, values in zip(metric.judged.names, metric.judged.of(targets).T, strict=True):
            cannot = pd.Series(metric.unjudged.among(values) & ~np.isnan(values), index=index)
            if cannot.any():
                yield (
                    f"column {name}: {counted(int(cannot.sum()), 'target is', 'targets are')} "
                    f"{metric.unjudged.text} ({lines(cannot)}), which {metric.name} cannot judge; "
                    "mend or leave out these rows, or set another metric in project.yml, such as "
                    "MAE"
                )

    def wrong(self, table: pd.DataFrame) -> pd.Series:
        """Return which rows have no target, a text that is none, or one out of range."""
        targets = self.read(table)
        seen = ~np.isnan(targets)
        low, high = self.bounds
        bad = (seen & ~((targets >= low) & (targets <= high))).any(axis=1) | ~seen.any(axis=1)
        for k, name in enumerate(self.names):
            texts = table[name].astype(str).str.strip().str.lower()
            bad |= ~seen[:, k] & ~texts.isin(GAPS).to_numpy()
        return pd.Series(bad, index=table.index)

    def numbers_of(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the targets, NaN where one is missing."""
        return pd.DataFrame(self.read(table), columns=list(self.names), index=table.index)

    def notes(self, table: pd.DataFrame) -> Iterator[str]:
        """Yield computed columns that the table has too, where it has other values."""
        found = self.written(self.read(table))
        for k, (name, formula) in enumerate(self.formulas, len(self.names)):
            if name not in table.columns:
                continue
            own = numbers(table[name]).to_numpy()
            both = np.isfinite(own) & np.isfinite(found[:, k])
            off = np.abs(own - found[:, k])[both]
            if not len(off):
                continue
            largest = max(float(np.abs(own[both]).max()), 1e-12)
            if off.max() > _ROUNDED * largest:
                n = counted(int((off > _ROUNDED * largest).sum()), "row")
                yield (
                    f"column {name}: differs from {formula.text} in {n}, by up to "
                    f"{off.max():.4g}; predictions and scores go by the formula"
                )

    def for_folds(self, targets: Array) -> Array:
        """Return the place of each image along the direction in which targets vary most.

        Of standardised targets, where a missing one counts as the mean. Shape (n,).
        """
        if targets.shape[1] == 1:
            return targets[:, 0]
        means = np.nanmean(targets, axis=0)
        deviations = np.nanstd(targets, axis=0)
        scaled = (targets - means) / np.where(deviations > 0, deviations, 1)
        scaled = np.where(np.isnan(scaled), 0.0, scaled)
        direction = np.linalg.eigh(scaled.T @ scaled)[1][:, -1]
        # Either sign is a direction: take one for any order of the columns.
        by_name = sorted(zip(self.names, direction, strict=True))
        direction = direction * next(np.sign(d) for _, d in by_name if abs(d) > 1e-3)
        place: Array = (scaled @ direction).round(_DECIMALS) + 0.0
        return place

    def points(self, probabilities: Array) -> Array:
        """Return the targets of rows of all columns."""
        return probabilities[:, : len(self.names)]

    @property
    def extremes(self) -> Array:
        """The lowest and the highest value of each target, shape (2, n_targets)."""
        return np.stack(self.bounds)

    def submitted(self, probabilities: Array, metric: Metric) -> npt.NDArray[Any]:
        """Return the numbers."""
        return probabilities

    def spread(self, of_points: Array, by_model: Array, probabilities: Array) -> Array:
        """Return the standard deviation of each target."""
        return of_points

    def compared(self, points: Array, probabilities: Array | None, targets: Array) -> Array:
        """Return the mean absolute error of each image in deviations of the targets, and 0."""
        errors = self.mean_errors(points, targets)
        return np.stack([errors, np.zeros(len(errors))])

    def mean_errors(self, points: Array, targets: Array) -> Array:
        """Return the mean of the errors in deviations of the targets, shape (n,)."""
        return column_means(np.abs(_in_deviations(points, targets)).T)

    def errors(self, points: Array, targets: Array) -> Array:
        """Return the errors of all targets that are not missing, in deviations of the targets."""
        scaled = _in_deviations(points, targets)
        return scaled[~np.isnan(scaled)]

    def facts(self) -> dict[str, Any]:
        """Return columns, ranges, weights and formulas."""
        return {
            "target_columns": list(self.names),
            "target_range": [list(pair) for pair in self.limits],
            "target_weights": dict(self.given_weights),
            "derived_columns": {name: formula.text for name, formula in self.formulas},
        }


def _in_deviations(points: Array, targets: Array) -> Array:
    """Return the error of each target in standard deviations of its column, NaN for missing."""
    deviations = np.nanstd(targets, axis=0)
    scaled: Array = (points - targets) / np.where(deviations > 0, deviations, 1)
    return scaled
