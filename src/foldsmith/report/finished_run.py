"""A finished run and its out-of-fold predictions, read from its output folder."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.blending.candidates import BASELINE
from foldsmith.config import Checkpoint, EnsembleSettings, Experiment
from foldsmith.errors import OutputError
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import (
    FOLD_COLUMN,
    read_table,
)
from foldsmith.run.plan import experiment_making, plan_of_run
from foldsmith.run.state import results_of
from foldsmith.steps.base import Plan
from foldsmith.steps.checkpoint_choice import (
    LABELS,
    checkpoint_for,
    checkpoint_of,
    inference_manifest,
)
from foldsmith.steps.ensemble import CROSS_FITTED, CROSS_FITTED_PROBABILITIES
from foldsmith.steps.kinds.registry import kind_of
from foldsmith.steps.manifest import MANIFEST, read_manifest, verified
from foldsmith.steps.members import task_of
from foldsmith.steps.output_folder import shown
from foldsmith.steps.run_records import RESOLVED_CONFIG, open_run, read_resolved
from foldsmith.steps.status import Status
from foldsmith.targets.metrics import Metric
from foldsmith.utils.hashing import FileHashes

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class OofPredictions:
    """Predictions for labelled images, each by models that were not trained on it.

    Attributes:
        rows: Columns id (text) and fold, a row per image.
        targets: Targets, shape (n,), or (n, n_labels).
        points: Point predictions, of the same shape; the cross-fitted ones of an ensemble.
        probabilities: Class probabilities, shape (n, n_classes), if the run predicts any.
        description: How they were made, for people.
        blend: The blend that an ensemble recommends; None for a single experiment.
        in_sample: Metric of the blend on the rows that it was fitted on; None for others.
    """

    rows: pd.DataFrame
    targets: Array
    points: Array
    probabilities: Array | None
    description: str
    blend: str | None = None
    in_sample: float | None = None

    @property
    def ids(self) -> list[str]:
        """Ids of the images."""
        return [str(value) for value in self.rows["id"]]

    def judged_by(self, metric: Metric) -> Array:
        """Return the array that a metric needs: points or probabilities."""
        if not metric.takes_probabilities:
            return self.points
        assert self.probabilities is not None, "the metric was chosen by the available predictions"
        return self.probabilities

    def take(self, positions: npt.NDArray[np.int64]) -> "OofPredictions":
        """Return the predictions at some positions, shape (k,)."""
        probabilities = self.probabilities
        return replace(
            self,
            rows=self.rows.iloc[positions],
            targets=self.targets[positions],
            points=self.points[positions],
            probabilities=None if probabilities is None else probabilities[positions],
        )


@dataclass(frozen=True)
class FinishedRun:
    """A finished run with predictions for the labelled images.

    Attributes:
        project: Its project.
        root: Its output folder.
        experiment: The experiment as it was run.
        predictions: Its out-of-fold predictions.
        plan: The steps that made it.
        out_of_date: Difference from today's tables, images and files; empty if there is none.
    """

    project: ProjectFolder
    root: Path
    experiment: Experiment
    predictions: OofPredictions
    plan: Plan
    out_of_date: str


def read_finished(
    run: Path | str,
    project: Path | str | None = None,
    checkpoint: Checkpoint | None = None,
    trust: bool = False,
) -> FinishedRun:
    """Read a finished run.

    Args:
        run: Output folder of an ensemble or of one experiment.
        project: The project folder, which ``run`` is relative to then; None takes the one that
            the run lies in.
        checkpoint: Which snapshots of a single experiment, if it was inferred by several.
        trust: Run the Python that the project brings, if it does.

    Raises:
        ConfigError: There is no project, it brings Python that was not accepted, or the
            experiment was inferred by several checkpoints.
        OutputError: The folder holds no finished run, or one of other labels.
    """
    opened, root = open_run(Path(run), project, trust)
    if not (root / RESOLVED_CONFIG).is_file():
        raise OutputError(f"{root}: holds no finished run{_remedy(opened, root)}")
    experiment = read_resolved(opened, root)
    kind, task = kind_of(experiment), experiment.globals.task
    if kind.gathers:
        checkpoint = EnsembleSettings.model_validate(experiment.tree["ensemble"]).checkpoint
        predictions = ensemble_predictions(experiment, root)
    elif kind.predicts:
        if any(inference_manifest(root, each).is_file() for each in LABELS):
            checkpoint = checkpoint_of(root, task, checkpoint)
        checkpoint = checkpoint_for(task, checkpoint or "metric")
        predictions = _of_experiment(experiment, root, checkpoint)
    else:
        raise OutputError(f"{root}: a {task} run has no predictions to compare")
    if predictions.points.shape[1:] != opened.form.extremes.shape[1:]:
        raise OutputError(
            f"{root}: was made for other labels than those of {opened.source_files[0]}"
            f"{_remedy(opened, root)}"
        )
    plan = plan_of_run(opened, root, checkpoint)
    state = list(results_of(plan, FileHashes(opened.hash_store)).values())[-1]
    out_of_date = state.why if state.status == Status.STALE else f"{state.status}, {state.why}"
    if state.is_done:
        out_of_date = ""
    return FinishedRun(opened, root, experiment, predictions, plan, out_of_date)


def _remedy(project: ProjectFolder, root: Path) -> str:
    """Return the end of an error: the command that makes the run."""
    experiment = experiment_making(project, root)
    if experiment is None:
        return "; name the output folder of an ensemble or an experiment that is finished"
    return f"; 'foldsmith run -cfg {shown(experiment.file)}' makes it"


def ensemble_predictions(experiment: Experiment, root: Path) -> OofPredictions:
    """Return the cross-fitted predictions of the blend that an ensemble recommends.

    Args:
        experiment: The ensemble as it was run.
        root: Its output folder.

    Raises:
        OutputError: It is not finished, or has kept no such predictions.
    """
    project = experiment.project
    manifest = read_manifest(root / MANIFEST)
    if manifest is None:
        raise OutputError(f"{root}: is not finished{_remedy(project, root)}")
    if CROSS_FITTED not in manifest.outputs:
        made = experiment_making(project, root)
        config = shown(made.file if made is not None else root / RESOLVED_CONFIG)
        raise OutputError(
            f"{root}: has no {CROSS_FITTED}, from before ensembles kept it; "
            f"'foldsmith ensemble -cfg {config} -f' blends again"
        )
    blend = str(manifest.facts["submit"])
    rows = _rows(
        project, verified(root / CROSS_FITTED, manifest), list(project.form.names_of(blend))
    )
    each = len(project.form.names_of(blend))
    honest = [name for name in rows.columns if name not in _row_columns(project)][::each]
    probabilities, points = None, project.form.of_table(rows, blend)
    if CROSS_FITTED_PROBABILITIES in manifest.outputs:
        file = verified(root / CROSS_FITTED_PROBABILITIES, manifest)
        every = np.load(file, allow_pickle=False)
        probabilities = every[honest.index(project.form.names_of(blend)[0])]
        if project.form.of_probabilities:
            points = probabilities
    scores = read_table(verified(root / "ensemble_scores.csv", manifest), ["name"])
    # The second column is the metric in sample, under the metric's name.
    in_sample = scores.iloc[:, 1].to_numpy(dtype=np.float64)[(scores["name"] == blend).to_numpy()]
    description = "cross-fitted"
    if blend != BASELINE:
        description += f", the best of {len(honest)} blends by that score"
    return OofPredictions(
        _plain(project, rows),
        project.form.read(rows),
        *(points, probabilities, description, blend),
        in_sample=float(in_sample[0]),
    )


def _of_experiment(experiment: Experiment, root: Path, checkpoint: Checkpoint) -> OofPredictions:
    """Read the out-of-fold predictions of one experiment."""
    project, label = experiment.project, LABELS[checkpoint]
    manifest = read_manifest(inference_manifest(root, checkpoint))
    if manifest is None:
        remedy = _remedy(project, root)
        if any(inference_manifest(root, each).is_file() for each in LABELS):
            remedy = f"; 'foldsmith infer -e {shown(root)} -cri {checkpoint}' makes it"
        raise OutputError(f"{root}: is not finished by {checkpoint}{remedy}")
    table = verified(root / f"oof_prediction_by_{label}.csv", manifest)
    rows = _rows(project, table, list(project.form.names_of("prediction")))
    file = verified(root / f"oof_prediction_by_{label}.npy", manifest)
    points = project.form.of_stored(np.load(file, allow_pickle=False))
    probabilities = None
    if f"oof_logit_by_{label}.npy" in manifest.outputs:
        file = verified(root / f"oof_logit_by_{label}.npy", manifest)
        logits = np.load(file, allow_pickle=False)
        task = task_of(project, root, str(manifest.facts["task"]))
        probabilities = task.probabilities(logits)
    description = "single experiment, out of fold"
    if manifest.facts.get("chooses_epochs", True):
        gap = manifest.facts.get("selection_gap")
        looks = f", which may flatter it by up to {gap:.4f}" if gap and gap > 0 else ""
        description += {
            "last": ", last epochs",
            "common": f", one epoch for all folds by their mean curve{looks}",
        }.get(checkpoint, f", each fold's epoch chosen by its own validation {checkpoint}{looks}")
    return OofPredictions(
        _plain(project, rows),
        project.form.read(rows),
        *(points.astype(np.float64), probabilities, description),
    )


def _row_columns(project: ProjectFolder) -> list[str]:
    return [project.settings.id_column, FOLD_COLUMN, *project.form.columns]


def _rows(project: ProjectFolder, path: Path, columns: list[str]) -> pd.DataFrame:
    """Read a table with its targets, as texts."""
    needed, ids = [*_row_columns(project), *columns], project.settings.id_column
    return read_table(path, needed, ids, number_columns=[FOLD_COLUMN])


def _plain(project: ProjectFolder, rows: pd.DataFrame) -> pd.DataFrame:
    """Return id and fold under names that two projects share."""
    return rows[[project.settings.id_column, FOLD_COLUMN]].set_axis(["id", "fold"], axis=1)
