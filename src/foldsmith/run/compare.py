"""Two finished runs beside each other, on the photos that both have predicted."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.blending.base import Goal
from foldsmith.blending.bootstrap import resampled_units
from foldsmith.blending.candidates import BASELINE
from foldsmith.blending.comparison import Honest, honest_scores
from foldsmith.config import Criterion, EnsembleSettings, Experiment
from foldsmith.config.settings import MEMBERS
from foldsmith.errors import ConfigError, OutputError
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import (
    FOLD_COLUMN,
    groups_of,
    points_of,
    read_folds,
    read_table,
    target_numbers,
)
from foldsmith.run.plan import Plan, experiment_making, plan_of_run
from foldsmith.run.state import results_of
from foldsmith.steps.checkpoint_choice import (
    LABELS,
    criterion_for,
    criterion_of,
    inference_manifest,
)
from foldsmith.steps.ensemble import CROSS_FITTED, CROSS_FITTED_PROBABILITIES
from foldsmith.steps.manifest import MANIFEST, read_manifest, verified
from foldsmith.steps.members import task_of
from foldsmith.steps.output_folder import RESOLVED_CONFIG, open_run, read_resolved, shown
from foldsmith.targets.metrics import Metric, project_metric, value_metric
from foldsmith.utils.formatting import number_text
from foldsmith.utils.hashing import FileHashes

Array = npt.NDArray[np.float64]

# Targets further apart than this share of them are different ones.
_SAME_TARGET = 1e-12


@dataclass(frozen=True)
class Predictions:
    """What a run says of the labelled photos, each predicted without having seen it.

    Attributes:
        rows: Columns id (text), fold and target, a row per photo.
        points: Point predictions, shape (n,): of an ensemble the cross-fitted ones.
        probabilities: Class probabilities, shape (n, n_classes), where there are any.
        how: What kind of score they have, for people.
        blend: The blend that an ensemble recommends; None for a single experiment.
        in_sample: Metric of the blend on the rows that it was fitted on; None for others.
    """

    rows: pd.DataFrame
    points: Array
    probabilities: Array | None
    how: str
    blend: str | None = None
    in_sample: float | None = None

    @property
    def ids(self) -> list[str]:
        """The photos."""
        return [str(value) for value in self.rows["id"]]

    @property
    def targets(self) -> Array:
        """Their targets, shape (n,)."""
        return self.rows["target"].to_numpy(dtype=np.float64)

    def judged_by(self, metric: Metric) -> Array:
        """Return what a metric judges: points, or probabilities where it needs them."""
        if metric.needs == "values":
            return self.points
        assert self.probabilities is not None, "the metric was chosen by what there is"
        return self.probabilities

    def take(self, positions: npt.NDArray[np.int64]) -> "Predictions":
        """Return those of some photos; positions have shape (k,)."""
        probabilities = self.probabilities
        return replace(
            self,
            rows=self.rows.iloc[positions],
            points=self.points[positions],
            probabilities=None if probabilities is None else probabilities[positions],
        )


@dataclass(frozen=True)
class FinishedRun:
    """A run that has predicted the labelled photos.

    Attributes:
        project: Its project.
        root: Its output folder.
        experiment: As it was run.
        predictions: What it says.
        plan: The steps behind it.
        out_of_date: Why it is not what today's tables, photos and files would give; empty if
            it is.
    """

    project: ProjectFolder
    root: Path
    experiment: Experiment
    predictions: Predictions
    plan: Plan
    out_of_date: str


@dataclass(frozen=True)
class Comparison:
    """Two runs on the photos that both have predicted.

    Attributes:
        a: The first run, which the other is compared with.
        b: The second run.
        metric: What they are compared by.
        shared: What A and B say of the n photos that both have, in the same order.
        scores: Of A and B; a gain is over A.
        by_fold: Columns fold, A, B, gain (of B over A; none where the runs' folds differ).
        constant: The metric of the same prediction for every photo.
        resampled: How many photos or groups the bootstrap drew from, in words.
    """

    a: FinishedRun
    b: FinishedRun
    metric: Metric
    shared: tuple[Predictions, Predictions]
    scores: tuple[Honest, Honest]
    by_fold: pd.DataFrame
    constant: float
    resampled: str

    @property
    def names(self) -> tuple[str, str]:
        """The runs' folders in their project, of an ensemble with the blend; for people."""
        a, b = (
            _name(run, with_project=self.a.project.folder != self.b.project.folder)
            for run in (self.a, self.b)
        )
        return a, b

    @property
    def same_folds(self) -> bool:
        """Whether every photo is in the same fold in both runs."""
        return _same_folds(*self.shared)

    @property
    def verdict(self) -> str:
        """Whether one is better, in words."""
        gain, (low, high) = self.scores[1].gain, self.scores[1].gain_interval
        if low > 0:
            return "B is better than A by more than noise"
        if high < 0:
            return "A is better than B by more than noise"
        if gain == 0:
            return "A and B are equally good"
        better, other = ("B", "A") if gain > 0 else ("A", "B")
        return f"{better} is better than {other} on these photos, but that may be noise"

    @property
    def difference(self) -> str:
        """The gain of B over A with its interval, in words."""
        gain, (low, high) = self.scores[1].gain, self.scores[1].gain_interval
        return (
            f"gain of B over A {gain:+.4f} (positive is better), 95 % of resamples of "
            f"{self.resampled} {low:+.4f} to {high:+.4f}"
        )

    @property
    def notes(self) -> list[str]:
        """What somebody should know before believing the difference."""
        found = [
            f"{letter} is out of date: {run.out_of_date}"
            for letter, run in zip("AB", (self.a, self.b), strict=True)
            if run.out_of_date
        ]
        n, n_a, n_b = (
            len(each.rows) for each in (self.shared[0], self.a.predictions, self.b.predictions)
        )
        if not n == n_a == n_b:
            found.append(f"compared on {n} shared photos (A has predicted {n_a}, B {n_b})")
        if not self.same_folds:
            found.append("the folds of A and B differ; each is scored out of its own folds")
        own = self.a.project.settings.metric
        if self.metric.name != own:
            found.append(f"compared by {self.metric.name}: one has no probabilities for {own}")
        return found


def read_finished(
    run: Path | str,
    project: Path | str | None = None,
    criterion: Criterion | None = None,
    trust: bool = False,
) -> FinishedRun:
    """Read a finished run.

    Args:
        run: Output folder of an ensemble or of one experiment.
        project: The project folder, which ``run`` is relative to then; None takes the one that
            the run lies in.
        criterion: Which snapshots of a single experiment, if it was inferred by several.
        trust: Run the Python that the project brings, if it does.

    Raises:
        ConfigError: There is no project, it brings Python that was not accepted, or the
            experiment was inferred by several criteria.
        OutputError: The folder holds no finished run.
    """
    opened, root = open_run(Path(run), project, trust)
    if not (root / RESOLVED_CONFIG).is_file():
        raise OutputError(f"{root}: holds no finished run{_remedy(opened, root)}")
    experiment = read_resolved(opened, root)
    task = experiment.globals.task
    if task == "ensemble":
        criterion = EnsembleSettings.model_validate(experiment.tree["ensemble"]).criterion
        predictions = _of_ensemble(experiment, root)
    elif task in MEMBERS:
        if any(inference_manifest(root, each).is_file() for each in LABELS):
            criterion = criterion_of(root, task, criterion)
        criterion = criterion_for(task, criterion or "metric")
        predictions = _of_experiment(experiment, root, criterion)
    else:
        raise OutputError(f"{root}: holds a {task} run, which predicts nothing to compare")
    plan = plan_of_run(opened, root, criterion)
    state = list(results_of(plan, FileHashes(opened.hash_store)).values())[-1]
    out_of_date = state.why if state.status == "stale" else f"{state.status}, {state.why}"
    if state.status == "done":
        out_of_date = ""
    return FinishedRun(opened, root, experiment, predictions, plan, out_of_date)


def compare_runs(a: FinishedRun, b: FinishedRun) -> Comparison:
    """Compare two runs by their projects' metric, paired, on the photos that both predict.

    Args:
        a: The first.
        b: The second.

    Raises:
        ConfigError: The projects are judged by different metrics, or have different classes.
        OutputError: They share no photo, or have other targets for the same ones.
    """
    metric = _common_metric(a, b)
    shared = _shared(a, b)
    judged = {name: said.judged_by(metric) for name, said in zip("AB", shared, strict=True)}
    targets, groups = shared[0].targets, _groups(a, shared[0].ids)
    seed, project = a.experiment.globals.seed, a.project
    goal = Goal(metric, project.target_range, tuple(project.class_values), project.class_names)
    scores = honest_scores(metric, judged, "A", targets, groups, seed)
    return Comparison(
        *(a, b, metric, shared),
        scores=(scores["A"], scores["B"]),
        by_fold=_by_fold(metric, shared),
        constant=goal.constant_score(targets),
        resampled=resampled_units(groups),
    )


def _name(run: FinishedRun, with_project: bool) -> str:
    folder, root = run.project.folder, run.root.resolve()
    # A linked output folder may be anywhere.
    name = str(root.relative_to(folder)) if root.is_relative_to(folder) else run.root.name
    if with_project:
        name = f"{folder.name}/{name}"
    return name + (f" ({run.predictions.blend})" if run.predictions.blend else "")


def _remedy(project: ProjectFolder, root: Path) -> str:
    """Return the command that would make a run, as the end of an error."""
    experiment = experiment_making(project, root)
    if experiment is None:
        return "; name the output folder of an ensemble or an experiment that is finished"
    return f"; 'foldsmith run -cfg {shown(experiment.file)}' makes it"


def _of_ensemble(experiment: Experiment, root: Path) -> Predictions:
    """Read the cross-fitted predictions of the blend that an ensemble recommends."""
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
    rows = _rows(project, verified(root / CROSS_FITTED, manifest), [blend])
    honest = [name for name in rows.columns if name not in _row_columns(project)]
    probabilities = None
    if CROSS_FITTED_PROBABILITIES in manifest.outputs:
        file = verified(root / CROSS_FITTED_PROBABILITIES, manifest)
        every = np.load(file, allow_pickle=False)
        probabilities = every[honest.index(blend)]
    scores = read_table(verified(root / "ensemble_scores.csv", manifest), ["name"])
    # The second column is the metric in sample, under the metric's name.
    in_sample = scores.iloc[:, 1].to_numpy(dtype=np.float64)[(scores["name"] == blend).to_numpy()]
    how = "cross-fitted"
    if blend != BASELINE:
        how += f", the best of {len(honest)} blends by that score"
    return Predictions(
        _plain(project, rows),
        *(points_of(project, rows[blend]).to_numpy(np.float64), probabilities, how, blend),
        in_sample=float(in_sample[0]),
    )


def _of_experiment(experiment: Experiment, root: Path, criterion: Criterion) -> Predictions:
    """Read the out-of-fold predictions of one experiment."""
    project, label = experiment.project, LABELS[criterion]
    manifest = read_manifest(inference_manifest(root, criterion))
    if manifest is None:
        remedy = _remedy(project, root)
        if any(inference_manifest(root, each).is_file() for each in LABELS):
            remedy = f"; 'foldsmith infer -e {shown(root)} -cri {criterion}' makes it"
        raise OutputError(f"{root}: is not finished by {criterion}{remedy}")
    table = verified(root / f"oof_prediction_by_{label}.csv", manifest)
    rows = _rows(project, table, ["prediction"])
    file = verified(root / f"oof_prediction_by_{label}.npy", manifest)
    points = np.load(file, allow_pickle=False)[:, 0]
    probabilities = None
    if f"oof_logit_by_{label}.npy" in manifest.outputs:
        file = verified(root / f"oof_logit_by_{label}.npy", manifest)
        logits = np.load(file, allow_pickle=False)
        task = task_of(project, root, str(manifest.facts["task"]))
        probabilities = task.probabilities(logits)
    how = "single experiment, out of fold"
    if experiment.globals.task != "frozen-features":
        gap = manifest.facts.get("selection_gap")
        looks = f", which may flatter it by up to {gap:.4f}" if gap and gap > 0 else ""
        how += {
            "last": ", last epochs",
            "common": f", one epoch for all folds by their mean curve{looks}",
        }.get(criterion, f", each fold's epoch chosen by its own validation {criterion}{looks}")
    return Predictions(_plain(project, rows), points.astype(np.float64), probabilities, how)


def _row_columns(project: ProjectFolder) -> list[str]:
    return [project.settings.id_column, FOLD_COLUMN, project.settings.target_column]


def _rows(project: ProjectFolder, path: Path, columns: list[str]) -> pd.DataFrame:
    """Read a table; its target as a number, also where it holds names of classes."""
    needed, ids = [*_row_columns(project), *columns], project.settings.id_column
    table = read_table(path, needed, ids, number_columns=[FOLD_COLUMN])
    return table.assign(**{project.settings.target_column: target_numbers(project, table)})


def _plain(project: ProjectFolder, rows: pd.DataFrame) -> pd.DataFrame:
    """Return id, fold and target under names that two projects share."""
    return rows[_row_columns(project)].set_axis(["id", "fold", "target"], axis=1)


def _common_metric(a: FinishedRun, b: FinishedRun) -> Metric:
    metric, other = project_metric(a.project), project_metric(b.project)
    if metric.name != other.name or (metric.of_classes and metric != other):
        files = [run.project.source_files[0] for run in (a, b)]
        what = f"{metric.name} and {other.name}" if metric.name != other.name else "other classes"
        raise ConfigError(
            f"{files[0]} and {files[1]}: metric: {what}; runs are compared by one metric of the "
            "same classes"
        )
    have_probabilities = all(run.predictions.probabilities is not None for run in (a, b))
    fallback = value_metric(a.project)
    if not have_probabilities and fallback.needs == "probabilities":
        raise OutputError(
            f"{a.root} and {b.root}: one has no class probabilities, without which classes that "
            "have no order cannot be judged"
        )
    return metric if have_probabilities else fallback


def _shared(a: FinishedRun, b: FinishedRun) -> tuple[Predictions, Predictions]:
    """Return what two runs say of the photos that both have, in the order of A."""
    at_b = pd.Index(b.predictions.ids).get_indexer(pd.Index(a.predictions.ids))
    in_both = at_b >= 0
    counts = f"{in_both.sum()} of the {len(a.predictions.rows)} and {len(b.predictions.rows)} ids"
    if not in_both.any():
        raise OutputError(
            f"{a.root} and {b.root}: {counts} are shared: these are runs of other photos, which "
            "cannot be compared"
        )
    shared = a.predictions.take(np.flatnonzero(in_both)), b.predictions.take(at_b[in_both])
    targets = [said.targets for said in shared]
    differ = ~np.isclose(targets[0], targets[1], rtol=_SAME_TARGET, atol=0)
    if differ.any():
        k = int(differ.argmax())
        raise OutputError(
            f"{a.root} and {b.root}: {counts} are shared, and {differ.sum()} of these have another "
            f"target, the first {shared[0].ids[k]} ({number_text(targets[0][k])} and "
            f"{number_text(targets[1][k])}): runs of other targets cannot be compared"
        )
    return shared


def _groups(run: FinishedRun, ids: list[str]) -> npt.NDArray[np.int64]:
    """Return the number of each photo's group, from 0 on, shape (n,)."""
    project = run.project
    table = read_folds(project, run.experiment.globals.meta_file)
    groups = pd.Series(groups_of(project, table), index=table[project.settings.id_column])
    # A photo that the table has lost since is a group of its own.
    known = groups.reindex(ids).to_numpy(dtype=np.float64)
    alone = np.isnan(known)
    known[alone] = len(groups) + np.flatnonzero(alone)
    return np.unique(known, return_inverse=True)[1].astype(np.int64)


def _same_folds(a: Predictions, b: Predictions) -> bool:
    return bool((a.rows["fold"].to_numpy() == b.rows["fold"].to_numpy()).all())


def _by_fold(metric: Metric, shared: tuple[Predictions, Predictions]) -> pd.DataFrame:
    columns = {}
    for name, said in zip("AB", shared, strict=True):
        folds, judged = said.rows["fold"].to_numpy(), said.judged_by(metric)
        columns[name] = {
            int(fold): metric(judged[folds == fold], said.targets[folds == fold])
            for fold in np.unique(folds)
        }
    table = pd.DataFrame(columns).sort_index()
    if _same_folds(*shared):
        table["gain"] = [metric.gain(b, a) for a, b in zip(table["A"], table["B"], strict=True)]
    return table.rename_axis("fold").reset_index()
