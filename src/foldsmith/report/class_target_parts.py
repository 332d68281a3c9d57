"""Parts of a report about several class targets per image: a row per target, confusions, images."""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.project import ProjectFolder
from foldsmith.project.tables import groups_of, image_paths, metric_weights_of
from foldsmith.report import figures
from foldsmith.report.by_column import JudgedColumn
from foldsmith.report.parts import Gallery, Part, picture, table, thumbnail
from foldsmith.targets.class_column_metrics import column_metrics
from foldsmith.targets.metric import Metric
from foldsmith.targets.metrics import METRICS
from foldsmith.targets.row_means import column_means

Array = npt.NDArray[np.float64]

# Images of a gallery.
_SHOWN = 12
# With more targets intervals and figures are left out; with more classes the confusion.
_MOST, _MOST_CLASSES = 20, 40
# Scores in addition to the project's metric.
_OTHERS = ("Accuracy", "BalancedAccuracy", "LogLoss")


def class_target_scores(
    project: ProjectFolder, folds: pd.DataFrame, probabilities: Array
) -> pd.DataFrame:
    """Return a row per target with its scores out of fold.

    Columns: target; weight in the metric; classes; images, how many have the target; the
    project's metric of this target alone, with its 95 % interval over groups (low, high);
    constant, that metric of the frequencies of the classes; accuracy, balanced accuracy and log
    loss.

    Args:
        project: A project of several class targets.
        folds: The fold table.
        probabilities: Out of fold, shape (n, n_outputs).
    """
    blocks = project.metric.blocks
    assert blocks is not None, "a project of several class targets"
    targets, groups = project.form.read(folds), groups_of(project, folds)
    weights, rows = metric_weights_of(project, folds), []
    for k, (name, metric) in enumerate(column_metrics(project.metric).items()):
        column = JudgedColumn.of(name, metric, targets[:, k], groups, weights)
        found, size = blocks.of(probabilities)[k], blocks.sizes[k]
        frequencies = column_means(np.eye(size)[column.truth.astype(np.int64)], column.weights)
        row: dict[str, object] = {"target": name, "weight": blocks.weights[k], "classes": size}
        row |= column.scored(found, with_interval=len(blocks.names) <= _MOST)
        row["constant"] = column.score(np.broadcast_to(frequencies, found.shape))
        for other in (METRICS[each] for each in _OTHERS):
            judge = other.for_classes(metric.class_values, unordered=True)
            row.setdefault(other.name, column.score(found, judge))
        rows.append(row)
    return pd.DataFrame(rows)


def compared_class_targets(
    metric: Metric,
    probabilities: Mapping[str, Array],
    targets: Array,
    groups: npt.NDArray[np.int64],
    weights: Array | None = None,
) -> pd.DataFrame:
    """Return a row per target with the scores of two runs, the largest gain of B first.

    Columns: label (the target's name); images, how many have it; A and B, the metric of this
    target alone; gain of B over A (positive is better), with the 95 % interval of paired resamples
    of groups (low, high).

    Args:
        metric: A metric of several class targets.
        probabilities: Those of A and B, shape (n, n_outputs) each.
        targets: Class numbers, shape (n, n_columns), NaN where one is missing.
        groups: Number of each row's group, from 0 on, shape (n,).
        weights: Weight of each row in the metric, shape (n,); None for 1 each.
    """
    blocks = metric.blocks
    assert blocks is not None, "a metric of several class targets"
    blocks_of = {run: blocks.of(each) for run, each in probabilities.items()}
    rows = []
    for k, (name, alone) in enumerate(column_metrics(metric).items()):
        column = JudgedColumn.of(name, alone, targets[:, k], groups, weights)
        if column.seen.any():
            own = {run: each[k] for run, each in blocks_of.items()}
            rows.append(column.compared(own, with_interval=len(blocks.names) <= _MOST))
    return pd.DataFrame(rows).sort_values("gain", ascending=False, kind="stable")


def class_target_parts(
    project: ProjectFolder, folds: pd.DataFrame, probabilities: Array
) -> Iterator[Part]:
    """Yield the table of the targets, the confusion of each, and the worst and best images.

    Args:
        project: A project of several class targets.
        folds: The fold table.
        probabilities: Out of fold, shape (n, n_outputs).
    """
    form, blocks = project.form, project.metric.blocks
    assert blocks is not None, "a project of several class targets"
    yield table("Targets, out of fold", class_target_scores(project, folds, probabilities))
    targets, decided = form.read(folds), blocks.decided(probabilities).astype(np.float64)
    for k, (name, names) in enumerate(zip(blocks.names, form.class_texts, strict=True)):
        if k >= _MOST or len(names) > _MOST_CLASSES:
            continue
        seen = ~np.isnan(targets[:, k])
        figure = figures.confusion(targets[seen, k], decided[seen, k], range(len(names)), names)
        yield picture(f"{name}: counts on shares of each row, out of fold", figure)
    order = np.argsort(form.mean_errors(probabilities, targets), kind="stable")
    paths = image_paths(project, folds)
    ids = folds[project.settings.id_column].astype(str).to_numpy()
    truth, said = form.shown(targets), form.said(probabilities)
    for caption, rows in (("Worst", order[::-1][:_SHOWN]), ("Best", order[:_SHOWN])):
        images = [
            (
                thumbnail(paths[k], project.intensity_range),
                f"{ids[k]}: {truth[k]}; predicted {said[k]}",
            )
            for k in rows
        ]
        yield Gallery(f"{caption} predictions, out of fold", images)
