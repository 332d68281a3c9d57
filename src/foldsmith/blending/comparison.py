"""Predictions compared with one among them; ways to blend, and which one to submit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foldsmith.blending.averaging import FittedMeanOfBlends
from foldsmith.blending.base import Blend, FittedBlend, Goal, Rows
from foldsmith.blending.bootstrap import bootstrap, interval
from foldsmith.blending.crossfit import cross_fitted
from foldsmith.targets.metrics import Metric

Array = npt.NDArray[np.float64]

# The mean of the blends that cannot be told from the best one.
MEAN_OF_BEST = "mean-of-best"

# Share of a normal distribution that lies more than one standard error below its mean.
_BELOW_ONE_ERROR = 0.16


@dataclass(frozen=True)
class Candidate:
    """One way to blend.

    Attributes:
        name: As it is shown.
        blend: Fitted on all rows, for the submission.
        honest: Blend that is cross-fitted for the score: the same, or a cheaper one. None: no
            score.
        complexity: Candidates that are within noise of the best and more complex are left out: see
            :data:`~foldsmith.blending.methods.COMPLEXITY`.
    """

    name: str
    blend: Blend
    honest: Blend | None
    complexity: int


@dataclass(frozen=True)
class CrossFittedScore:
    """A score on rows that were not used for fitting, and the score of a baseline on them.

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
        """Whether 95 % of the resampled gains over the baseline lie above 0."""
        return self.gain_interval[0] > 0


@dataclass(frozen=True)
class ComparedBlend:
    """Results of one way to blend.

    Attributes:
        name: As it is shown.
        fitted: The blend, fitted on all rows.
        in_sample: Its metric on those same rows.
        honest: The honest score, if it was to be cross-fitted.
        cross_fitted: The predictions behind it, each fold's by a blend of the other folds: shape
            (n,), or (n, n_classes) for probabilities.
        resampled: Their metric in resamples of the groups, the same ones for all candidates.
        complexity: As of the candidate.
        parts: Names of the blends that it is the mean of; empty for others.
    """

    name: str
    fitted: FittedBlend
    in_sample: float
    honest: CrossFittedScore | None
    cross_fitted: Array | None
    resampled: Array | None
    complexity: int
    parts: tuple[str, ...] = ()


def honest_scores(
    metric: Metric,
    predictions: Mapping[str, Array],
    baseline: str,
    targets: Array,
    groups: npt.NDArray[np.int64],
    seed: int,
    weights: Array | None = None,
) -> dict[str, CrossFittedScore]:
    """Score predictions, and compare each with one of them by a paired bootstrap over groups.

    Args:
        metric: The metric.
        predictions: Name -> predictions, shape (n,) or (n, n_classes), of rows that they were
            not learned from.
        baseline: Name of the one that all are compared with.
        targets: Shape (n,).
        groups: Number of each row's group, from 0 on, shape (n,).
        seed: Seed of the bootstrap.
        weights: Weight of each row in the metric, shape (n,); None for 1 each.
    """
    drawn = bootstrap(metric, predictions, targets, groups, seed, weights)
    return _honest(metric, predictions, baseline, targets, weights, drawn)


def _honest(
    metric: Metric,
    predictions: Mapping[str, Array],
    baseline: str,
    targets: Array,
    weights: Array | None,
    drawn: Mapping[str, Array],
) -> dict[str, CrossFittedScore]:
    scores = {name: metric(predicted, targets, weights) for name, predicted in predictions.items()}
    return {
        name: CrossFittedScore(
            scores[name],
            interval(drawn[name]),
            metric.gain(scores[name], scores[baseline]),
            interval(metric.gain(drawn[name], drawn[baseline]) + 0.0),
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
) -> list[ComparedBlend]:
    """Fit, cross-fit and score ways to blend, and the mean of those within noise of the best.

    That mean, :data:`MEAN_OF_BEST`, comes last; there is none if no other blend is within noise.

    Args:
        candidates: The ways.
        baseline: Name of the plain mean among them.
        goal: Objective of the blends.
        rows: All labelled rows, with their weights in the metric.
        targets: Shape (n,).
        folds: Fold of each row, shape (n,).
        groups: Number of each row's group, from 0 on, shape (n,).
        seed: Seed of the bootstrap.
    """
    metric, weights = goal.metric, rows.weights
    fitted = {c.name: c.blend.fit(rows, targets) for c in candidates}
    held_out = {
        c.name: cross_fitted(c.honest, rows, targets, folds) for c in candidates if c.honest
    }
    drawn = bootstrap(metric, held_out, targets, groups, seed, weights)
    honest = _honest(metric, held_out, baseline, targets, weights, drawn)
    compared = [
        ComparedBlend(
            *(c.name, blend, metric(blend.predict(rows), targets, weights)),
            honest=honest.get(c.name),
            cross_fitted=held_out.get(c.name),
            resampled=drawn.get(c.name),
            complexity=c.complexity,
        )
        for c, blend in zip(candidates, fitted.values(), strict=True)
    ]
    best = within_noise(compared, metric)
    if len(best) < 2:
        return compared
    # Equal seeds give equal draws.
    mean = _mean_of([held_out[c.name] for c in best])
    drawn_mean = bootstrap(metric, {MEAN_OF_BEST: mean}, targets, groups, seed, weights)
    predictions = {baseline: held_out[baseline], MEAN_OF_BEST: mean}
    drawn_mean[baseline] = drawn[baseline]
    scored = _honest(metric, predictions, baseline, targets, weights, drawn_mean)
    together = FittedMeanOfBlends(tuple(c.fitted for c in best))
    return [
        *compared,
        ComparedBlend(
            *(MEAN_OF_BEST, together, metric(together.predict(rows), targets, weights)),
            honest=scored[MEAN_OF_BEST],
            cross_fitted=mean,
            resampled=drawn_mean[MEAN_OF_BEST],
            complexity=max(c.complexity for c in best),
            parts=tuple(c.name for c in best),
        ),
    ]


def within_noise(compared: Sequence[ComparedBlend], metric: Metric) -> list[ComparedBlend]:
    """Return the best blend out of fold, and the simpler ones that it may not be better than.

    Noise is one standard error of the difference: the middle 68 % of its paired resamples by
    group hold 0 (as in the rule of Breiman et al., "Classification and Regression Trees", 1984,
    section 3.4.3). Blends that are more complex than the best are left out. More noise for fewer
    groups was no better on real predictions (``docs/stages.md``, "With few groups").

    Args:
        compared: Results of all blends; those without an honest score are left out.
        metric: Metric of the scores.

    Returns:
        The best one first, then the others in their order, each of the same predictions once;
        empty without honest scores.
    """
    judged = [c for c in compared if c.honest is not None]
    if not judged:
        return []
    top = max(judged, key=_gain)
    # Among equal predictions (up to rounding) the simplest blend is kept.
    found = [min((c for c in judged if _same(c, top)), key=lambda c: c.complexity)]
    for c in judged:
        alike = any(_same(c, other) for other in found)
        if not alike and c.complexity <= found[0].complexity and not _beats(found[0], c, metric):
            found.append(c)
    return found


def recommend(compared: Sequence[ComparedBlend], baseline: str, metric: Metric) -> tuple[str, str]:
    """Return the name of the blend to submit, and a sentence with the reason.

    It is :data:`MEAN_OF_BEST` if there is one, else the best blend out of fold. Choosing one of
    several blends that noise alone tells apart costs more than their mean, whose squared error is
    never above the mean of theirs: ``benchmarks/selection.py`` measures it on simulated members.

    Args:
        compared: Results of all blends, including the baseline.
        baseline: Name of the plain mean.
        metric: Metric of the scores.
    """
    judged = {c.name: c for c in compared if c.honest is not None}
    if len(judged) < 2:
        return baseline, f"submit {baseline}, the plain mean: nothing else has an honest score"
    mean = judged.pop(MEAN_OF_BEST, None)
    best = within_noise(list(judged.values()), metric)[0]
    if mean is None:
        chosen, beside = best, [best]
        why = "the best out of fold, better than each simpler blend by over a standard error"
        if best.name == baseline:
            why = "the plain mean, the best out of fold and the simplest"
    else:
        chosen, beside = mean, [mean, best]
        others = ", ".join(name for name in mean.parts if name != best.name)
        why = (
            f"the mean of {best.name}, the best out of fold, and the blends within noise of it "
            f"that are no more complex: {others}"
        )
    single = judged.get("best")
    if single is not None and single not in beside:
        beside.append(single)
    gains = "; ".join(
        f"{'the best single member' if c is single else c.name} {_gain_text(c)}"
        for c in beside
        if c.name != baseline
    )
    gains = f"({metric.title}, gain over {baseline}: {gains})" if gains else f"({metric.title})"
    return chosen.name, f"submit {chosen.name}: {why} {gains}"


def _mean_of(predictions: Sequence[Array]) -> Array:
    mean: Array = np.mean(predictions, axis=0)
    return mean


def _same(one: ComparedBlend, other: ComparedBlend) -> bool:
    """Return whether two blends predict the same."""
    if one.cross_fitted is None or other.cross_fitted is None:
        return one is other
    return np.allclose(one.cross_fitted, other.cross_fitted, rtol=1e-9, atol=1e-12)


def _gain(compared: ComparedBlend) -> float:
    assert compared.honest is not None
    return compared.honest.gain


def _gain_text(compared: ComparedBlend) -> str:
    assert compared.honest is not None
    low, high = compared.honest.gain_interval
    return f"{compared.honest.gain:+.4f}, 95 % of resamples {low:+.4f} to {high:+.4f}"


def _beats(one: ComparedBlend, other: ComparedBlend, metric: Metric) -> bool:
    """Return whether one is better than the other by more than a standard error."""
    if one.resampled is None or other.resampled is None or _gain(one) <= _gain(other):
        return False
    gains = metric.gain(one.resampled, other.resampled)
    return bool(np.quantile(gains, _BELOW_ONE_ERROR) > 0)
