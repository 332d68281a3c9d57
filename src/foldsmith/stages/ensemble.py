"""Stage 5: blending finished experiments."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.atomic import remove_leftovers, write_csv, write_npy
from foldsmith.blending.base import FittedWeights, Goal, Rows
from foldsmith.blending.calibration import CalibratedBlend
from foldsmith.blending.comparison import Candidate, Compared, compare, recommend
from foldsmith.blending.methods import create_blend, fixed_blend, with_fewer_trials
from foldsmith.blending.weights import equal_weights
from foldsmith.config import BlendMethod, EnsembleSettings, Experiment, Project
from foldsmith.data.submission import submission_table
from foldsmith.data.tables import (
    FOLD_COLUMN,
    as_written,
    groups_of,
    read_folds,
    read_test,
    readable_test,
    targets_of,
)
from foldsmith.errors import ConfigError
from foldsmith.evaluation.oof import constant_oof
from foldsmith.hashing import FileHashes
from foldsmith.locking import lock
from foldsmith.models.arrays import Arrays, prefixed, write_arrays
from foldsmith.stages.infer import for_unreadable
from foldsmith.stages.inputs import ensemble_inputs
from foldsmith.stages.manifest import MANIFEST, Stopwatch, write_manifest
from foldsmith.stages.members import Member, goal_of, member_hashes, read_members, rows_of
from foldsmith.stages.output_folder import refuse_existing, save_sources, shown
from foldsmith.stages.types import types_of
from foldsmith.tasks.metrics import Metric

Array = npt.NDArray[np.float64]

# The plain mean of all members, which every other blend is compared with.
BASELINE = "avg-all"
OPTIMISED = "wopt-all"

# All that the fitted blends know, by their names.
BLENDS = "blends.safetensors"
PROBABILITIES = "probabilities.csv"
# Id, fold, target, and a column of cross-fitted predictions per blend that has them; for a metric
# of probabilities also those, shape (n_blends, n_train, n_classes), in the order of the columns.
CROSS_FITTED = "cross_fitted_predictions.csv"
CROSS_FITTED_PROBABILITIES = "cross_fitted_probabilities.npy"

# What the averages of one task's members are called; others by the task's name.
_SHORT_TASKS = {"multi-class": "cls", "regression": "reg"}


def ensemble(
    project: Project, config: Path | str, overrides: Sequence[str] = (), force: bool = False
) -> pd.DataFrame:
    """Blend experiments in several ways, and say which one to submit.

    Writes the submissions ``avg_cls``, ``avg_reg`` (averages of one task's members),
    ``avg_all``, ``weight_optimization_all`` and one of each further method, ``submission.csv``
    (the recommended one; where class probabilities are judged, these are in
    ``probabilities.csv``), ``weights.csv``, ``ensemble_scores.csv`` and ``blends.safetensors``
    (the fitted blends, for new photos). Beside its score on the
    rows that it was fitted on, each blend gets a cross-fitted one: see
    :func:`~foldsmith.blending.comparison.compare`. The cross-fitted predictions behind it are
    kept in :data:`CROSS_FITTED`, for a metric of probabilities also in
    :data:`CROSS_FITTED_PROBABILITIES`.

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


def ensemble_experiment(experiment: Experiment, force: bool) -> pd.DataFrame:
    """Blend what an experiment says; as :func:`ensemble`."""
    watch = Stopwatch()
    project, seed = experiment.project, experiment.globals.seed
    if experiment.globals.task != "ensemble":
        raise ConfigError(f"{experiment.file}: globals/task is {experiment.globals.task}")
    if experiment.globals.output_path is None:
        raise ConfigError(f"{experiment.file}: globals/output_path is missing")
    experiment.check(types_of(project))
    settings = EnsembleSettings.model_validate(experiment.tree["ensemble"])
    table = read_folds(project, experiment.globals.meta_file)
    test = read_test(project)
    hashes = FileHashes(project.hash_store)
    members = read_members(project, settings, table, test)
    goal = goal_of(project)
    with_features = "stack" in settings.methods
    rows, test_rows = rows_of(project, members, goal.metric, table, test, with_features)
    inputs = ensemble_inputs(experiment, member_hashes(project, experiment), hashes)
    folder = project.path(experiment.globals.output_path)
    if not force:
        refuse_existing(folder)

    targets = targets_of(project, table)
    folds = table[FOLD_COLUMN].to_numpy(dtype=np.int64)
    groups = groups_of(project, table)
    candidates = candidates_of([member.task for member in members], settings, goal, seed)
    compared = compare(candidates, BASELINE, goal, rows, targets, folds, groups, seed)
    chosen, reason = recommend(compared, BASELINE, goal.metric)
    scores = _score_table(compared, chosen, goal.metric)

    unreadable = np.setdiff1d(np.arange(len(test)), readable_test(project, test))
    outputs: dict[str, pd.DataFrame] = {}
    for result in compared:
        blended = _blended(result, goal, test_rows, unreadable, targets)
        prediction = goal.metric.as_judged(goal.points(blended))
        submission = submission_table(project, test, prediction)
        outputs[_submission_file(result.name)] = submission
        if result.name == chosen:
            outputs["submission.csv"] = submission
            if goal.metric.needs == "probabilities":
                ids = test[[project.settings.id_column]].reset_index(drop=True)
                of_classes = pd.DataFrame(blended, columns=list(goal.labels))
                outputs[PROBABILITIES] = pd.concat([ids, of_classes], axis=1)
    names = [member.name for member in members]
    weights = {
        result.name: result.fitted.weights
        for result in compared
        if isinstance(result.fitted, FittedWeights)
    }
    blends: Arrays = {}
    for result in compared:
        blends |= prefixed(result.name, result.fitted.arrays())
    outputs["weights.csv"] = pd.DataFrame({"experiment": names} | weights)
    outputs["ensemble_scores.csv"] = scores
    held_out = {c.name: c.cross_fitted for c in compared if c.cross_fitted is not None}
    columns = [project.settings.id_column, FOLD_COLUMN, project.settings.target_column]
    outputs[CROSS_FITTED] = table[columns].assign(
        **{
            name: as_written(project, goal.points(predicted))
            for name, predicted in held_out.items()
        }
    )
    files = [folder / file for file in outputs]
    with lock(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        # First, so that a run that is killed here does not look finished.
        older = (
            *(folder / PROBABILITIES, folder / CROSS_FITTED_PROBABILITIES),
            *folder.glob("submission*.csv"),
        )
        for old in (folder / MANIFEST, *older):
            old.unlink(missing_ok=True)
        save_sources(folder, experiment)
        for path, content in zip(files, outputs.values(), strict=True):
            write_csv(path, content)
        files.append(folder / BLENDS)
        write_arrays(files[-1], blends)
        if goal.metric.needs == "probabilities":
            files.append(folder / CROSS_FITTED_PROBABILITIES)
            write_npy(files[-1], np.stack(list(held_out.values())))
        write_manifest(
            folder / MANIFEST,
            f"ensemble {experiment.globals.output_path}",
            inputs,
            files,
            hashes,
            members=names,
            seed=seed,
            submit=chosen,
            reason=reason,
            wall_s=watch.seconds,
        )
    _print_members(members, rows, targets, folds, goal)
    _print_blends(compared, goal.metric, int(groups.max()) + 1, settings)
    listed = ", ".join(f"{n} {w:.3f}" for n, w in zip(names, weights[OPTIMISED], strict=True))
    print(f"optimised weights ({settings.method}): {listed}")
    if len(unreadable):
        print(f"({len(unreadable)} test photos cannot be read; they get {for_unreadable(project)})")
    print(reason)
    if not len(test):
        print("(the test table has no rows: the submissions are empty)")
    more = f", {PROBABILITIES}" if PROBABILITIES in outputs else ""
    print(
        f"wrote {shown(folder)}/submission.csv ({chosen}){more}, submission_*.csv, weights.csv, "
        f"ensemble_scores.csv, {CROSS_FITTED}"
    )
    return scores


def candidates_of(
    tasks: Sequence[str], settings: EnsembleSettings, goal: Goal, seed: int
) -> list[Candidate]:
    """Return the averages, the optimised weights, and what else the file names.

    Args:
        tasks: Task of each member.
        settings: What the file says.
        goal: What the blends are to be good at.
        seed: Seed of Optuna and of the trees.
    """
    found = []
    for task in dict.fromkeys((*_SHORT_TASKS, *tasks)):
        weights = _average_of(tasks, task)
        if weights.any():
            blend = fixed_blend(f"avg-{_SHORT_TASKS.get(task, task)}", weights, goal)
            found.append(Candidate(blend.name, blend, blend))
    mean = fixed_blend(BASELINE, equal_weights(len(tasks)), goal)
    found.append(Candidate(BASELINE, mean, mean))

    def candidate(name: str, method: BlendMethod) -> Candidate:
        blend = create_blend(method, goal, settings, seed)
        if method != "optuna":
            return Candidate(name, blend, blend)
        if "optuna" not in settings.methods:
            return Candidate(name, blend, None)
        return Candidate(name, blend, create_blend(method, goal, with_fewer_trials(settings), seed))

    found.append(candidate(OPTIMISED, settings.method))
    # The best single member always: an ensemble has to be worth its while.
    for method in dict.fromkeys(("best", *settings.methods)):
        if method not in ("mean", settings.method):
            found.append(candidate(method, method))
    if settings.calibrate != "none":
        for method in dict.fromkeys(settings.methods):
            # Trees bend their predictions as they like already, and searches take too long.
            if method not in ("stack", "optuna"):
                plain = create_blend(method, goal, settings, seed)
                calibrated = CalibratedBlend(plain, settings.calibrate, goal)
                found.append(Candidate(calibrated.name, calibrated, calibrated))
    return found


def _average_of(tasks: Sequence[str], task: str) -> Array:
    """Return equal weights of the members of one task, zero for the others."""
    chosen = np.array([one == task for one in tasks], dtype=np.float64)
    return np.divide(chosen, max(chosen.sum(), 1.0))


def _blended(
    result: Compared,
    goal: Goal,
    test_rows: Rows,
    unreadable: npt.NDArray[np.int64],
    targets: Array,
) -> Array:
    """Return the blend for the test photos: values, or probabilities, (n_test, n_classes)."""
    if not test_rows.predictions.shape[1]:
        # Nothing to predict, which not every method bears.
        return np.empty(test_rows.predictions.shape[1:])
    blended = result.fitted.predict(test_rows)
    # Weights need not sum to 1: what nobody could read stays at the mean whatever they are.
    blended[unreadable] = goal.encoded(targets).mean(axis=0)
    return blended


def _submission_file(name: str) -> str:
    name = name.replace("wopt", "weight_optimization")
    return f"submission_{name.replace('-', '_').replace('+', '_')}.csv"


def _score_table(compared: Sequence[Compared], chosen: str, metric: Metric) -> pd.DataFrame:
    records = []
    for result in compared:
        record: dict[str, object] = {"name": result.name, metric.name.lower(): result.in_sample}
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


def _print_members(
    members: list[Member], rows: Rows, targets: Array, folds: npt.NDArray[np.int64], goal: Goal
) -> None:
    constant = constant_oof(goal.encoded(targets), folds)
    lines = [("constant (mean of the other folds)", goal.metric(constant, targets))]
    lines += [
        (member.name, goal.metric(predicted, targets))
        for member, predicted in zip(members, rows.predictions, strict=True)
    ]
    width = max(len(name) for name, _ in lines)
    print(f"OOF {goal.metric.name}")
    for name, value in lines:
        print(f"{name:<{width}}  {value:.4f}")


def _print_blends(
    compared: Sequence[Compared], metric: Metric, n_groups: int, settings: EnsembleSettings
) -> None:
    width = max(len("blend"), *(len(result.name) for result in compared))
    print(f"\n{metric.name} of the blends, and their gain over {BASELINE} (positive is better);")
    print(f"in brackets what 95 % of resamples of {n_groups} groups give")
    print(f"{'blend':<{width}}  in sample  cross-fitted                gain")
    for result in compared:
        honest = result.honest
        if honest is None:
            print(f"{result.name:<{width}}  {result.in_sample:>9.4f}  (in sample only)")
            continue
        (low, high), (gain_low, gain_high) = honest.interval, honest.gain_interval
        line = f"{result.name:<{width}}  {result.in_sample:>9.4f}  "
        line += f"{honest.score:.4f} [{low:.4f}, {high:.4f}]"
        if result.name != BASELINE:
            line += f"   {honest.gain:+.4f} [{gain_low:+.4f}, {gain_high:+.4f}]"
            line += "  better" if honest.beats_baseline else ""
        print(line)
    print(
        "(in sample: weights chosen on the rows they are scored on; cross-fitted: on other folds)"
    )
    if "optuna" in settings.methods:
        trials = with_fewer_trials(settings).n_trials
        print(
            f"(optuna: cross-fitted with {trials} trials per fold, fitted with {settings.n_trials})"
        )
    if settings.criterion != "last":
        print(f"(each fold's epoch was chosen by its own validation {settings.criterion})")
