"""Stage 5: blending finished experiments."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.blending.base import Constant, FittedWeights, Goal, Rows
from foldsmith.blending.bootstrap import resampled_units
from foldsmith.blending.candidates import BASELINE, OPTIMISED, candidates_of
from foldsmith.blending.comparison import (
    MEAN_OF_BEST,
    Candidate,
    ComparedBlend,
    compare,
    recommend,
)
from foldsmith.blending.methods import (
    COMPLEXITY_OF_CONSTANT,
    STACK,
    how_optimised,
    with_fewer_trials,
)
from foldsmith.config import EnsembleSettings, Experiment
from foldsmith.config.check import check_experiment
from foldsmith.config.output_path import check_output
from foldsmith.errors import ConfigError, DataError, one_line
from foldsmith.models.fitted_arrays import Arrays, prefixed, write_arrays
from foldsmith.project import ProjectFolder
from foldsmith.project.submission import submission_table
from foldsmith.project.tables import (
    FOLD_COLUMN,
    groups_of,
    read_folds,
    read_test,
    readable_test,
    targets_of,
)
from foldsmith.steps.baselines import ScoresToBeat, scores_to_beat, simple_baselines
from foldsmith.steps.inputs.ensemble import ensemble_inputs
from foldsmith.steps.manifest import MANIFEST
from foldsmith.steps.members import (
    Member,
    goal_of,
    member_hashes,
    read_members,
    rows_of,
    so_far,
)
from foldsmith.steps.output_folder import refuse_existing, shown
from foldsmith.steps.predictions import for_unreadable
from foldsmith.steps.run_records import RESOLVED_CONFIG, save_sources
from foldsmith.steps.step_run import StepRun, held
from foldsmith.targets.metrics import Metric
from foldsmith.utils.atomic import write_csv, write_npy
from foldsmith.utils.owned_files import OwnedFiles

logger = logging.getLogger(__name__)

Array = npt.NDArray[np.float64]

# All that the fitted blends know, by their names.
BLENDS = "blends.safetensors"
PROBABILITIES = "probabilities.csv"
ENSEMBLE_SCORES = "ensemble_scores.csv"
# Id, fold, target, and a column of cross-fitted predictions per blend that has them; for a metric
# of probabilities also those, shape (n_blends, n_train, n_classes), in the order of the columns.
CROSS_FITTED = "cross_fitted_predictions.csv"
CROSS_FITTED_PROBABILITIES = "cross_fitted_probabilities.npy"


def ensemble(
    project: ProjectFolder, config: Path | str, overrides: Sequence[str] = (), force: bool = False
) -> pd.DataFrame:
    """Blend experiments in several ways, and say which one to submit.

    Writes the submissions ``avg_cls``, ``avg_reg`` (averages of one task's members),
    ``avg_all``, ``weight_optimization_all``, one of each further method and ``mean_of_best`` (of
    the blends within noise of the best, if there are several), ``submission.csv`` (the
    recommended one; where class probabilities are judged, these are in
    ``probabilities.csv``), ``weights.csv``, ``ensemble_scores.csv`` and ``blends.safetensors``
    (the fitted blends, for new images). Beside its score on the
    rows that it was fitted on, each blend gets a cross-fitted one: see
    :func:`~foldsmith.blending.comparison.compare`.

    Args:
        project: The project.
        config: Ensemble file, relative to the project folder.
        overrides: ``PATH=VALUE`` each.
        force: Allow an existing output folder.

    Returns:
        The scores by the project's metric. Columns: name; the metric's name in lower case (out
        of fold, in sample); cross_fitted, low, high (its 95 % interval); gain, gain_low,
        gain_high (over the plain mean, positive is better); beats_mean; submit. Empty where
        nothing was cross-fitted.

    Raises:
        ConfigError: The file is wrong or no ensemble.
        OutputError: An experiment has no predictions, or experiments do not fit together.
    """
    return ensemble_experiment(Experiment.load(project, Path(config), overrides), force)


def ensemble_experiment(
    experiment: Experiment, force: bool, waiting: Sequence[str] = ()
) -> pd.DataFrame:
    """Blend the members that an experiment lists; as :func:`ensemble`.

    Args:
        experiment: The ensemble.
        force: As for :func:`ensemble`.
        waiting: Names of unfinished members, which ``experiment`` does not list. The manifest
            names them beside the blended ones.
    """
    run = StepRun.of(experiment.project)
    folder = _checked_folder(experiment, run, force)
    settings = EnsembleSettings.model_validate(experiment.tree["ensemble"])
    data = _read(experiment, settings)
    inputs = ensemble_inputs(experiment, member_hashes(run.project, experiment), run.hashes)
    if not force:
        refuse_existing(folder, resumable=False)
    blends = _blend(experiment, settings, data)
    to_beat = _to_beat(run, data, blends)
    tables = _tables_of(data, blends)
    with held(folder):
        outputs = _write(experiment, run, folder, data, blends, tables)
        run.finish(
            folder / MANIFEST,
            f"ensemble {experiment.globals.output_path}",
            inputs,
            outputs,
            members=[member.name for member in data.members],
            waiting=list(waiting),
            seed=experiment.globals.seed,
            submit=blends.chosen,
            reason=blends.reason,
            member_scores=data.scores[1:],
            constant=data.scores[0],
            worse_than_constant=data.useless,
            to_beat=None if to_beat is None else to_beat.facts(),
        )
    _print_members(data)
    _print_blends(blends.compared, data.goal.metric, data.groups, settings)
    _print_end(folder, settings, data, blends, waiting)
    if to_beat is not None:
        logger.info(to_beat.sentence)
        # An unfinished member may still win.
        if to_beat.warning and not waiting:
            logger.warning(to_beat.warning)
    return tables[ENSEMBLE_SCORES]


@dataclass(frozen=True)
class _Data:
    """The rows that are blended, and the rows that are predicted.

    Attributes:
        project: The project.
        goal: Objective of the blends.
        members: The members.
        table: The fold table.
        test: The test table.
        rows: Predictions of the members for the fold table.
        test_rows: Predictions of the members for the test table.
        targets: Target of each row of the fold table, shape (n_train,).
        folds: Its fold, shape (n_train,).
        groups: Its group, shape (n_train,).
        useful: Members that are better than a constant prediction, bool, shape (n_members,).
    """

    project: ProjectFolder
    goal: Goal
    members: list[Member]
    table: pd.DataFrame
    test: pd.DataFrame
    rows: Rows
    test_rows: Rows
    targets: Array
    folds: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    useful: npt.NDArray[np.bool_]

    @property
    def useless(self) -> list[str]:
        """Names of the members that are no better than a constant prediction."""
        return [m.name for m, use in zip(self.members, self.useful, strict=True) if not use]

    @property
    def scores(self) -> list[float]:
        """Metric of the same prediction for every image, and of each member out of fold."""
        truth = self.targets, self.rows.weights
        members = [self.goal.metric(one, *truth) for one in self.rows.predictions]
        return [self.goal.constant_score(*truth), *members]

    @cached_property
    def unreadable(self) -> npt.NDArray[np.int64]:
        """Rows of the test table whose images cannot be read."""
        return np.setdiff1d(np.arange(len(self.test)), readable_test(self.project, self.test))

    @property
    def columns(self) -> list[str]:
        """Columns of the fold table that tables of predictions begin with: id, fold, target."""
        settings = self.project.settings
        return [settings.id_column, FOLD_COLUMN, *self.project.form.columns]


@dataclass(frozen=True)
class _Blends:
    """All blends, fitted and compared.

    Attributes:
        compared: The blends.
        chosen: Name of the recommended one.
        reason: Why, in a sentence.
    """

    compared: list[ComparedBlend]
    chosen: str
    reason: str

    @property
    def cross_fitted(self) -> dict[str, Array]:
        """Name of each blend that was cross-fitted -> its predictions."""
        return {c.name: c.cross_fitted for c in self.compared if c.cross_fitted is not None}

    @property
    def weights(self) -> dict[str, Array]:
        """Name of each blend that is a weighted sum -> weights of the members."""
        fitted = {result.name: result.fitted for result in self.compared}
        return {name: f.weights for name, f in fitted.items() if isinstance(f, FittedWeights)}


def _checked_folder(experiment: Experiment, run: StepRun, force: bool) -> Path:
    """Check an ensemble; return its output folder."""
    if experiment.globals.task != "ensemble":
        raise ConfigError(f"{experiment.file}: globals/task is {experiment.globals.task}")
    if experiment.globals.output_path is None:
        raise ConfigError(f"{experiment.file}: globals/output_path is missing")
    check_experiment(experiment, run.types)
    check_output(experiment, force)
    return run.project.path(experiment.globals.output_path)


def _read(experiment: Experiment, settings: EnsembleSettings) -> _Data:
    """Read the tables and the predictions of the members."""
    project = experiment.project
    table, test = read_folds(project, experiment.globals.meta_file), read_test(project)
    members = read_members(project, settings, table, test)
    goal = replace(goal_of(project), raw=experiment.globals.target_scale == "none")
    parts = project, members, goal.metric, table, test
    rows, test_rows = rows_of(*parts, with_features=STACK in settings.methods)
    targets, groups = targets_of(project, table), groups_of(project, table)
    folds = table[FOLD_COLUMN].to_numpy(dtype=np.int64)
    useful = goal.useful(rows.predictions, targets, rows.weights)
    return _Data(
        *(project, goal, members, table, test, rows, test_rows, targets, folds, groups, useful)
    )


def _blend(experiment: Experiment, settings: EnsembleSettings, data: _Data) -> _Blends:
    """Fit and cross-fit every blend, and choose one.

    Raises:
        ConfigError: A column of the tables has the name of a blend.
    """
    goal, seed = data.goal, experiment.globals.seed
    candidates = candidates_of([member.task for member in data.members], settings, goal, seed)
    if not data.useful.any():
        constant = Constant(goal)
        candidates.append(Candidate(constant.name, constant, constant, COMPLEXITY_OF_CONSTANT))
    names = {MEAN_OF_BEST, *(candidate.name for candidate in candidates)}
    for name in names & set(data.columns):
        raise ConfigError(
            f"{data.project.source_files[0]}: the column {name} is called like a blend; rename it "
            "in the tables"
        )
    compared = compare(
        *(candidates, BASELINE, goal, data.rows, data.targets, data.folds, data.groups, seed)
    )
    chosen, reason = recommend(compared, BASELINE, goal.metric)
    reason += _about_useless(data)
    return _Blends(compared, chosen, reason)


def _to_beat(run: StepRun, data: _Data, blends: _Blends) -> ScoresToBeat | None:
    """Compare the recommended blend with simple baselines; None if an image is gone."""
    try:
        baselines = simple_baselines(data.project, data.table, run.hashes)
    except DataError as error:
        logger.warning(f"no simple baselines to compare with: {one_line(error)}")
        return None
    predicted = blends.cross_fitted[blends.chosen]
    return scores_to_beat(data.goal, baselines, predicted, data.targets, data.rows.weights)


def _tables_of(data: _Data, blends: _Blends) -> dict[str, pd.DataFrame]:
    """Return the tables that are written, by file name."""
    project, goal = data.project, data.goal
    tables: dict[str, pd.DataFrame] = {}
    for result in blends.compared:
        blended = _blended(result, data)
        prediction = goal.metric.as_judged(goal.points(blended))
        probabilities = blended if goal.metric.takes_probabilities else None
        submission = submission_table(project, data.test, prediction, probabilities)
        tables[_submission_file(result.name)] = submission
        if result.name == blends.chosen:
            tables["submission.csv"] = submission
            if goal.metric.takes_probabilities:
                tables[PROBABILITIES] = _probability_table(data, blended)
    names = [member.name for member in data.members]
    tables["weights.csv"] = pd.DataFrame({"experiment": names} | blends.weights)
    tables[ENSEMBLE_SCORES] = _score_table(blends.compared, blends.chosen, goal.metric)
    tables[CROSS_FITTED] = data.table[data.columns].assign(
        **{
            column: values
            for name, predicted in blends.cross_fitted.items()
            for column, values in project.form.table_of(name, goal.points(predicted)).items()
        }
    )
    return tables


def _write(
    experiment: Experiment,
    run: StepRun,
    folder: Path,
    data: _Data,
    blends: _Blends,
    tables: dict[str, pd.DataFrame],
) -> list[Path]:
    """Replace the outputs of an earlier run; return the outputs for the manifest."""
    arrays: Arrays = {}
    for result in blends.compared:
        arrays |= prefixed(result.name, result.fitted.arrays())
    of_probabilities = data.goal.metric.takes_probabilities
    also = [BLENDS, *([CROSS_FITTED_PROBABILITIES] if of_probabilities else [])]
    folder.mkdir(parents=True, exist_ok=True)
    owned = OwnedFiles(folder)
    run.begin_writing(owned, MANIFEST, [*tables, *also], "ensemble")
    sources = [path.relative_to(folder) for path in save_sources(folder, experiment, "ensemble")]
    owned.remove(set(owned.of()) - {MANIFEST, *tables, *also, *map(str, sources)})
    for name, table in tables.items():
        write_csv(folder / name, table)
    write_arrays(folder / BLENDS, arrays)
    if of_probabilities:
        probabilities = np.stack(list(blends.cross_fitted.values()))
        write_npy(folder / CROSS_FITTED_PROBABILITIES, probabilities)
    return [folder / name for name in (*tables, RESOLVED_CONFIG, *also)]


def _probability_table(data: _Data, blended: Array) -> pd.DataFrame:
    """Return the id of each test row and the probability of each class."""
    ids = data.test[[data.project.settings.id_column]].reset_index(drop=True)
    labels = _class_columns(data.project.settings.id_column, data.goal.labels)
    return pd.concat([ids, pd.DataFrame(blended, columns=labels)], axis=1)


def _class_columns(id_column: str, labels: Sequence[str]) -> list[str]:
    """Return the columns of the class probabilities: the classes' names.

    Where one of these is the name of the id column, all are called as in predictions of new
    images, ``probability_NAME``.
    """
    columns = list(labels)
    while id_column in columns:
        columns = [f"probability_{name}" for name in columns]
    return columns


def _about_useless(data: _Data) -> str:
    """Return which members are worse than the constant, as the end of a sentence."""
    if not data.useless:
        return ""
    judge = data.goal.form.screened_by(data.goal.metric)
    score = replace(data.goal, metric=judge).constant_score(data.targets, data.rows.weights)
    constant = f"the constant ({judge.title} {score:.4f})"
    if len(data.useless) == len(data.members):
        return f"; no member is better than {constant}: do not expect anything of this submission"
    return f"; worse than {constant}, and so without a say in the blends: {', '.join(data.useless)}"


def _blended(result: ComparedBlend, data: _Data) -> Array:
    """Return a blend for the test images: values, or probabilities, (n_test, n_classes)."""
    if not data.test_rows.predictions.shape[1]:
        # Nothing to predict, which not every method bears.
        return np.empty(data.test_rows.predictions.shape[1:])
    blended = result.fitted.predict(data.test_rows)
    # Weights need not sum to 1: an image that cannot be read gets the mean whatever they are.
    blended[data.unreadable] = data.goal.mean(data.targets, data.rows.weights)
    return blended


def _submission_file(name: str) -> str:
    name = name.replace("wopt", "weight_optimization")
    return f"submission_{name.replace('-', '_').replace('+', '_')}.csv"


# Columns of the score table beside the metric itself, which a project's own metric may be called.
_SCORE_COLUMNS = (
    *("name", "cross_fitted", "low", "high", "gain", "gain_low", "gain_high"),
    *("beats_mean", "submit"),
)


def _score_table(compared: Sequence[ComparedBlend], chosen: str, metric: Metric) -> pd.DataFrame:
    in_sample = metric.title.lower()
    if in_sample in _SCORE_COLUMNS:
        in_sample = f"{in_sample}_in_sample"
    records = []
    for result in compared:
        record: dict[str, object] = {"name": result.name, in_sample: result.in_sample}
        honest = result.honest
        if honest is not None:
            record["cross_fitted"] = honest.score
            record["low"], record["high"] = honest.interval
            record["gain"] = honest.gain
            record["gain_low"], record["gain_high"] = honest.gain_interval
            record["beats_mean"] = honest.beats_baseline
        record["submit"] = result.name == chosen
        records.append(record)
    columns = max((list(record) for record in records), key=len)
    return pd.DataFrame(records, columns=columns)


def _print_members(data: _Data) -> None:
    names = ["constant", *(member.name for member in data.members)]
    width = max(map(len, names))
    logger.info(f"OOF {data.goal.metric.title} (constant: the same prediction for every image)")
    for name, value, use in zip(names, data.scores, [True, *data.useful], strict=True):
        logger.info(f"{name:<{width}}  {value:.4f}{'' if use else '  worse than the constant'}")


def _print_blends(
    compared: Sequence[ComparedBlend],
    metric: Metric,
    groups: npt.NDArray[np.int64],
    settings: EnsembleSettings,
) -> None:
    width = max(len("blend"), *(len(result.name) for result in compared))
    logger.info("")
    logger.info(
        f"{metric.title} of the blends, and their gain over {BASELINE} (positive is better);"
    )
    logger.info(f"in brackets what 95 % of resamples of {resampled_units(groups)} give")
    logger.info(f"{'blend':<{width}}  in sample  cross-fitted                gain")
    for result in compared:
        honest = result.honest
        if honest is None:
            logger.info(f"{result.name:<{width}}  {result.in_sample:>9.4f}  (in sample only)")
            continue
        (low, high), (gain_low, gain_high) = honest.interval, honest.gain_interval
        line = f"{result.name:<{width}}  {result.in_sample:>9.4f}  "
        line += f"{honest.score:.4f} [{low:.4f}, {high:.4f}]"
        if result.name != BASELINE:
            line += f"   {honest.gain:+.4f} [{gain_low:+.4f}, {gain_high:+.4f}]"
            line += "  better" if honest.beats_baseline else ""
        logger.info(line)
    logger.info(
        "(in sample: weights chosen on the rows they are scored on; cross-fitted: on other folds)"
    )
    logger.info(f"({how_optimised((settings.method, 'best', *settings.methods), metric)})")
    if "optuna" in settings.methods:
        trials = with_fewer_trials(settings).n_trials
        logger.info(
            f"(optuna: cross-fitted with {trials} trials per fold, fitted with {settings.n_trials})"
        )
    if settings.checkpoint != "last":
        logger.info(f"(each fold's epoch was chosen by its own validation {settings.checkpoint})")


def _print_end(
    folder: Path,
    settings: EnsembleSettings,
    data: _Data,
    blends: _Blends,
    waiting: Sequence[str],
) -> None:
    optimised = zip(data.members, blends.weights[OPTIMISED], strict=True)
    listed = ", ".join(f"{member.name} {weight:.3f}" for member, weight in optimised)
    logger.info(f"optimised weights ({settings.method}): {listed}")
    if n_unread := len(data.unreadable):
        logger.info(
            f"({n_unread} test images cannot be read; they get {for_unreadable(data.project)})"
        )
    logger.info(blends.reason)
    if not len(data.test):
        logger.info("(the test table has no rows: the submissions are empty)")
    if waiting:
        logger.info(so_far([member.name for member in data.members], waiting))
    more = f", {PROBABILITIES}" if data.goal.metric.takes_probabilities else ""
    partly = ", so far" if waiting else ""
    logger.info(
        f"wrote {shown(folder)}/submission.csv ({blends.chosen}{partly}){more}, submission_*.csv, "
        f"weights.csv, {ENSEMBLE_SCORES}, {CROSS_FITTED}"
    )
