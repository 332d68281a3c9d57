"""Predictions compared with one among them; ways to blend, and which one to submit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foldsmith.blending.base import Blend, FittedBlend, Goal, Rows
from foldsmith.blending.bootstrap import bootstrap, interval
from foldsmith.blending.crossfit import cross_fitted
from foldsmith.tasks.metrics import Metric

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """One way to blend.

    Attributes:
        name: As it is shown.
        blend: Fitted on all rows, for the submission.
        honest: What is cross-fitted for its score: the same, or a cheaper one. None: nothing.
    """

    name: str
    blend: Blend
    honest: Blend | None


@dataclass(frozen=True)
class Honest:
    """A score on rows that were not learned from, beside that of a baseline on the same rows.

    Attributes:
        score: Metric of the pooled predictions.
        interval: Where 95 % of its resampled values lie.
        gain: By how much it is better than the baseline's (of blends: the plain mean's);
            negative if worse.
        gain_interval: Where 95 % of the resampled gains lie.
    """

    score: float
    interval: tuple[float, float]
    gain: float
    gain_interval: tuple[float, float]

    @property
    def beats_baseline(self) -> bool:
        """Better than the baseline by more than noise."""
        return self.gain_interval[0] > 0


@dataclass(frozen=True)
class Compared:
    """What was found of one way to blend.

    Attributes:
        name: As it is shown.
        fitted: The blend, fitted on all rows.
        in_sample: Its metric on those same rows.
        honest: The honest score, if it was to be cross-fitted.
        cross_fitted: The predictions behind it, each fold's by a blend of the other folds: shape
            (n,), or (n, n_classes) for probabilities.
    """

    name: str
    fitted: FittedBlend
    in_sample: float
    honest: Honest | None
    cross_fitted: Array | None


def honest_scores(
    metric: Metric,
    predictions: Mapping[str, Array],
    baseline: str,
    targets: Array,
    groups: npt.NDArray[np.int64],
    seed: int,
) -> dict[str, Honest]:
    """Score predictions, and compare each with one of them by a paired bootstrap over groups.

    Args:
        metric: The metric.
        predictions: Name -> predictions, shape (n,) or (n, n_classes), of rows that they were
            not learned from.
        baseline: Name of the one that all are compared with.
        targets: Shape (n,).
        groups: Number of each row's group, from 0 on, shape (n,).
        seed: Seed of the bootstrap.
    """
    drawn = bootstrap(metric, predictions, targets, groups, seed)
    scores = {name: metric(predicted, targets) for name, predicted in predictions.items()}
    sign = 1 if metric.greater_is_better else -1
    return {
        name: Honest(
            scores[name],
            interval(drawn[name]),
            metric.gain(scores[name], scores[baseline]),
            interval(sign * (drawn[name] - drawn[baseline]) + 0.0),
        )
        for name in predictions
    }


def compare(
    candidates: Sequence[Candidate],
    baseline: str,
    goal: Goal,
    rows: Rows,
    targets: Array,
    folds: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    seed: int,
) -> list[Compared]:
    """Fit, cross-fit and score ways to blend.

    Args:
        candidates: The ways.
        baseline: Name of the plain mean among them.
        goal: What they are to be good at.
        rows: All labelled rows.
        targets: Shape (n,).
        folds: Fold of each row, shape (n,).
        groups: Number of each row's group, from 0 on, shape (n,).
        seed: Seed of the bootstrap.
    """
    metric = goal.metric
    fitted = {c.name: c.blend.fit(rows, targets) for c in candidates}
    held_out = {
        c.name: cross_fitted(c.honest, rows, targets, folds) for c in candidates if c.honest
    }
    honest = honest_scores(metric, held_out, baseline, targets, groups, seed)
    return [
        Compared(
            *(c.name, blend, metric(blend.predict(rows), targets)),
            honest=honest.get(c.name),
            cross_fitted=held_out.get(c.name),
        )
        for c, blend in zip(candidates, fitted.values(), strict=True)
    ]


def recommend(compared: Sequence[Compared], baseline: str, metric: Metric) -> tuple[str, str]:
    """Return the name of the blend to submit, and a sentence that says why.

    The one with the best cross-fitted score, if the interval of its gain over the plain mean is
    clear of zero; otherwise the plain mean.

    Args:
        compared: What was found; the baseline among them.
        baseline: Name of the plain mean.
        metric: What they were scored by.
    """
    others = [(c, c.honest) for c in compared if c.honest is not None and c.name != baseline]
    if not others:
        return baseline, f"submit {baseline}, the plain mean: nothing else has an honest score"
    single = next((honest for c, honest in others if c.name == "best"), None)
    beside = ""
    if single is not None:
        (low, high), value = single.gain_interval, single.gain
        beside = f"; the best single member {value:+.4f} ({low:+.4f} to {high:+.4f})"
    best, honest = max(others, key=lambda pair: pair[1].gain)
    low, high = honest.gain_interval
    gain = f"gain {honest.gain:+.4f}, 95 % of resamples {low:+.4f} to {high:+.4f}"
    gain = f"{metric.name}: {gain}{beside}"
    if honest.gain <= 0:
        why = f"nothing else is better out of fold (the next is {best.name}, {gain})"
        return baseline, f"submit {baseline}, the plain mean: {why}"
    if not honest.beats_baseline:
        why = f"the gain of {best.name} may be noise ({gain})"
        return baseline, f"submit {baseline}, the plain mean: {why}"
    return best.name, f"submit {best.name}: better than the plain mean by more than noise ({gain})"
