"""Parts of a report about several labels per image: a row per label, the worst and best images."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.blending.bootstrap import bootstrap, interval
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import FOLD_COLUMN, groups_of, image_paths
from foldsmith.report.parts import Gallery, Part, table, thumbnail
from foldsmith.targets.decisions import decider_of
from foldsmith.targets.label_metrics import METRICS_OF_LABELS

Array = npt.NDArray[np.float64]

# Images of a gallery.
_SHOWN = 12
# With more labels the intervals are left out: each takes a tenth of a second or more.
_MOST_INTERVALS = 40


def label_scores(project: ProjectFolder, folds: pd.DataFrame, probabilities: Array) -> pd.DataFrame:
    """Return a row per label with its scores out of fold.

    Columns: label; images, those that have it; the project's metric of this label alone, with its
    95 % interval over groups (low, high); AUC; for a metric of decisions also ``with_threshold``,
    the metric with thresholds that were fitted on the other folds, and ``threshold``, the one that
    is fitted on all rows.

    Args:
        project: A project of several labels.
        folds: The fold table.
        probabilities: Out of fold, shape (n, n_labels).
    """
    metric, targets, groups = project.metric, project.form.read(folds), groups_of(project, folds)
    fold_numbers = folds[FOLD_COLUMN].to_numpy(dtype=np.int64)
    decider, auc = decider_of(metric, metric.decision), METRICS_OF_LABELS["AUC"]
    decided = fitted = None
    if decider is not None:
        decided = decider.cross_fitted(probabilities, targets, fold_numbers, metric)
        fitted = decider.fit(probabilities, targets, metric)
    rows = []
    for k, name in enumerate(project.form.labels):
        alone, truth = probabilities[:, k : k + 1], targets[:, k : k + 1]
        row: dict[str, object] = {"label": name, "images": int(truth.sum())}
        row[metric.title] = metric(alone, truth)
        if len(project.form.labels) <= _MOST_INTERVALS:
            drawn = bootstrap(metric, {name: alone}, truth, groups, seed=0)[name]
            row["low"], row["high"] = interval(drawn)
        if metric.name != auc.name:
            row[auc.name] = auc(alone, truth)
        if decided is not None and fitted is not None:
            row["with_threshold"] = metric(decided[:, k : k + 1], truth)
            row["threshold"] = float(fitted[k])
        rows.append(row)
    return pd.DataFrame(rows)


def label_parts(
    project: ProjectFolder, folds: pd.DataFrame, probabilities: Array
) -> Iterator[Part]:
    """Yield the table of the labels, and the worst and best images.

    Args:
        project: A project of several labels.
        folds: The fold table.
        probabilities: Out of fold, shape (n, n_labels).
    """
    scores = label_scores(project, folds, probabilities)
    title = "Labels, out of fold"
    if "threshold" in scores:
        title += "; thresholds by all rows, scores with thresholds of the other folds"
    yield table(title, scores)
    targets = project.form.read(folds)
    order = np.argsort(mean_errors(probabilities, targets), kind="stable")
    paths = image_paths(project, folds)
    ids = folds[project.settings.id_column].astype(str).to_numpy()
    truth, predicted = project.form.written(targets), project.form.written(probabilities)
    for caption, rows in (("Worst", order[::-1][:_SHOWN]), ("Best", order[:_SHOWN])):
        images = [
            (
                thumbnail(paths[k], project.intensity_range),
                f"{ids[k]}: {truth[k] or 'no label'}, predicted {predicted[k] or 'no label'}",
            )
            for k in rows
        ]
        yield Gallery(f"{caption} predictions, out of fold", images)


def mean_errors(probabilities: Array, targets: Array) -> Array:
    """Return the mean distance of the probabilities from 0 and 1, shape (n,)."""
    errors: Array = np.abs(probabilities - targets).mean(axis=1)
    return errors
