"""Figures of a run's results, readable on a light and on a dark page.

Each function returns a ``matplotlib.figure.Figure`` of its own: no global state of pyplot.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.blending.comparison import CrossFittedScore
from foldsmith.targets.class_values import nearest
from foldsmith.utils.formatting import brief, number_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]

# Colour of ink that shows on white and on black.
_GREY = "#7d8590"

# Colours of matplotlib's cycle, and marks for more classes than it has.
_COLOURS = 10
_MARKS = "osvD^*P<X>"

# Targets of at most so many values are spread sideways.
_LEVELS = 12

# So many points are drawn at most: more take seconds, and cover each other.
POINTS = 20_000


def _figure(width: float, height: float, n: int = 1) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    class PlainFigure(Figure):
        """A figure whose texts are names: a ``$`` in them begins no formula."""

        def draw(self, renderer: Any) -> None:
            for text in self.findobj(Text):
                text.set_parse_math(False)
            super().draw(renderer)

    figure = PlainFigure(figsize=(width * n, height), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, n)).tolist()
    for axis in axes:
        axis.tick_params(colors=_GREY, labelsize=8)
        axis.xaxis.label.set_color(_GREY)
        axis.yaxis.label.set_color(_GREY)
        axis.title.set_color(_GREY)
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(_GREY)
    return figure, axes


def _legend(axis: "Axes", **where: Any) -> None:
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, frameon=False, labelcolor=_GREY, **where)


def curves(
    logs: Mapping[str, Sequence[Mapping[str, Any]]],
    keys: Sequence[str],
    dashed: Collection[str] = (),
) -> "Figure":
    """Draw logged values over the epochs: a panel per key, a line per log.

    Args:
        logs: Name of each line -> entries with ``epoch`` and values by key.
        keys: The keys.
        dashed: Names of the lines that are dashed.
    """
    figure, axes = _figure(3.6, 2.8, len(keys))
    for axis, key in zip(axes, keys, strict=True):
        for name, log in logs.items():
            points = [(entry["epoch"], entry[key]) for entry in log if key in entry]
            if points:
                mark = "o" if len(points) < 15 else None
                ends = tuple(zip(*points, strict=True))
                style = "--" if name in dashed else "-"
                axis.plot(*ends, label=name, marker=mark, markersize=3, lw=1.2, ls=style)
        axis.set_title(key, fontsize=9)
        axis.set_xlabel("epoch", fontsize=8)
        axis.locator_params(axis="x", integer=True)
    if len(logs) > 1:
        _legend(axes[0])
    return figure


def by_fold(
    scores: pd.DataFrame, value: float, metric: str, constant: float | None = None
) -> "Figure":
    """Draw the metric of each fold and of all rows.

    Args:
        scores: Columns fold and metric, a row per fold.
        value: Metric of all rows.
        metric: Its name.
        constant: Score of the same prediction for every image, if known.
    """
    figure, (axis,) = _figure(3.6, 2.8)
    axis.bar(scores["fold"].astype(str), scores["metric"], color="C0", width=0.6)
    axis.axhline(value, color="C1", lw=1.2, label=f"all rows, {value:.4f}")
    if constant is not None:
        axis.axhline(constant, color=_GREY, lw=1.2, ls="--", label=f"constant, {constant:.4f}")
    axis.set_title(f"{metric} by fold", fontsize=9)
    _legend(axis, loc="upper left", bbox_to_anchor=(1, 1))
    axis.set_xlabel("fold", fontsize=8)
    return figure


def folds_beside(scores: pd.DataFrame, metric: str) -> "Figure":
    """Draw the metric of each fold in two runs.

    Args:
        scores: Columns fold, A and B, a row per fold.
        metric: Its name.
    """
    figure, (axis,) = _figure(4.6, 2.8)
    places = np.arange(len(scores))
    # Points, not bars from zero, since the differences matter.
    axis.vlines(places, scores["A"], scores["B"], color=_GREY, lw=1)
    for name in ("A", "B"):
        axis.scatter(places, scores[name], s=32, zorder=3, label=name)
    axis.margins(x=0.1)
    axis.set_xticks(places, scores["fold"].astype(str))
    axis.set_title(f"{metric} by fold", fontsize=9)
    axis.set_xlabel("fold", fontsize=8)
    # Beside the points, which may be anywhere.
    axis.legend(
        fontsize=8, frameon=False, labelcolor=_GREY, loc="upper left", bbox_to_anchor=(1, 1)
    )
    return figure


def scores_beside(scores: Sequence[CrossFittedScore], metric: str) -> "Figure":
    """Draw the scores of A and B with their intervals, and the gain of B over A.

    Args:
        scores: Of A and of B; the gain of B is over A.
        metric: Name of the metric.
    """
    figure, (left, right) = _figure(3.6, 1.7, 2)
    for place, honest in enumerate(scores):
        _interval(left, -place, honest.score, honest.interval, f"C{place}")
    left.set_yticks([0, -1], ["A", "B"])
    left.set_ylim(-1.6, 0.6)
    left.set_title(f"{metric}, 95 % of resamples", fontsize=9)
    _interval(right, 0, scores[1].gain, scores[1].gain_interval, "C2")
    right.axvline(0, color=_GREY, lw=0.8, ls=":")
    right.set_yticks([0], ["B over A"])
    right.set_ylim(-1, 1)
    right.locator_params(axis="x", nbins=4)
    right.set_title("gain (right of 0: B is better)", fontsize=9)
    return figure


def _interval(
    axis: "Axes", place: float, value: float, ends: tuple[float, float], colour: str
) -> None:
    axis.plot(ends, [place, place], color=_GREY, lw=1.5)
    axis.scatter([value], [place], color=colour, s=32, zorder=3)


def prediction_against_prediction(
    points: Array, targets: Array, what: str, names: Sequence[str] = ()
) -> "Figure":
    """Draw the predictions of A against those of B, coloured by target.

    Args:
        points: Of A and B, shape (2, n).
        targets: Shape (n,).
        what: Description of the targets, for the title.
        names: Names of the classes, whose numbers the targets are then.
    """
    figure, (axis,) = _figure(4.6, 3.8)
    # Rims, for the darkest points on a dark page.
    _by_target(figure, axis, points, targets, names, s=9, edgecolors=_GREY, linewidths=0.4)
    ends = [points.min(), points.max()]
    axis.plot(ends, ends, color=_GREY, lw=0.8, ls=":")
    axis.set_title(f"{what}, coloured by target", fontsize=9)
    axis.set_xlabel("by A", fontsize=8)
    axis.set_ylabel("by B", fontsize=8)
    return figure


def _by_target(
    figure: "Figure",
    axis: "Axes",
    points: Array,
    targets: Array,
    names: Sequence[str],
    **style: Any,
) -> None:
    """Draw points, shape (2, n), coloured by target.

    Numbers have a colour scale. Classes without an order have a colour and a mark each, and a
    legend: on a scale some would look closer to each other than others.
    """
    if not names:
        drawn = axis.scatter(
            points[0], points[1], c=targets, cmap="viridis", rasterized=True, **style
        )
        bar = figure.colorbar(drawn, ax=axis)
        bar.ax.tick_params(colors=_GREY, labelsize=8)
        return
    for number, name in enumerate(names):
        of_class = targets == number
        if of_class.any():
            mark = _MARKS[number // _COLOURS % len(_MARKS)]
            colour = f"C{number % _COLOURS}"
            axis.scatter(
                points[0, of_class],
                points[1, of_class],
                color=colour,
                marker=mark,
                label=brief(name),
                rasterized=True,
                **style,
            )
    where = {"loc": "upper left", "bbox_to_anchor": (1, 1), "markerscale": 2}
    _legend(axis, ncols=1 + (len(names) - 1) // 16, **where)


def predicted_against_true(targets: Array, predictions: Array, values: Sequence[float]) -> "Figure":
    """Draw predictions over targets.

    Args:
        targets: Shape (n,).
        predictions: Out-of-fold predictions, shape (n,).
        values: Target value of each class.
    """
    figure, (axis,) = _figure(3.6, 3.2)
    _draw_scatter(axis, targets, predictions, values)
    return figure


def confusion(
    targets: Array, predictions: Array, values: Sequence[float], names: Sequence[str] = ()
) -> "Figure":
    """Draw how often which class is predicted as which.

    Args:
        targets: Shape (n,).
        predictions: Out-of-fold predictions, shape (n,).
        values: Target value of each class; predictions are rounded to the nearest.
        names: Names of the classes, if they have no order.
    """
    side = min(8.0, max(3.2, 0.4 * len(names) + 1.6)) if names else 3.2
    figure, (axis,) = _figure(max(side, 3.6), side)
    _draw_confusion(axis, targets, predictions, values, names)
    if names:
        axis.tick_params(axis="x", labelrotation=45)
    return figure


def sampled(n: int) -> npt.NDArray[np.int64]:
    """Return which of n images are drawn as points: all, or :data:`POINTS` evenly chosen."""
    return np.linspace(0, n - 1, min(n, POINTS)).astype(np.int64)


def predictions(targets: Array, predicted: Array, values: Sequence[float]) -> "Figure":
    """Draw :func:`predicted_against_true` and :func:`confusion` side by side."""
    figure, (left, right) = _figure(3.6, 3.2, 2)
    _draw_scatter(left, targets, predicted, values)
    _draw_confusion(right, targets, predicted, values)
    return figure


def _draw_scatter(axis: "Axes", targets: Array, predicted: Array, values: Sequence[float]) -> None:
    chosen = sampled(len(targets))
    places, title = targets[chosen], "predicted against true"
    levels = np.unique(targets)
    # Points of few values cover each other. Many values need no spread, which would show targets
    # that nothing has, such as ages below zero.
    if 1 < len(levels) <= _LEVELS:
        rng = np.random.default_rng(0)
        spread = rng.uniform(-0.2, 0.2, len(targets)) * np.diff(levels).min()
        places = places + spread[chosen]
        title += " (spread sideways)"
        axis.set_xticks(levels, [number_text(value) for value in levels])
    axis.scatter(places, predicted[chosen], s=4, alpha=0.4, linewidths=0, rasterized=True)
    ends = [min(values), max(values)]
    axis.plot(ends, ends, color=_GREY, lw=0.8, ls=":")
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("true", fontsize=8)
    axis.set_ylabel("predicted", fontsize=8)


def _draw_confusion(
    axis: "Axes",
    targets: Array,
    predicted: Array,
    values: Sequence[float],
    names: Sequence[str] = (),
) -> None:
    points = np.asarray(values, np.float64)
    rows, columns = (nearest(each, points) for each in (targets, predicted))
    counts = np.zeros((len(points), len(points)))
    np.add.at(counts, (rows, columns), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    if len(points) <= 12:
        for row, column in np.ndindex(*counts.shape):
            ink = "white" if shares[row, column] > 0.5 else "black"
            text = f"{counts[row, column]:.0f}"
            axis.text(column, row, text, ha="center", va="center", color=ink, fontsize=8)
    labels = list(names) or [number_text(value) for value in values]
    every = max(1, len(labels) // 12)
    axis.set_xticks(range(0, len(labels), every), labels[::every])
    axis.set_yticks(range(0, len(labels), every), labels[::every])
    axis.set_title("confusion" if names else "confusion at rounded values", fontsize=9)
    axis.set_xlabel("predicted", fontsize=8)
    axis.set_ylabel("true", fontsize=8)


def matrix(names: Sequence[str], values: Array, title: str) -> "Figure":
    """Draw a square matrix with its numbers; values are correlations, shape (n, n)."""
    side = max(3.0, 0.55 * len(names) + 1.6)
    figure, (axis,) = _figure(side, side)
    axis.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
    for row, column in np.ndindex(*values.shape):
        ink = "white" if abs(values[row, column]) > 0.6 else "black"
        text = f"{values[row, column]:.2f}"
        axis.text(column, row, text, ha="center", va="center", color=ink, fontsize=7)
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set_title(title, fontsize=9)
    return figure


def with_intervals(scores: pd.DataFrame, metric: str) -> "Figure":
    """Draw cross-fitted scores with their intervals, and the in-sample ones beside them.

    Args:
        scores: Columns name, in_sample, cross_fitted, low, high, submit; a row per blend.
        metric: Name of the metric.
    """
    figure, (axis,) = _figure(5.4, 0.32 * len(scores) + 1.2)
    places = np.arange(len(scores))[::-1]
    middle = scores["cross_fitted"].to_numpy(np.float64)
    gaps = np.stack([middle - scores["low"], scores["high"] - middle]).astype(np.float64)
    # With few groups an interval may miss its own score.
    gaps = np.maximum(gaps, 0)
    colours = ["C1" if chosen else "C0" for chosen in scores["submit"]]
    axis.errorbar(middle, places, xerr=gaps, fmt="none", ecolor=_GREY, elinewidth=1, capsize=2)
    axis.scatter(middle, places, c=colours, s=28, zorder=3, label="cross-fitted")
    axis.scatter(scores["in_sample"], places, marker="|", c="C3", s=60, zorder=4, label="in sample")
    axis.set_yticks(places, scores["name"])
    axis.set_xlabel(metric, fontsize=8)
    axis.set_title("blends, 95 % of resamples; the one to submit in orange", fontsize=9)
    _legend(axis)
    return figure


def map_of(
    features: npt.NDArray[np.float32], targets: Array, names: Sequence[str] = ()
) -> "Figure":
    """Draw images on the two main directions of their features, coloured by target.

    Args:
        features: Shape (n, n_features).
        targets: Shape (n,).
        names: Names of the classes, whose numbers the targets are then.
    """
    centred = features.astype(np.float64) - features.mean(axis=0)
    # Principal components (Pearson 1901), of features on one scale.
    centred /= np.maximum(centred.std(axis=0), 1e-9)
    left, strengths, _ = np.linalg.svd(centred, full_matrices=False)
    figure, (axis,) = _figure(4.6, 3.8)
    points = left[:, :2] * strengths[:2]
    _by_target(figure, axis, points.T, targets, names, s=6, linewidths=0)
    share = strengths**2 / (strengths**2).sum()
    axis.set_xlabel(f"first component, {share[0]:.0%} of the variance", fontsize=8)
    axis.set_ylabel(f"second, {share[1]:.0%}", fontsize=8)
    axis.set_title("frozen features, coloured by target", fontsize=9)
    return figure


def sizes(info: pd.DataFrame) -> "Figure":
    """Draw widths and heights of images; ``info`` has height and width in px."""
    figure, (axis,) = _figure(3.6, 2.8)
    info = info.iloc[sampled(len(info))]
    axis.scatter(info["width"], info["height"], s=5, alpha=0.4, linewidths=0, rasterized=True)
    axis.set_xlabel("width, px", fontsize=8)
    axis.set_ylabel("height, px", fontsize=8)
    axis.set_title("sizes of the images", fontsize=9)
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    return figure
