"""Out-of-fold predictions and their scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from foldsmith.tasks.losses import Loss
from foldsmith.tasks.metrics import Metric
from foldsmith.tasks.scoring import score_logits
from foldsmith.tasks.task import Task


@dataclass(frozen=True)
class FoldLogits:
    """What one fold's model says of the photos it did not see.

    Attributes:
        fold: The fold.
        epoch: Epoch of its snapshot; None where nothing is trained by epochs.
        rows: Rows of the train table, shape (n,).
        logits: Shape (n, n_outputs).
    """

    fold: int
    epoch: int | None
    rows: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]


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
    rows = np.concatenate([part.rows for part in parts])
    if len(rows) != n_train or len(np.unique(rows)) != n_train:
        raise ValueError(f"the folds hold {len(rows)} rows of {n_train}, each must be there once")
    oof = np.empty((n_train, parts[0].logits.shape[1]), dtype=np.float32)
    for part in parts:
        oof[part.rows] = part.logits
    return oof


def score_table(
    parts: Sequence[FoldLogits],
    labels: npt.NDArray[np.float64],
    task: Task,
    loss: Loss,
    metric: Metric,
) -> pd.DataFrame:
    """Score each fold and, in the last row, all out-of-fold predictions together.

    Args:
        parts: Every fold once.
        labels: What the task learns of the train table, shape (n_train,).
        task: How targets are encoded and logits become predictions.
        loss: Loss of (logits, encoded targets).
        metric: What the predictions are judged by.

    Returns:
        Columns fold, epoch, loss, metric; the last row's fold is ``oof``, its epoch empty.
    """

    def score(
        logits: npt.NDArray[np.float32], truth: npt.NDArray[np.float64]
    ) -> tuple[float, float]:
        encoded = task.encode(torch.from_numpy(task.codes(truth)))
        value = float(loss(torch.from_numpy(logits), encoded))
        return value, score_logits(task, metric, logits, truth)

    records: list[tuple[object, object, float, float]] = [
        (part.fold, part.epoch, *score(part.logits, labels[part.rows])) for part in parts
    ]
    records.append(("oof", None, *score(collect_oof(parts, len(labels)), labels)))
    table = pd.DataFrame(records, columns=["fold", "epoch", "loss", "metric"])
    return table.astype({"epoch": "Int64"})
