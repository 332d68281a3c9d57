"""Parts of a report about several numbers per image: a row per target, worst and best images."""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.project import ProjectFolder
from foldsmith.project.tables import groups_of, image_paths, metric_weights_of
from foldsmith.report import figures
from foldsmith.report.by_column import JudgedColumn
from foldsmith.report.parts import Gallery, Part, picture, table, thumbnail
from foldsmith.targets.metrics import MAE, RMSE, Metric

Array = npt.NDArray[np.float64]

# Images of a gallery.
_SHOWN = 12
# With more targets intervals and figures are left out.
_MOST = 20


def number_scores(project: ProjectFolder, folds: pd.DataFrame, predictions: Array) -> pd.DataFrame:
    """Return a row per judged column with its scores out of fold.

    Columns: target; weight in the metric; images, how many have it; the project's metric of this
    column alone, with its 95 % interval over groups (low, high); RMSE and MAE; R2.

    Args:
        project: A project of several numbers.
        folds: The fold table.
        predictions: Out of fold, shape (n, n_targets).
    """
    metric, judged = project.metric.for_column(), project.metric.judged
    assert judged is not None, "a project of several numbers"
    targets, groups = judged.of(project.form.read(folds)), groups_of(project, folds)
    weights = metric_weights_of(project, folds)
    predicted, rows = judged.of(predictions), []
    for k, name in enumerate(judged.names):
        column = JudgedColumn.of(name, metric, targets[:, k], groups, weights)
        row: dict[str, object] = {"target": name, "weight": judged.weights[k]}
        row |= column.scored(predicted[:, k], with_interval=len(judged.names) <= _MOST)
        for other in (RMSE, MAE, project.metrics["R2"].for_column()):
            row.setdefault(other.name, column.score(predicted[:, k], other))
        rows.append(row)
    return pd.DataFrame(rows)


def compared_columns(
    metric: Metric,
    predictions: Mapping[str, Array],
    targets: Array,
    groups: npt.NDArray[np.int64],
    weights: Array | None = None,
) -> pd.DataFrame:
    """Return a row per judged column with the scores of two runs, the largest gain of B first.

    Columns: label (the column's name); images, how many have it; A and B, the metric of this
    column alone; gain of B over A (positive is better), with the 95 % interval of paired resamples
    of groups (low, high).

    Args:
        metric: A metric of several numbers.
        predictions: Those of A and B, shape (n, n_targets) each.
        targets: Shape (n, n_targets).
        groups: Number of each row's group, from 0 on, shape (n,).
        weights: Weight of each row in the metric, shape (n,); None for 1 each.
    """
    judged, alone = metric.judged, metric.for_column()
    assert judged is not None, "a metric of several numbers"
    of_runs, truth = {run: judged.of(each) for run, each in predictions.items()}, judged.of(targets)
    rows = []
    for k, name in enumerate(judged.names):
        column = JudgedColumn.of(name, alone, truth[:, k], groups, weights)
        if column.seen.any():
            own = {run: values[:, k] for run, values in of_runs.items()}
            rows.append(column.compared(own, with_interval=len(judged.names) <= _MOST))
    return pd.DataFrame(rows).sort_values("gain", ascending=False, kind="stable")


def number_parts(project: ProjectFolder, folds: pd.DataFrame, predictions: Array) -> Iterator[Part]:
    """Yield the table of the targets, a figure of each, and the worst and best images.

    Args:
        project: A project of several numbers.
        folds: The fold table.
        predictions: Out of fold, shape (n, n_targets).
    """
    form = project.form
    yield table("Targets, out of fold", number_scores(project, folds, predictions), digits=4)
    targets = form.read(folds)
    for k, name in list(enumerate(form.columns))[:_MOST]:
        seen = ~np.isnan(targets[:, k])
        wanted = targets[seen, k]
        ends = (float(wanted.min()), float(wanted.max()))
        figure = figures.predicted_against_true(wanted, predictions[seen, k], ends)
        yield picture(f"Out-of-fold predictions of {name}", figure)
    order = np.argsort(form.mean_errors(predictions, targets), kind="stable")
    paths = image_paths(project, folds)
    ids = folds[project.settings.id_column].astype(str).to_numpy()
    truth, said = form.shown(targets), form.shown(predictions)
    for caption, rows in (("Worst", order[::-1][:_SHOWN]), ("Best", order[:_SHOWN])):
        images = [
            (
                thumbnail(paths[k], project.intensity_range),
                f"{ids[k]}: {truth[k]}; predicted {said[k]}",
            )
            for k in rows
        ]
        yield Gallery(f"{caption} predictions, out of fold", images)
