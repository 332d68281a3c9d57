"""Results of an experiment's finished steps, as tables and figures."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.blending.bootstrap import bootstrap, interval
from foldsmith.config import Checkpoint, EnsembleSettings
from foldsmith.errors import OutputError
from foldsmith.project.submission import read_submission
from foldsmith.project.tables import (
    FOLD_COLUMN,
    groups_of,
    metric_weights_of,
    read_folds,
    read_table,
    read_test,
    targets_of,
)
from foldsmith.report import figures
from foldsmith.steps.base import Plan, Step
from foldsmith.steps.checkpoint_choice import LABELS, inference_manifest
from foldsmith.steps.ensemble import CROSS_FITTED
from foldsmith.steps.manifest import MANIFEST, Manifest, read_manifest, verified, why_unread
from foldsmith.steps.members import Member, member_hashes, read_members
from foldsmith.targets.metrics import Metric
from foldsmith.training.files import entries_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]

# Values in the learning curves of a fine-tuning.
_CURVES = ("train/loss", "val/loss", "val/metric")

# The columns of Results.scores, and those of ensemble_scores.csv among them.
_SCORES = (
    *("name", "kind", "fold", "epoch", "in_sample", "cross_fitted", "low", "high"),
    *("gain", "gain_low", "gain_high", "submit"),
)


class Results:
    """Results of an experiment, read from its output folder on access.

    The numbers are those of the last run that finished, which may have had another configuration
    than today's: :func:`foldsmith.run.status` knows. Other folds, test images or predictions
    of members than today's are an error.

    Args:
        plan: The experiment's plan.
        name: Name of the experiment: the name of its file without the suffix.

    Attributes:
        name: Name of the experiment.
        folder: Its output folder.
    """

    def __init__(self, plan: Plan, name: str) -> None:
        self._plan = plan
        self._project = plan.project
        # The last of an experiment's steps is the one that the others lead to.
        self._step = [step for step in plan.steps if step.name == name][-1]
        assert self._step.experiment is not None
        self._experiment = self._step.experiment
        self.name = name
        self.folder = self._step.folder

    def __repr__(self) -> str:
        return f"<Results of {self.name} in {self.folder}>"

    @property
    def members(self) -> "dict[str, Results]":
        """The results of each member of an ensemble, by name; empty for other experiments."""
        if not self._is_ensemble:
            return {}
        steps = {step.label: step for step in self._plan.steps}
        names = [steps[label].name for label in self._step.needs]
        return {name: Results(self._plan, name) for name in names}

    @property
    def scores(self) -> pd.DataFrame:
        """Scores by the project's metric, on rows that were not used for fitting.

        A row per fold, then one of all folds together (the kind ``member``); of an ensemble a
        row per member, then one per blend. (RMSE where the metric is of probabilities and an
        experiment gives none.)

        Columns: name; kind (``fold``, ``member`` or ``blend``); fold; epoch of the fold's
        snapshot; in_sample (blends only), on the rows that they were fitted on; cross_fitted, on
        other rows; low and high, where 95 % of resamples by group lie; gain over the plain mean
        with gain_low and gain_high, positive is better; submit, of the recommended blend.

        Raises:
            OutputError: The experiment is not finished, or predicts nothing.
        """
        self._finished()
        table, targets, folds = self._truth()
        groups, seed = groups_of(self._project, table), self._experiment.globals.seed
        weights = metric_weights_of(self._project, table)
        rows: list[dict[str, Any]] = []
        for member in self._read_members():
            metric, predicted = self._judged(member)
            if not self._is_ensemble:
                rows += self._fold_scores(metric, predicted, targets, folds, weights)
            drawn = bootstrap(metric, {member.name: predicted}, targets, groups, seed, weights)
            low, high = interval(drawn[member.name])
            row = {"name": member.name, "kind": "member", "low": low, "high": high}
            rows.append(row | {"cross_fitted": metric(predicted, targets, weights)})
        frame = pd.DataFrame(rows)
        if self._is_ensemble:
            blends = blend_scores(self.folder).assign(kind="blend")
            frame = pd.concat([frame, blends], ignore_index=True)
        frame = frame.reindex(columns=list(_SCORES))
        return frame.astype({"fold": "Int64", "epoch": "Int64", "submit": "boolean"})

    def _fold_scores(
        self,
        metric: Metric,
        predicted: Array,
        targets: Array,
        folds: npt.NDArray[np.int64],
        weights: Array | None,
    ) -> list[dict[str, Any]]:
        """Return a row of :attr:`scores` for each fold."""
        epochs = self._epochs()

        def score(held: npt.NDArray[np.bool_]) -> float:
            of_fold = None if weights is None else weights[held]
            return metric(predicted[held], targets[held], of_fold)

        return [
            {
                "name": f"fold {fold}",
                "kind": "fold",
                "fold": fold,
                "epoch": epochs.get(str(fold)),
                "cross_fitted": score(folds == fold),
            }
            for fold in np.unique(folds)
        ]

    @property
    def oof(self) -> pd.DataFrame:
        """Out-of-fold predictions of the labelled images.

        Columns: id, target, fold, prediction. For an ensemble it is that of the recommended blend,
        its weights fitted on the other folds, and there is a column per member.

        Raises:
            OutputError: The experiment is not finished, or predicts nothing.
        """
        self._finished()
        table, targets, folds = self._truth()
        members = self._read_members()
        ids = table[self._project.settings.id_column].astype(str)
        table_of = self._project.form.table_of
        frame = pd.DataFrame({"id": ids, **table_of("target", targets), "fold": folds})
        if not self._is_ensemble:
            return frame.assign(**table_of("prediction", members[0].oof))
        frame = frame.assign(**table_of("prediction", self._blended()))
        return _beside(frame, _together(table_of(m.name, m.oof) for m in members))

    @property
    def predictions(self) -> pd.DataFrame:
        """Predictions of the images to predict, as they are submitted.

        Columns: id, prediction; of an ensemble also one per member.

        Raises:
            OutputError: The experiment is not finished, or predicts nothing.
        """
        self._finished()
        members = self._read_members()
        test = read_test(self._project)
        ids = test[self._project.settings.id_column].astype(str)
        frame = pd.DataFrame({"id": ids})
        table_of = self._project.form.table_of
        if not self._is_ensemble:
            return frame.assign(**table_of("prediction", members[0].test))
        file = verified(self.folder / "submission.csv", self._finished())
        predicted = table_of("prediction", read_submission(self._project, file, test))
        of_members = _together(table_of(one.name, one.test) for one in members)
        return _beside(frame.assign(**predicted), of_members)

    @property
    def log(self) -> pd.DataFrame:
        """Log of the trainings: a row per experiment, fold and epoch.

        Columns: experiment, fold (none for a pretraining), epoch, train/loss, val/metric, ... Of
        an ensemble the trainings of all its members, and their pretrainings. Empty where
        nothing was trained yet; also there while a training runs.
        """
        rows = [
            {"experiment": step.name, "fold": step.fold} | entry
            for step in self._trainings()
            for entry in entries_of(step.folder)
        ]
        frame = pd.DataFrame(rows)
        if frame.empty:
            return pd.DataFrame(columns=["experiment", "fold", "epoch"])
        first = ["experiment", "fold", "epoch"]
        others = [name for name in frame if name not in first]
        return frame[first + others].astype({"fold": "Int64", "epoch": int})

    def plot_learning_curves(self, keys: Sequence[str] | None = None) -> "Figure":
        """Draw the logged values over the epochs.

        A line per fold; of an ensemble a line per member, the mean of its folds.

        Args:
            keys: Columns of :attr:`log`, a panel each; None takes losses and metric, of a
                pretraining loss, spread of the features and learning rate.

        Raises:
            OutputError: Nothing was trained.
        """
        log = self.log
        pretraining = bool(self._step.epochs)
        usual = ("train/loss", "train/std", "lr") if pretraining else _CURVES
        shown = [key for key in (usual if keys is None else keys) if key in log]
        if not shown:
            raise OutputError(f"{self.name}: nothing was logged yet")
        if not pretraining:
            log = log[log["fold"].notna()]
        logs: dict[str, Sequence[Mapping[str, Any]]] = {}
        if self._is_ensemble:
            for name, of_member in log.groupby("experiment", sort=False):
                means = of_member.groupby("epoch")[shown].mean().reset_index()
                logs[str(name)] = _records(means)
        else:
            for fold, of_fold in log.groupby("fold", dropna=False, sort=False):
                logs[self.name if pretraining else f"fold {fold!s}"] = _records(of_fold)
        return figures.curves(logs, shown)

    def plot_predicted_against_true(self) -> "Figure":
        """Draw the out-of-fold predictions over the targets."""
        return figures.predicted_against_true(*self._points())

    def plot_confusion(self) -> "Figure":
        """Draw how often which class is predicted as which, out of fold, in rounded values."""
        return figures.confusion(*self._points(), self._project.class_names)

    def plot_scores(self) -> "Figure":
        """Draw the scores: of each fold, or of an ensemble's blends with their intervals."""
        self._finished()
        if self._is_ensemble:
            scores = blend_scores(self.folder).dropna(subset=["cross_fitted"])
            return figures.with_intervals(scores, self._project.metric.title)
        scores = self.scores
        metric, _ = self._judged(self._read_members()[0])
        of_folds = scores[scores["kind"] == "fold"].assign(metric=scores["cross_fitted"])
        return figures.by_fold(of_folds, float(scores["cross_fitted"].iloc[-1]), metric.title)

    @property
    def _is_ensemble(self) -> bool:
        return self._step.kind.gathers

    @property
    def _checkpoint(self) -> Checkpoint:
        """How the snapshots were chosen: as the plan has it, or as there was an inference."""
        wanted = self._step.checkpoint
        for checkpoint in (wanted, *LABELS):
            if inference_manifest(self.folder, checkpoint).is_file():
                return checkpoint
        return wanted

    def _finished(self) -> Manifest:
        """Return the manifest of the last step."""
        if not (self._step.kind.predicts or self._step.kind.gathers):
            raise OutputError(
                f"{self.name}: its last step is '{self._step.label}', which predicts nothing"
            )
        path = self.folder / MANIFEST
        if not self._is_ensemble:
            path = inference_manifest(self.folder, self._checkpoint)
        manifest = read_manifest(path)
        if manifest is None:
            raise OutputError(f"{path}: {why_unread(path)}; run {self.name} first")
        if self._is_ensemble:
            predictions = member_hashes(self._project, self._experiment)
            if manifest.inputs["predictions"] != predictions:
                raise OutputError(
                    f"{self.folder}: has blended other predictions than those of its experiments "
                    f"now; run {self.name} again"
                )
        return manifest

    def _truth(self) -> tuple[pd.DataFrame, Array, npt.NDArray[np.int64]]:
        """Return the fold table, and target and fold of each row."""
        table = read_folds(self._project, self._experiment.globals.meta_file)
        folds = table[FOLD_COLUMN].to_numpy(dtype=np.int64)
        return table, targets_of(self._project, table), folds

    def _settings(self) -> EnsembleSettings:
        if self._is_ensemble:
            return EnsembleSettings.model_validate(self._experiment.tree["ensemble"])
        # An experiment that stands for itself.
        return EnsembleSettings(experiments=[str(self.folder)], checkpoint=self._checkpoint)

    def _read_members(self) -> list[Member]:
        table = read_folds(self._project, self._experiment.globals.meta_file)
        return read_members(self._project, self._settings(), table, read_test(self._project))

    def _judged(self, member: Member) -> tuple[Metric, Array]:
        """Return the metric that can judge a member, and the predictions for it."""
        metric = self._project.metric
        if metric.takes_probabilities and member.oof_probabilities is not None:
            return metric, member.oof_probabilities
        return metric.for_points(), member.oof.astype(np.float64)

    def _blended(self) -> Array:
        """Return the cross-fitted predictions of the recommended blend."""
        manifest = self._finished()
        submitted = str(manifest.facts["submit"])
        kept = read_table(verified(self.folder / CROSS_FITTED, manifest), [])
        if not set(self._project.form.names_of(submitted)) <= set(kept.columns):
            raise OutputError(f"{self.folder}: {submitted} was not cross-fitted")
        return self._project.form.of_table(kept, submitted)

    def _epochs(self) -> dict[str, int]:
        """Return the epoch of each fold's snapshot; nothing where nothing is trained."""
        file = self.folder / f"score_by_{LABELS[self._checkpoint]}.csv"
        scores = pd.read_csv(verified(file, self._finished()))
        known = scores.dropna(subset=["epoch"])
        return dict(zip(known["fold"].astype(str), known["epoch"].astype(int), strict=True))

    def _trainings(self) -> list[Step]:
        trainings = [step for step in self._plan.steps if step.epochs]
        if self._is_ensemble:
            return trainings
        return [step for step in trainings if step.name == self.name]

    def _points(self) -> tuple[Array, Array, Sequence[float]]:
        """Return targets, out-of-fold predictions and class values, all as numbers."""
        self._finished()
        if problem := self._project.form.figures_problem:
            raise OutputError(f"{self.folder}: {problem}; the report has a table of them")
        _, targets, _ = self._truth()
        predicted = self._blended() if self._is_ensemble else self._read_members()[0].oof
        return targets, predicted.astype(np.float64), self._project.class_values


def _together(
    tables: Iterable[Mapping[str, npt.NDArray[Any]]],
) -> dict[str, npt.NDArray[Any]]:
    return {name: values for table in tables for name, values in table.items()}


def _beside(frame: pd.DataFrame, of_members: Mapping[str, npt.NDArray[Any]]) -> pd.DataFrame:
    """Return a frame with a column per member, whose name no other column has."""
    columns = {}
    for name, values in of_members.items():
        while name in frame:
            name = f"member {name}"
        columns[name] = values
    return frame.assign(**columns)


def blend_scores(folder: Path) -> pd.DataFrame:
    """Return the table of an ensemble's blends, its metric in sample as ``in_sample``.

    Raises:
        OutputError: The ensemble is not finished, or its table was changed.
    """
    manifest = read_manifest(folder / MANIFEST)
    if manifest is None:
        raise OutputError(f"{folder}: holds no finished ensemble; run it first")
    scores = pd.read_csv(verified(folder / "ensemble_scores.csv", manifest))
    # The second column is the metric in sample, under the metric's name.
    return scores.rename(columns={scores.columns[1]: "in_sample"})


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row per entry, without missing values."""
    return [
        {str(key): value for key, value in row.items() if pd.notna(value)}
        for row in frame.to_dict("records")
    ]
