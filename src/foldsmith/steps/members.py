"""The members of an ensemble: predictions of finished experiments, read and checked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.blending.base import Goal, Rows
from foldsmith.config import Checkpoint, EnsembleSettings, Experiment, Globals
from foldsmith.data.image_table import COLUMNS, IMG_INFO
from foldsmith.errors import OutputError
from foldsmith.project import ProjectFolder
from foldsmith.project.submission import read_submission
from foldsmith.project.tables import (
    FOLD_COLUMN,
    hash_columns,
    metric_weights_of,
    read_table,
    read_test,
)
from foldsmith.steps.checkpoint_choice import (
    LABELS,
    inference_manifest,
    making_command,
    predicting_command,
    read_inference,
)
from foldsmith.steps.data_hashes import hash_folds
from foldsmith.steps.manifest import Manifest, verified, why_unread
from foldsmith.steps.run_records import RESOLVED_CONFIG, read_resolved
from foldsmith.targets.metrics import Metric
from foldsmith.targets.task import Task
from foldsmith.targets.tasks import create_task
from foldsmith.utils.hashing import hash_value

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Member:
    """One experiment's predictions.

    Attributes:
        name: Name of its output folder.
        task: Short name of its task, as in ``reg``.
        oof: Point predictions, shape (n_train,); of labels probabilities.
        test: Shape (n_test,).
        oof_probabilities: Shape (n_train, n_classes); None if the task knows no classes.
        test_probabilities: Means over the folds' models, shape (n_test, n_classes).
        folds_sha256: Hash of the train ids and folds.
        test_ids_sha256: Hash of the test ids.
    """

    name: str
    task: str
    oof: Array
    test: Array
    oof_probabilities: Array | None
    test_probabilities: Array | None
    folds_sha256: str
    test_ids_sha256: str


def read_members(
    project: ProjectFolder, settings: EnsembleSettings, table: pd.DataFrame, test: pd.DataFrame
) -> list[Member]:
    """Read the experiments of an ensemble.

    Args:
        project: The project.
        settings: Which, and by which snapshots.
        table: The fold table.
        test: The test table.

    Raises:
        OutputError: An experiment has no predictions, or those of two, or of the tables, are
            not for the same rows and folds.
    """
    members = [_read_member(project, folder, settings) for folder in settings.experiments]
    first = members[0]
    for member in members[1:]:
        if member.folds_sha256 != first.folds_sha256:
            raise OutputError(
                f"{first.name} and {member.name} differ in their folds or the order of their "
                "train rows; they cannot be blended. Train one of them again"
            )
        if member.test_ids_sha256 != first.test_ids_sha256:
            raise OutputError(
                f"{first.name} and {member.name} differ in the order of the test rows"
            )
    today = hash_folds(project, table), hash_columns(test, [project.settings.id_column])
    if (first.folds_sha256, first.test_ids_sha256) != today:
        raise OutputError(
            f"{first.name} was made with another fold table or test table than today's; "
            "run 'foldsmith infer' again"
        )
    return members


def so_far(members: Sequence[str], waiting: Sequence[str]) -> str:
    """Return how complete a blend is that was made before all its members were finished.

    Args:
        members: Names of its members.
        waiting: Names of the unfinished members, at least one.
    """
    all_of_them = len(members) + len(waiting)
    return (
        f"so far a blend of {len(members)} of {all_of_them} members ({', '.join(members)}); "
        f"waits for {', '.join(waiting)}"
    )


def goal_of(project: ProjectFolder) -> Goal:
    """Return the objective of a project's blends."""
    return Goal.of_project(project)


def member_hashes(project: ProjectFolder, experiment: Experiment) -> dict[str, str]:
    """Return output folder of each member of an ensemble -> hash of its predictions.

    Raises:
        OutputError: A member has no predictions.
    """
    settings = EnsembleSettings.model_validate(experiment.tree["ensemble"])
    kept = ("oof_prediction_", "submission_", "oof_logit_", "test_logit_")
    found = {}
    for folder in settings.experiments:
        _, manifest = _read_inference(project, folder, settings.checkpoint)
        found[folder] = hash_value(
            {name: sha for name, sha in manifest.outputs.items() if name.startswith(kept)}
        )
    return found


def rows_of(
    project: ProjectFolder,
    members: list[Member],
    metric: Metric,
    table: pd.DataFrame,
    test: pd.DataFrame,
    with_features: bool,
) -> tuple[Rows, Rows]:
    """Return the members' predictions for the labelled images and the images to predict.

    Args:
        project: The project.
        members: The members.
        metric: What it needs: values or probabilities.
        table: The fold table.
        test: The test table.
        with_features: Also what else is known of each image: the class probabilities, where
            the predictions are none, and size and colours from ``img_info.csv``.

    Raises:
        OutputError: The metric needs probabilities and a member has none.
        DataError: ``img_info.csv`` is needed and missing.
    """
    if metric.takes_probabilities:
        for member in members:
            if member.oof_probabilities is None:
                raise OutputError(
                    f"{member.name}: has no class probabilities, which the project's metric "
                    f"{metric.title} needs; leave it out of ensemble/experiments"
                )
    found = []
    for part, ids in (("train", table), ("test", test)):
        probabilities = [
            member.oof_probabilities if part == "train" else member.test_probabilities
            for member in members
        ]
        points = [member.oof if part == "train" else member.test for member in members]
        facts = _image_facts(project, ids, part) if with_features else None
        found.append(blend_rows(metric, points, probabilities, facts))
    return replace(found[0], weights=metric_weights_of(project, table)), found[1]


def blend_rows(
    metric: Metric,
    points: Sequence[Array],
    probabilities: Sequence[Array | None],
    facts: Array | None,
) -> Rows:
    """Return the rows of a blend.

    Args:
        metric: What it needs: values or probabilities.
        points: Each member's point predictions, shape (n,).
        probabilities: Each member's class probabilities, shape (n, n_classes), None where it
            has none, which none may lack if the metric needs them.
        facts: Size and colours of the images, shape (n, 8); None leaves out all that is not a
            member's prediction.
    """
    known = [array for array in probabilities if array is not None]
    of_classes = metric.takes_probabilities
    features = np.empty((len(points[0]), 0))
    if facts is not None:
        features = np.hstack([*(() if of_classes else known), facts])
    return Rows(np.stack(known if of_classes else points), features)


def _image_facts(project: ProjectFolder, table: pd.DataFrame, data_type: str) -> Array:
    """Return size and colours of images, shape (n, 8), NaN where one could not be read."""
    column = project.settings.id_column
    # An id may be in train and in test.
    needed = ["data_type", column, *COLUMNS]
    info = read_table(
        project.data_dir / IMG_INFO, needed, column, unique=False, number_columns=COLUMNS
    )
    info = info[info["data_type"] == data_type].set_index(column)
    facts: Array = info.reindex(table[column].astype(str))[COLUMNS].to_numpy(dtype=np.float64)
    return facts


def _read_inference(
    project: ProjectFolder, folder: str, asked: Checkpoint
) -> tuple[Checkpoint, Manifest]:
    root = project.path(folder)
    checkpoint, manifest = read_inference(root, asked)
    if manifest is None:
        path = inference_manifest(root, checkpoint)
        made_here = (root / RESOLVED_CONFIG).is_file()
        task = read_resolved(project, root).globals.task if made_here else None
        again = predicting_command(task, folder, checkpoint)
        raise OutputError(f"{path}: {why_unread(path)}; run {again} first")
    return checkpoint, manifest


def task_of(project: ProjectFolder, root: Path, name: str) -> Task:
    """Return the task of predictions in an output folder, without the scales of its folds.

    Args:
        project: The project.
        root: The output folder.
        name: Name of the task, as the manifest of the predictions has it: for frozen features the
            task that the head has chosen.

    Raises:
        ConfigError: No task has this name.
    """
    there = (root / RESOLVED_CONFIG).is_file()
    settings = read_resolved(project, root).globals if there else Globals(task=name)
    return create_task(settings.model_copy(update={"task": name}), project)


def _read_member(project: ProjectFolder, folder: str, settings: EnsembleSettings) -> Member:
    root = project.path(folder)
    checkpoint, manifest = _read_inference(project, folder, settings.checkpoint)
    label = LABELS[checkpoint]
    ids = project.settings.id_column
    task = str(manifest.facts["task"])
    again = f"{making_command(manifest, folder, checkpoint)} writes it again"

    def written(name: str) -> Path:
        return verified(root / name, manifest, again)

    # The table carries the row ids and folds of the array.
    oof = read_table(written(f"oof_prediction_by_{label}.csv"), [ids, FOLD_COLUMN], ids)
    submission = written(f"submission_by_{label}.csv")
    logits = [f"{part}_logit_by_{label}.npy" for part in ("oof", "test")]
    kept = task_of(project, root, task)
    probabilities = [
        kept.probabilities(np.load(written(name), allow_pickle=False))
        if name in manifest.outputs
        else None
        for name in logits
    ]
    return Member(
        name=root.name,
        task=kept.short_name or kept.name,
        oof=project.form.of_stored(
            np.load(written(f"oof_prediction_by_{label}.npy"), allow_pickle=False)
        ),
        test=read_submission(project, submission, read_test(project)),
        oof_probabilities=probabilities[0],
        # Of every fold's model.
        test_probabilities=None if probabilities[1] is None else probabilities[1].mean(axis=0),
        folds_sha256=hash_folds(project, oof),
        test_ids_sha256=str(manifest.inputs["test ids"]),
    )
