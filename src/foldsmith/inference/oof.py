"""Out-of-fold predictions and their scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from foldsmith.targets.metrics import Metric
from foldsmith.targets.scoring import score_logits, score_predictions
from foldsmith.targets.task import Task
from foldsmith.targets.weighted_losses import Loss, with_weights


@dataclass(frozen=True)
class FoldLogits:
    """Logits of one fold's model for the images of its fold.

    Attributes:
        fold: The fold.
        epoch: Epoch of its snapshot; None where nothing is trained by epochs.
        rows: Rows of the train table, shape (n,).
        logits: Shape (n, n_outputs).
        task: The task, with the target scale of the fold.
        weights: Weight of each of its rows in the loss, float32, shape (n,) or (n, n_labels); None
            for 1 each.
    """

    fold: int
    epoch: int | None
    rows: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    task: Task
    weights: npt.NDArray[np.float32] | None = None


def collect_oof(parts: Sequence[FoldLogits], n_train: int) -> npt.NDArray[np.float32]:
    """Put the folds' logits in the order of the train table.

    Args:
        parts: Every fold once.
        n_train: Rows of the train table.

    Returns:
        Shape (n_train, n_outputs).

    Raises:
        ValueError: The folds do not hold every row exactly once.
    """
    return in_table_order([(part.rows, part.logits) for part in parts], n_train)


def in_table_order(
    parts: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]], n_train: int
) -> npt.NDArray[np.float32]:
    """Return values of rows in the order of a table.

    Args:
        parts: Rows, shape (n,), and their values, shape (n, width), every row once.
        n_train: Rows of the table.

    Returns:
        Shape (n_train, width).

    Raises:
        ValueError: The parts do not hold every row exactly once.
    """
    rows = np.concatenate([rows for rows, _ in parts])
    if len(rows) != n_train or len(np.unique(rows)) != n_train:
        raise ValueError(f"the folds hold {len(rows)} rows of {n_train}, each must be there once")
    ordered = np.empty((n_train, parts[0][1].shape[1]), dtype=np.float32)
    for chosen, values in parts:
        ordered[chosen] = values
    return ordered


def oof_predictions(parts: Sequence[FoldLogits], n_train: int) -> npt.NDArray[np.float64]:
    """Return the out-of-fold predictions, in the order of the train table, shape (n_train, ...)."""
    predictions = np.empty((n_train, *parts[0].task.point_shape), np.float64)
    for part in parts:
        predictions[part.rows] = part.task.predict(part.logits)
    return predictions


def score_table(
    parts: Sequence[FoldLogits],
    labels: npt.NDArray[np.float64],
    loss: Loss,
    metric: Metric,
    metric_weights: npt.NDArray[np.float64] | None = None,
) -> pd.DataFrame:
    """Score each fold and, in the last row, all out-of-fold predictions together.

    Args:
        parts: Every fold once.
        labels: Labels of the task for the train table, shape (n_train,).
        loss: Loss of (logits, encoded targets), or of (logits, encoded targets, weights).
        metric: Metric of the predictions.
        metric_weights: Weight of each row of the train table in the metric, shape (n_train,); None
            for 1 each.

    Returns:
        Columns fold, epoch, loss, metric; the last row's fold is ``oof``, its epoch empty.
    """
    logits = collect_oof(parts, len(labels))
    # Each image's as the model of its fold learns it.
    example = parts[0].task.codes(labels[:1])
    codes = np.empty((len(labels), *example.shape[1:]), example.dtype)
    for part in parts:
        codes[part.rows] = part.task.codes(labels[part.rows])

    weights = _weights_in_order(parts, len(labels))
    weighted = with_weights(loss, weights is not None)

    def loss_of(rows: npt.NDArray[np.int64] | slice) -> float:
        encoded = parts[0].task.encode(torch.from_numpy(codes[rows]))
        of_rows = None if weights is None else torch.from_numpy(weights[rows])
        return float(weighted(torch.from_numpy(logits[rows]), encoded, of_rows))

    records: list[tuple[object, object, float, float]] = []
    for part in parts:
        judged = None if metric_weights is None else metric_weights[part.rows]
        of_fold = score_logits(part.task, metric, part.logits, labels[part.rows], judged)
        records.append((part.fold, part.epoch, loss_of(part.rows), of_fold))
    predictions = oof_predictions(parts, len(labels))
    pooled = score_predictions(parts[0].task, metric, predictions, logits, labels, metric_weights)
    records.append(("oof", None, loss_of(slice(None)), pooled))
    table = pd.DataFrame(records, columns=["fold", "epoch", "loss", "metric"])
    return table.astype({"epoch": "Int64"})


def _weights_in_order(parts: Sequence[FoldLogits], n_train: int) -> npt.NDArray[np.float32] | None:
    """Return the weights of all rows in the order of the train table; None for 1 each."""
    given = [part.weights for part in parts if part.weights is not None]
    if not given:
        return None
    ordered = np.ones((n_train, *given[0].shape[1:]), np.float32)
    for part in parts:
        if part.weights is not None:
            ordered[part.rows] = part.weights
    return ordered
