"""Predictions of all folds of an experiment, and the files that they are written to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.inference.oof import FoldLogits, collect_oof, oof_predictions
from foldsmith.project import ProjectFolder
from foldsmith.project.submission import submission_table
from foldsmith.project.tables import FOLD_COLUMN
from foldsmith.targets.scoring import mean_prediction, predictions_of
from foldsmith.targets.task import Task
from foldsmith.utils.atomic import write_csv, write_npy
from foldsmith.utils.owned_files import OwnedFiles


@dataclass(frozen=True)
class InferenceResults:
    """Logits and scores of an experiment.

    Attributes:
        oof_logits: Outputs of the networks, shape (n_train, n_outputs): those of a regression, and
            the bins of a label distribution, are on the target scale of the image's fold.
        test_logits: Shape (n_folds, n_test, n_outputs).
        oof: Predictions in units of the target, shape (n_train,).
        by_fold: Predictions of each fold's model for the test images, shape (n_folds, n_test).
        average: Their joint predictions, shape (n_test,).
        scores: The score table.
    """

    oof_logits: npt.NDArray[np.float32]
    test_logits: npt.NDArray[np.float32]
    oof: npt.NDArray[np.float64]
    by_fold: npt.NDArray[np.float64]
    average: npt.NDArray[np.float64]
    scores: pd.DataFrame


def results_of(
    parts: Sequence[FoldLogits],
    task: Task,
    labels: npt.NDArray[np.float64],
    of_readable: npt.NDArray[np.float32] | None,
    readable: npt.NDArray[np.int64],
    n_test: int,
    scores: pd.DataFrame,
) -> InferenceResults:
    """Return the predictions of all folds' models for labelled and test images.

    Args:
        parts: Every fold once, in order, each with the task of its fold.
        task: The task without a scale.
        labels: Label of each row of the train table, shape (n_train,).
        of_readable: Logits of the test images that can be read, shape (n_folds, n_readable,
            n_outputs); None if there are none. The others are predicted as the mean of the labels.
        readable: Their rows in the test table, shape (n_readable,).
        n_test: Rows of the test table.
        scores: The score table.
    """
    tasks, n_train = [part.task for part in parts], len(labels)
    logits = np.empty((len(parts), n_test, task.n_outputs), np.float32)
    by_fold = np.empty((len(parts), n_test, *task.point_shape))
    average = np.empty((n_test, *task.point_shape))
    by_fold[:] = average[:] = task.predict(task.constant_logits(labels))
    for fold, of_fold in enumerate(tasks):
        logits[fold] = of_fold.constant_logits(labels)
    if of_readable is not None:
        logits[:, readable] = of_readable
        by_fold[:, readable] = predictions_of(tasks, of_readable)
        average[readable] = mean_prediction(tasks, of_readable)
    oof_logits, oof = collect_oof(parts, n_train), oof_predictions(parts, n_train)
    return InferenceResults(oof_logits, logits, oof, by_fold, average, scores)


def for_unreadable(project: ProjectFolder) -> str:
    """Return the prediction for unreadable images, for people."""
    return project.form.for_unreadable


def write_results(
    root: Path,
    label: str,
    project: ProjectFolder,
    table: pd.DataFrame,
    test: pd.DataFrame,
    task: Task,
    results: InferenceResults,
    step: str = "infer",
) -> list[Path]:
    """Write predictions, logits and scores, each file whole.

    Args:
        root: Output folder.
        label: One of :data:`LABELS`.
        project: The project.
        table: The fold table.
        test: The test table.
        task: How logits become predictions.
        results: The results to write.
        step: Name under which the files are listed.

    Returns:
        The files.
    """
    tables: dict[str, pd.DataFrame] = {}
    arrays: dict[str, npt.NDArray[np.float32 | np.float64]] = {}
    oof = results.oof
    probabilities = task.probabilities(results.test_logits)
    for fold, prediction in enumerate(results.by_fold):
        of_fold = None if probabilities is None else probabilities[fold]
        tables[f"submission_by_{label}_fold{fold}.csv"] = submission_table(
            project, test, prediction, of_fold
        )
    of_all = None if probabilities is None else probabilities.mean(axis=0)
    average = submission_table(project, test, results.average, of_all)
    tables[f"submission_by_{label}.csv"] = average
    arrays[f"oof_prediction_by_{label}.npy"] = project.form.stored(oof)
    columns = [project.settings.id_column, FOLD_COLUMN, *project.form.columns]
    tables[f"oof_prediction_by_{label}.csv"] = table[columns].assign(
        **project.form.table_of("prediction", oof)
    )
    if not task.outputs_target:
        arrays[f"oof_logit_by_{label}.npy"] = results.oof_logits
        arrays[f"test_logit_by_{label}.npy"] = results.test_logits
    tables[f"score_by_{label}.csv"] = results.scores
    OwnedFiles(root).record([*tables, *arrays], step)
    for name, content in tables.items():
        write_csv(root / name, content)
    for name, array in arrays.items():
        write_npy(root / name, array)
    return [root / name for name in (*tables, *arrays)]
