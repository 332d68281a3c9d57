"""Further lines of an inference about its out-of-fold predictions."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.blending.base import Goal
from foldsmith.config.settings import Checkpoint
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import metric_weights_of, targets_of
from foldsmith.steps.checkpoint_choice import Chosen, read_log
from foldsmith.targets.decisions import decider_of
from foldsmith.targets.metric import Decision, Metric

logger = logging.getLogger(__name__)

# The rows of a score table after those of the folds.
POOLED = "oof"
THRESHOLDS: Decision = "thresholds"
PRIORS: Decision = "priors"


def logged_last(
    root: Path, chosen: Sequence[Chosen], scores: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the scores of the last epochs from the logs.

    Args:
        root: Output folder of the training.
        chosen: The chosen snapshot of each fold.
        scores: Metric of each fold and of all rows pooled, shape (n_folds + 1,).

    Returns:
        Shape (n_folds + 1,), NaN for all rows pooled.
    """
    # The log has no test-time augmentation, so only the difference is comparable.
    differences = [
        read_log(root, item.fold)[-1]["val/metric"] - item.logged["val/metric"] for item in chosen
    ]
    last: npt.NDArray[np.float64] = scores + np.array([*differences, np.nan])
    return last


def with_selection_gap(
    scores: pd.DataFrame, last: npt.NDArray[np.float64], metric: Metric
) -> pd.DataFrame:
    """Return a score table with the columns last_metric and selection_gap.

    An epoch that was chosen on the rows which score it looks better than it is; the last epoch
    was not chosen. The gap is an upper bound of that optimism: part of it may be real.

    Args:
        scores: As :func:`~foldsmith.inference.oof.score_table` makes it.
        last: Metric of the last epoch for each row of the table, NaN where unknown.
        metric: Says which values are better.
    """
    gaps = [metric.gain(*pair) for pair in zip(scores["metric"], last, strict=True)]
    return scores.assign(last_metric=last, selection_gap=gaps)


def with_decisions(
    scores: pd.DataFrame,
    oof: npt.NDArray[np.float64],
    targets: npt.NDArray[np.float64],
    folds: npt.NDArray[np.int64],
    metric: Metric,
    weights: npt.NDArray[np.float64] | None = None,
) -> pd.DataFrame:
    """Append the score with decisions between classes that were fitted on the other folds.

    Args:
        scores: The score table.
        oof: Out-of-fold predictions, as the metric takes them: shape (n,), for boundaries between
            the classes, or probabilities, shape (n, n_classes), for their priors.
        targets: Shape (n,).
        folds: Fold of each row, shape (n,).
        metric: The metric. The table stays as it is if it judges no decisions.
        weights: Weight of each row in the metric, shape (n,); None for 1 each.
    """
    decider = decider_of(metric, metric.decision)
    if decider is None:
        return scores
    decided = decider.cross_fitted(oof, targets, folds, metric, weights)
    value = metric(decided, targets, weights)
    row = pd.DataFrame({"fold": [metric.decision], "metric": [value]})
    return pd.concat([scores, row], ignore_index=True)


def score_facts(scores: pd.DataFrame) -> dict[str, float | None]:
    """Return the pooled scores for a manifest; None for unknown ones."""
    pooled = _row(scores, POOLED)
    facts = {
        name: None if pd.isna(pooled[name]) else float(pooled[name])
        for name in ("metric", "last_metric", "selection_gap")
    }
    for fitted in {THRESHOLDS, PRIORS} & set(scores["fold"]):
        facts[f"metric_with_{fitted}"] = float(_row(scores, fitted)["metric"])
    return facts


def constant_score(metric: Metric, project: ProjectFolder, table: pd.DataFrame) -> float:
    """Return the metric of the same prediction for every labelled image, the score to beat.

    Args:
        metric: The metric.
        project: The project.
        table: The fold table.
    """
    goal = Goal.of_project(project, metric)
    return goal.constant_score(targets_of(project, table), metric_weights_of(project, table))


def print_constant(metric: Metric, constant: float) -> None:
    """Print the score to beat."""
    logger.info(
        f"(the constant, the same prediction for every image: {metric.title} {constant:.4f})"
    )


def print_scores(scores: pd.DataFrame, metric: Metric, checkpoint: Checkpoint, epoch: int) -> None:
    """Print a score table, and how its epochs were chosen.

    Args:
        scores: The score table.
        metric: The metric.
        checkpoint: How the epochs were chosen.
        epoch: Epoch of the first fold; the same for all folds with ``common``.
    """
    shown = scores.assign(epoch=scores["epoch"].astype(object).fillna(""))
    logger.info(shown.to_string(index=False, float_format="{:.4f}".format, na_rep=""))
    if checkpoint == "last":
        return
    if checkpoint == "common":
        logger.info(f"(epoch {epoch} for all folds, the best of their mean validation metric)")
    else:
        logger.info(f"(the epoch of each fold was chosen by its own validation {checkpoint})")
    gap, of_what = _row(scores, POOLED)["selection_gap"], "all rows pooled"
    if pd.isna(gap):
        gap, of_what = scores["selection_gap"].mean(), "mean over the folds' logs"
    logger.info(
        f"selection gap: {metric.title} {gap:+.4f} ({of_what}); the chosen epochs score "
        "this much better than the last"
    )


def _row(scores: pd.DataFrame, fold: str) -> pd.Series:
    return scores[scores["fold"] == fold].iloc[0]
