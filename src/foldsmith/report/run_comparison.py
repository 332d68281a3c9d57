"""Paired comparison of two finished runs on the images that both have predicted."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.blending.base import Goal
from foldsmith.blending.bootstrap import resampled_units
from foldsmith.blending.comparison import CrossFittedScore, honest_scores
from foldsmith.errors import ConfigError, OutputError
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import groups_of, metric_weights_of, read_folds
from foldsmith.report.class_target_parts import compared_class_targets
from foldsmith.report.finished_run import FinishedRun, OofPredictions
from foldsmith.report.label_parts import compared_labels
from foldsmith.report.number_parts import compared_columns
from foldsmith.targets.metrics import Metric

Array = npt.NDArray[np.float64]

# Relative difference from which two targets of one image count as different.
_SAME_TARGET = 1e-12


@dataclass(frozen=True)
class RunComparison:
    """Two runs on the images that both have predicted.

    Attributes:
        a: The first run, the baseline.
        b: The second run.
        metric: The metric of both scores.
        shared: Predictions of A and B for the n shared images, in the same order.
        scores: Scores of A and B; a gain is over A.
        by_label: A row per label or target, for several per image, see
            :func:`~foldsmith.report.label_parts.compared_labels`; else None.
        by_fold: Columns fold, A, B, gain (of B over A; missing if the runs' folds differ).
        constant: Metric of one constant prediction for all images.
        resampled: Units of the bootstrap (images or groups) with their number, as text.
    """

    a: FinishedRun
    b: FinishedRun
    metric: Metric
    shared: tuple[OofPredictions, OofPredictions]
    scores: tuple[CrossFittedScore, CrossFittedScore]
    by_fold: pd.DataFrame
    constant: float
    resampled: str
    by_label: pd.DataFrame | None = None

    @property
    def names(self) -> tuple[str, str]:
        """Output folders of the runs, with the blend of an ensemble; for people."""
        a, b = (
            _name(run, with_project=self.a.project.folder != self.b.project.folder)
            for run in (self.a, self.b)
        )
        return a, b

    @property
    def same_folds(self) -> bool:
        """Whether each image is in the same fold in both runs."""
        return _same_folds(*self.shared)

    @property
    def verdict(self) -> str:
        """Which run is better, as text.

        More than noise: the 95 % interval of the gain lies on one side of 0.
        """
        gain, (low, high) = self.scores[1].gain, self.scores[1].gain_interval
        if low > 0:
            return "B is better than A by more than noise: 0 lies outside the interval"
        if high < 0:
            return "A is better than B by more than noise: 0 lies outside the interval"
        if gain == 0:
            return "A and B are equally good"
        better, other = ("B", "A") if gain > 0 else ("A", "B")
        return (
            f"{better} is better than {other} on these images, but that may be noise: 0 lies "
            "inside the interval"
        )

    @property
    def difference(self) -> str:
        """The gain of B over A with its interval, as text."""
        gain, (low, high) = self.scores[1].gain, self.scores[1].gain_interval
        return (
            f"gain of B over A {gain:+.4f} (positive is better), 95 % of resamples of "
            f"{self.resampled} {low:+.4f} to {high:+.4f}"
        )

    @property
    def notes(self) -> list[str]:
        """Reservations about the comparison, a line each."""
        found = [
            f"{letter} is out of date: {run.out_of_date}"
            for letter, run in zip("AB", (self.a, self.b), strict=True)
            if run.out_of_date
        ]
        n, n_a, n_b = (
            len(each.rows) for each in (self.shared[0], self.a.predictions, self.b.predictions)
        )
        if not n == n_a == n_b:
            found.append(f"compared on {n} shared images (A predicted {n_a}, B {n_b})")
        if not self.same_folds:
            found.append("the folds of A and B differ; each is scored out of its own folds")
        weights = self.a.project.settings.metric_weight_column
        if weights is not None:
            found.append(f"the metric weighs rows by the column {weights}")
        own = self.a.project.metric.title
        if self.metric.title != own:
            found.append(f"compared by {self.metric.title}: one run has no probabilities for {own}")
        if _own_code(self.a.project, self.metric) != _own_code(self.b.project, self.metric):
            found.append(f"the code of {own} differs between the projects; A's judges both")
        return found


def compare_runs(a: FinishedRun, b: FinishedRun) -> RunComparison:
    """Compare two runs by their projects' metric, paired, on the images that both predict.

    Args:
        a: The first run.
        b: The second run.

    Raises:
        ConfigError: The projects are judged by different metrics, or have different classes.
        OutputError: They share no image, or have different targets for a shared one.
    """
    metric = _common_metric(a, b)
    shared = _shared(a, b)
    judged = {name: each.judged_by(metric) for name, each in zip("AB", shared, strict=True)}
    targets, groups = shared[0].targets, _groups(a, shared[0].ids)
    weights = _weights(a, b, shared[0].ids)
    seed, project = a.experiment.globals.seed, a.project
    goal = Goal.of_project(project, metric)
    scores = honest_scores(metric, judged, "A", targets, groups, seed, weights)
    by_label = None
    if metric.of_numbers:
        by_label = compared_columns(metric, judged, targets, groups, weights)
    elif metric.blocks is not None:
        by_label = compared_class_targets(metric, judged, targets, groups, weights)
    elif metric.of_labels:
        by_label = compared_labels(metric, project.form.labels, judged, targets, groups, weights)
    return RunComparison(
        *(a, b, metric, shared),
        scores=(scores["A"], scores["B"]),
        by_fold=_by_fold(metric, shared, weights),
        constant=goal.constant_score(targets, weights),
        resampled=resampled_units(groups),
        by_label=by_label,
    )


def _name(run: FinishedRun, with_project: bool) -> str:
    folder, root = run.project.folder, run.root.resolve()
    # A linked output folder may be anywhere.
    name = str(root.relative_to(folder)) if root.is_relative_to(folder) else run.root.name
    if with_project:
        name = f"{folder.name}/{name}"
    return name + (f" ({run.predictions.blend})" if run.predictions.blend else "")


def _own_code(project: ProjectFolder, metric: Metric) -> list[str]:
    """Return the hashes of the Python files of a project that offer a metric, if it is its own."""
    own = [file for file in project.own_files if metric.name in file.offers]
    return sorted(digest for file in own for digest in file.sources.values())


def _common_metric(a: FinishedRun, b: FinishedRun) -> Metric:
    metric, other = a.project.metric, b.project.metric
    same = a.project.form.labels == b.project.form.labels
    if (metric.of_labels or metric.blocks is not None) and not same:
        what = "labels" if metric.of_labels else "classes"
        raise ConfigError(
            f"{a.project.source_files[0]} and {b.project.source_files[0]}: have other {what}, or "
            f"in another order; runs are compared by one metric of the same {what}"
        )
    if not metric.same_judge(other):
        files = [run.project.source_files[0] for run in (a, b)]
        what = "other classes"
        if metric.title != other.title:
            what = f"{metric.title} and {other.title}"
        elif (metric.class_values, metric.unordered) == (other.class_values, other.unordered):
            what = f"{metric.title} is another metric in each"
        raise ConfigError(
            f"{files[0]} and {files[1]}: metric: {what}; runs are compared by one metric of the "
            "same classes"
        )
    have_probabilities = all(run.predictions.probabilities is not None for run in (a, b))
    fallback = metric.for_points()
    if not have_probabilities and fallback.takes_probabilities:
        raise OutputError(
            f"{a.root} and {b.root}: one run has no class probabilities, which a metric of "
            "unordered classes needs"
        )
    return metric if have_probabilities else fallback


def _shared(a: FinishedRun, b: FinishedRun) -> tuple[OofPredictions, OofPredictions]:
    """Return the predictions of two runs for their shared images, in the order of A."""
    at_b = pd.Index(b.predictions.ids).get_indexer(pd.Index(a.predictions.ids))
    in_both = at_b >= 0
    counts = f"{in_both.sum()} of the {len(a.predictions.rows)} and {len(b.predictions.rows)} ids"
    if not in_both.any():
        raise OutputError(
            f"{a.root} and {b.root}: {counts} are shared: runs of different images cannot be "
            "compared"
        )
    shared = a.predictions.take(np.flatnonzero(in_both)), b.predictions.take(at_b[in_both])
    targets = [each.targets for each in shared]
    close = np.isclose(targets[0], targets[1], rtol=_SAME_TARGET, atol=0, equal_nan=True)
    differ = ~close.reshape(len(close), -1).all(axis=1)
    if differ.any():
        k = int(differ.argmax())
        said = [a.project.form.shown(each[k : k + 1])[0] or "no label" for each in targets]
        raise OutputError(
            f"{a.root} and {b.root}: {counts} are shared, and {differ.sum()} of them have "
            f"different targets, first {shared[0].ids[k]} ({said[0]} and {said[1]}): "
            "runs of different targets cannot be compared"
        )
    return shared


def _groups(run: FinishedRun, ids: list[str]) -> npt.NDArray[np.int64]:
    """Return the number of each image's group, counted from 0, shape (n,)."""
    project = run.project
    table = read_folds(project, run.experiment.globals.meta_file)
    groups = pd.Series(groups_of(project, table), index=table[project.settings.id_column])
    # An image that is not in the table any more is a group of its own.
    known = groups.reindex(ids).to_numpy(dtype=np.float64)
    alone = np.isnan(known)
    known[alone] = len(groups) + np.flatnonzero(alone)
    return np.unique(known, return_inverse=True)[1].astype(np.int64)


def _weights(a: FinishedRun, b: FinishedRun, ids: list[str]) -> Array | None:
    """Return the weight of each image in the metric, shape (n,); None for 1 each.

    Raises:
        OutputError: The projects weigh the images otherwise, or an image has no weight any more.
    """
    of_a, of_b = (_weights_of(run, ids) for run in (a, b))
    differ = ~np.isclose(of_a, of_b, rtol=_SAME_TARGET, atol=0)
    if differ.any():
        raise OutputError(
            f"{a.root} and {b.root}: metric_weight_column of their projects gives image "
            f"{ids[int(differ.argmax())]} another weight in the metric: such runs cannot be "
            "compared"
        )
    return None if np.ptp(of_a) == 0 else of_a


def _weights_of(run: FinishedRun, ids: list[str]) -> Array:
    table = read_folds(run.project, run.experiment.globals.meta_file)
    weights = metric_weights_of(run.project, table)
    if weights is None:
        return np.ones(len(ids))
    by_id = pd.Series(weights, index=table[run.project.settings.id_column])
    found = by_id.reindex(ids).to_numpy(np.float64)
    gone = np.isnan(found)
    if gone.any():
        raise OutputError(
            f"{run.root}: image {ids[int(gone.argmax())]} is not in the fold table any more, so "
            "that it has no weight in the metric; make the run again"
        )
    mean = float(found.mean())  # over the shared images alone
    scaled: Array = np.divide(found, mean or 1.0, dtype=np.float64)
    return scaled


def _same_folds(a: OofPredictions, b: OofPredictions) -> bool:
    return bool((a.rows["fold"].to_numpy() == b.rows["fold"].to_numpy()).all())


def _by_fold(
    metric: Metric, shared: tuple[OofPredictions, OofPredictions], weights: Array | None
) -> pd.DataFrame:
    columns = {}
    for name, each in zip("AB", shared, strict=True):
        folds, judged = each.rows["fold"].to_numpy(), each.judged_by(metric)
        columns[name] = {
            int(fold): metric(
                judged[folds == fold],
                each.targets[folds == fold],
                None if weights is None else weights[folds == fold],
            )
            for fold in np.unique(folds)
        }
    table = pd.DataFrame(columns).sort_index()
    if _same_folds(*shared):
        table["gain"] = [metric.gain(b, a) for a, b in zip(table["A"], table["B"], strict=True)]
    return table.rename_axis("fold").reset_index()
