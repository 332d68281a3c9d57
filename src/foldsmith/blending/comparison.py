"""Predictions compared with one among them; ways to blend, and which one to submit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foldsmith.blending.base import Blend, FittedBlend, Goal, Rows
from foldsmith.blending.bootstrap import bootstrap, interval
from foldsmith.blending.crossfit import cross_fitted
from foldsmith.targets.metrics import Metric

Array = npt.NDArray[np.float64]

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
        complexity: Among candidates within noise, the lowest complexity is submitted: see
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
        """Better than the baseline by more than noise."""
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
    """

    name: str
    fitted: FittedBlend
    in_sample: float
    honest: CrossFittedScore | None
    cross_fitted: Array | None
    resampled: Array | None
    complexity: int


def honest_scores(
    metric: Metric,
    predictions: Mapping[str, Array],
    baseline: str,
    targets: Array,
    groups: npt.NDArray[np.int64],
    seed: int,
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
    """
    return _honest(
        metric,
        predictions,
        baseline,
        targets,
        bootstrap(metric, predictions, targets, groups, seed),
    )


def _honest(
    metric: Metric,
    predictions: Mapping[str, Array],
    baseline: str,
    targets: Array,
    drawn: Mapping[str, Array],
) -> dict[str, CrossFittedScore]:
    scores = {name: metric(predicted, targets) for name, predicted in predictions.items()}
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
    """Fit, cross-fit and score ways to blend.

    Args:
        candidates: The ways.
        baseline: Name of the plain mean among them.
        goal: Objective of the blends.
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
    drawn = bootstrap(metric, held_out, targets, groups, seed)
    honest = _honest(metric, held_out, baseline, targets, drawn)
    return [
        ComparedBlend(
            *(c.name, blend, metric(blend.predict(rows), targets)),
            honest=honest.get(c.name),
            cross_fitted=held_out.get(c.name),
            resampled=drawn.get(c.name),
            complexity=c.complexity,
        )
        for c, blend in zip(candidates, fitted.values(), strict=True)
    ]


def recommend(compared: Sequence[ComparedBlend], baseline: str, metric: Metric) -> tuple[str, str]:
    """Return the name of the blend to submit, and a sentence with the reason.

    It is the simplest one that no other is better than by more than noise, so that it is itself
    within noise of the best. Noise is one standard error of the difference: the middle 68 % of
    its paired resamples by group hold 0 (the rule of Breiman et al., "Classification and
    Regression Trees", 1984, section 3.4.3). Wider intervals keep simple blends that are worse:
    on simulated members (``tests/blending/test_regret.py``) those of 95 % cost twice as much.

    Args:
        compared: Results of all blends, including the baseline.
        baseline: Name of the plain mean.
        metric: Metric of the scores.
    """
    judged = {c.name: c for c in compared if c.honest is not None}
    if len(judged) < 2:
        return baseline, f"submit {baseline}, the plain mean: nothing else has an honest score"
    unbeaten = [
        c for c in judged.values() if not any(_beats(d, c, metric) for d in judged.values())
    ]
    best = max(judged.values(), key=_gain)
    chosen = min(unbeaten, key=lambda c: (c.complexity, -_gain(c)))
    others = [c for c in judged.values() if c.name != baseline]
    next_best = best if best.name != baseline else max(others, key=_gain)
    name, beside = chosen.name, [chosen, best]
    if chosen.name == baseline:
        name, beside = f"{baseline}, the plain mean", [next_best]
        why = f"the gain of {next_best.name} may be noise"
        if _gain(next_best) <= 0:
            why = "nothing else is better out of fold"
    elif chosen is best:
        why = "the best out of fold"
        if best.honest is not None and best.honest.beats_baseline:
            why += ", better than the plain mean by more than noise"
    else:
        why = f"the simplest within noise of {best.name}, the best out of fold"
    beside = list({c.name: c for c in beside}.values())
    single = judged.get("best")
    if single is not None and single not in beside:
        beside.append(single)
    gains = "; ".join(
        f"{'the best single member' if c is single else c.name} {_gain_text(c)}" for c in beside
    )
    return chosen.name, f"submit {name}: {why} ({metric.name}, gain over {baseline}: {gains})"


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
