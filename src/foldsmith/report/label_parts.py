"""Parts of a report about several labels per image: a row per label, the worst and best images."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.blending.bootstrap import bootstrap, interval
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import FOLD_COLUMN, groups_of, image_paths, metric_weights_of
from foldsmith.report.parts import Gallery, Part, table, thumbnail
from foldsmith.targets.decisions import decider_of
from foldsmith.targets.label_metrics import METRICS_OF_LABELS
from foldsmith.targets.metric import DECIDED, Metric
from foldsmith.utils.formatting import brief

Array = npt.NDArray[np.float64]

# Images of a gallery.
_SHOWN = 12
# Labels with a gallery of their own, and the worst and best images in it, as many of each.
_LABELS_SHOWN = 8
_OF_LABEL = 4
# With more labels the intervals are left out: each takes a tenth of a second or more.
_MOST_INTERVALS = 40


def label_scores(project: ProjectFolder, folds: pd.DataFrame, probabilities: Array) -> pd.DataFrame:
    """Return a row per label with its scores out of fold.

    Columns: label; images, how many have it; the project's metric of this label alone, with its
    95 % interval over groups (low, high); AUC; for a metric of decisions also ``with_threshold``,
    the metric with thresholds that were fitted on the other folds, and ``threshold``, the one that
    is fitted on all rows; hits, misses and false_alarms: images that have the label and are decided
    for, have it and are not, do not have it and are, by the same thresholds of the other folds, or
    from 0.5 on.

    Args:
        project: A project of several labels.
        folds: The fold table.
        probabilities: Out of fold, shape (n, n_labels).
    """
    metric, targets, groups = project.metric, project.form.read(folds), groups_of(project, folds)
    weights = metric_weights_of(project, folds)
    alone_by = metric.of_one_label()
    fold_numbers = folds[FOLD_COLUMN].to_numpy(dtype=np.int64)
    decider, auc = decider_of(metric, metric.decision), METRICS_OF_LABELS["AUC"]
    decided, fitted = probabilities, None
    if decider is not None:
        decided = decider.cross_fitted(probabilities, targets, fold_numbers, metric, weights)
        fitted = decider.fit(probabilities, targets, metric, weights)
    rows = []
    for k, name in enumerate(project.form.labels):
        alone, truth = probabilities[:, k : k + 1], targets[:, k : k + 1]
        row: dict[str, object] = {"label": name, "images": int(truth.sum())}
        row[alone_by.title] = alone_by(alone, truth, weights)
        if len(project.form.labels) <= _MOST_INTERVALS:
            drawn = bootstrap(alone_by, {name: alone}, truth, groups, 0, weights)[name]
            row["low"], row["high"] = interval(drawn)
        if metric.name != auc.name:
            row[auc.name] = auc(alone, truth, weights)
        if fitted is not None:
            row["with_threshold"] = alone_by(decided[:, k : k + 1], truth, weights)
            row["threshold"] = float(fitted[k])
        there, said = targets[:, k] == 1, decided[:, k] >= DECIDED
        row["hits"] = int((there & said).sum())
        row["misses"] = int((there & ~said).sum())
        row["false_alarms"] = int((~there & said).sum())
        rows.append(row)
    return pd.DataFrame(rows)


def compared_labels(
    metric: Metric,
    labels: Sequence[str],
    probabilities: Mapping[str, Array],
    targets: Array,
    groups: npt.NDArray[np.int64],
    weights: Array | None = None,
) -> pd.DataFrame:
    """Return a row per label with the scores of two runs, the largest gain of the second first.

    Columns: label; images, how many have it; A and B, the metric of this label alone; gain of B
    over A (positive is better), with the 95 % interval of paired resamples of groups (low, high);
    for a metric of decisions also ``AUC A`` and ``AUC B``.

    Args:
        metric: A metric of labels.
        labels: Their names.
        probabilities: Those of A and B, shape (n, n_labels) each.
        targets: Shape (n, n_labels).
        groups: Number of each row's group, from 0 on, shape (n,).
        weights: Weight of each row in the metric, shape (n,); None for 1 each.
    """
    auc, rows = METRICS_OF_LABELS["AUC"], []
    metric = metric.of_one_label()
    for k, name in enumerate(labels):
        truth = targets[:, k : k + 1]
        alone = {run: values[:, k : k + 1] for run, values in probabilities.items()}
        row: dict[str, object] = {"label": name, "images": int(truth.sum())}
        a, b = (metric(values, truth, weights) for values in alone.values())
        row |= {"A": a, "B": b, "gain": metric.gain(b, a)}
        if len(labels) <= _MOST_INTERVALS:
            drawn = bootstrap(metric, alone, truth, groups, 0, weights)
            row["low"], row["high"] = interval(metric.gain(drawn["B"], drawn["A"]))
        if metric.decides:
            row |= {
                f"{auc.name} {run}": auc(values, truth, weights) for run, values in alone.items()
            }
        rows.append(row)
    return pd.DataFrame(rows).sort_values("gain", ascending=False, kind="stable")


def label_parts(
    project: ProjectFolder, folds: pd.DataFrame, probabilities: Array
) -> Iterator[Part]:
    """Yield the table of the labels, the worst and best images, and those of each label.

    Args:
        project: A project of several labels.
        folds: The fold table.
        probabilities: Out of fold, shape (n, n_labels).
    """
    scores = label_scores(project, folds, probabilities)
    title = "Labels, out of fold"
    if "threshold" in scores:
        title += (
            "; thresholds by all rows; scores, hits and false alarms with thresholds of the other "
            "folds"
        )
    yield table(title, scores)
    targets = project.form.read(folds)
    order = np.argsort(project.form.mean_errors(probabilities, targets), kind="stable")
    paths = image_paths(project, folds)
    ids = folds[project.settings.id_column].astype(str).to_numpy()
    truth, predicted = project.form.written(targets), project.form.written(probabilities)

    def shown(row: int) -> str:
        return thumbnail(paths[row], project.intensity_range)

    for caption, rows in (("Worst", order[::-1][:_SHOWN]), ("Best", order[:_SHOWN])):
        images = [
            (
                shown(k),
                f"{ids[k]}: {truth[k] or 'no label'}, predicted {predicted[k] or 'no label'}",
            )
            for k in rows
        ]
        yield Gallery(f"{caption} predictions, out of fold", images)
    errors = np.abs(probabilities - targets)
    # The labels with the largest errors first.
    for k in np.argsort(-errors.mean(axis=0), kind="stable")[:_LABELS_SHOWN]:
        order = np.argsort(errors[:, k], kind="stable")
        images = [
            (
                shown(row),
                f"{ids[row]}: {'has it' if targets[row, k] else 'does not have it'}, "
                f"probability {probabilities[row, k]:.2f}",
            )
            for row in (*order[::-1][:_OF_LABEL], *order[:_OF_LABEL])
        ]
        name = brief(project.form.labels[k])
        yield Gallery(f"{name}: worst predictions, then best ones, out of fold", images)
