"""Stage 5: blending finished experiments."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.blending.base import Constant, FittedWeights, Goal, Rows
from foldsmith.blending.bootstrap import resampled_units
from foldsmith.blending.calibration import CalibratedBlend
from foldsmith.blending.comparison import Candidate, Compared, compare, recommend
from foldsmith.blending.methods import (
    COMPLEXITY,
    COMPLEXITY_OF_CALIBRATION,
    COMPLEXITY_OF_CONSTANT,
    COMPLEXITY_OF_TASK_AVERAGE,
    average_blend,
    create_blend,
    with_fewer_trials,
)
from foldsmith.config import BlendMethod, EnsembleSettings, Experiment
from foldsmith.config.output_path import check_output
from foldsmith.errors import ConfigError
from foldsmith.models.fitted_arrays import Arrays, prefixed, write_arrays
from foldsmith.project import ProjectFolder
from foldsmith.project.submission import submission_table
from foldsmith.project.tables import (
    FOLD_COLUMN,
    as_written,
    groups_of,
    read_folds,
    read_test,
    readable_test,
    targets_of,
)
from foldsmith.steps.fingerprint import ensemble_inputs
from foldsmith.steps.infer import for_unreadable
from foldsmith.steps.manifest import MANIFEST, Stopwatch, write_manifest
from foldsmith.steps.members import Member, goal_of, member_hashes, read_members, rows_of
from foldsmith.steps.output_folder import RESOLVED_CONFIG, refuse_existing, save_sources, shown
from foldsmith.steps.registry import types_of
from foldsmith.targets.metrics import Metric
from foldsmith.utils.atomic import remove_leftovers, write_csv, write_npy
from foldsmith.utils.hashing import FileHashes
from foldsmith.utils.locking import lock
from foldsmith.utils.owned_files import OwnedFiles

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
    project: ProjectFolder, config: Path | str, overrides: Sequence[str] = (), force: bool = False
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
    check_output(experiment, force)
    settings = EnsembleSettings.model_validate(experiment.tree["ensemble"])
    table = read_folds(project, experiment.globals.meta_file)
    test = read_test(project)
    hashes = FileHashes(project.hash_store)
    members = read_members(project, settings, table, test)
    goal = replace(goal_of(project), raw=experiment.globals.target_scale == "none")
    with_features = "stack" in settings.methods
    rows, test_rows = rows_of(project, members, goal.metric, table, test, with_features)
    inputs = ensemble_inputs(experiment, member_hashes(project, experiment), hashes)
    folder = project.path(experiment.globals.output_path)
    if not force:
        refuse_existing(folder, resumable=False)

    targets = targets_of(project, table)
    folds = table[FOLD_COLUMN].to_numpy(dtype=np.int64)
    groups = groups_of(project, table)
    useful = goal.useful(rows.predictions, targets)
    candidates = candidates_of([member.task for member in members], settings, goal, seed)
    if not useful.any():
        constant = Constant(goal)
        candidates.append(Candidate(constant.name, constant, constant, COMPLEXITY_OF_CONSTANT))
    columns = [project.settings.id_column, FOLD_COLUMN, project.settings.target_column]
    for name in {candidate.name for candidate in candidates} & set(columns):
        raise ConfigError(
            f"{project.source_files[0]}: the column {name} is called like a blend; rename it in "
            "the tables"
        )
    compared = compare(candidates, BASELINE, goal, rows, targets, folds, groups, seed)
    chosen, reason = recommend(compared, BASELINE, goal.metric)
    useless = [member.name for member, use in zip(members, useful, strict=True) if not use]
    reason += _about_useless(useless, len(members), goal, targets)
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
                labels = _class_columns(project.settings.id_column, goal.labels)
                of_classes = pd.DataFrame(blended, columns=labels)
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
        owned = OwnedFiles(folder)
        earlier = owned.of()
        new = [MANIFEST, *outputs, BLENDS]
        if goal.metric.needs == "probabilities":
            new.append(CROSS_FITTED_PROBABILITIES)
        owned.record(new, "ensemble")
        # First, so that a run that is killed here does not look finished.
        (folder / MANIFEST).unlink(missing_ok=True)
        sources = save_sources(folder, experiment, "ensemble")
        owned.remove(set(earlier) - {*new, *(str(p.relative_to(folder)) for p in sources)})
        for path, content in zip(files, outputs.values(), strict=True):
            write_csv(path, content)
        files += [folder / RESOLVED_CONFIG, folder / BLENDS]
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
            member_scores=[goal.metric(one, targets) for one in rows.predictions],
            constant=goal.constant_score(targets),
            worse_than_constant=useless,
            wall_s=watch.seconds,
        )
    _print_members(members, rows, targets, goal)
    _print_blends(compared, goal.metric, groups, settings)
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


def _class_columns(id_column: str, labels: Sequence[str]) -> list[str]:
    """Return the columns of the class probabilities: the classes' names.

    Where one of these is the name of the id column, all are called as in predictions of new
    images, ``probability_NAME``.
    """
    columns = list(labels)
    while id_column in columns:
        columns = [f"probability_{name}" for name in columns]
    return columns


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
        of_task = [k for k, one in enumerate(tasks) if one == task]
        if of_task:
            blend = average_blend(f"avg-{_SHORT_TASKS.get(task, task)}", goal, of_task)
            found.append(Candidate(blend.name, blend, blend, COMPLEXITY_OF_TASK_AVERAGE))
    mean = average_blend(BASELINE, goal)
    found.append(Candidate(BASELINE, mean, mean, COMPLEXITY["mean"]))

    def candidate(name: str, method: BlendMethod) -> Candidate:
        blend, honest = create_blend(method, goal, settings, seed), None
        if method != "optuna":
            honest = blend
        elif "optuna" in settings.methods:
            honest = create_blend(method, goal, with_fewer_trials(settings), seed)
        return Candidate(name, blend, honest, COMPLEXITY[method])

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
                complexity = COMPLEXITY[method] + COMPLEXITY_OF_CALIBRATION
                found.append(Candidate(calibrated.name, calibrated, calibrated, complexity))
    return found


def _about_useless(useless: Sequence[str], n_members: int, goal: Goal, targets: Array) -> str:
    """Return which members are worse than the constant, as the end of a sentence."""
    if not useless:
        return ""
    constant = f"the constant ({goal.metric.name} {goal.constant_score(targets):.4f})"
    if len(useless) == n_members:
        return f"; no member is better than {constant}: do not expect anything of this submission"
    return f"; worse than {constant}, and so without a say in the blends: {', '.join(useless)}"


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


def _print_members(members: list[Member], rows: Rows, targets: Array, goal: Goal) -> None:
    lines = [("constant", goal.constant_score(targets), True)]
    useful = goal.useful(rows.predictions, targets)
    lines += [
        (member.name, goal.metric(predicted, targets), use)
        for member, predicted, use in zip(members, rows.predictions, useful, strict=True)
    ]
    width = max(len(name) for name, _, _ in lines)
    print(f"OOF {goal.metric.name} (constant: the same prediction for every photo)")
    for name, value, use in lines:
        print(f"{name:<{width}}  {value:.4f}{'' if use else '  worse than the constant'}")


def _print_blends(
    compared: Sequence[Compared],
    metric: Metric,
    groups: npt.NDArray[np.int64],
    settings: EnsembleSettings,
) -> None:
    width = max(len("blend"), *(len(result.name) for result in compared))
    print(f"\n{metric.name} of the blends, and their gain over {BASELINE} (positive is better);")
    print(f"in brackets what 95 % of resamples of {resampled_units(groups)} give")
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
