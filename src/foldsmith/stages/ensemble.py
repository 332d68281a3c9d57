"""Stage 5: blending finished experiments."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.atomic import remove_leftovers, write_csv
from foldsmith.blending.weights import (
    blend,
    box_weights,
    equal_weights,
    search_weights,
    simplex_weights,
)
from foldsmith.config import EnsembleSettings, Experiment, Project
from foldsmith.data.tables import (
    FOLD_COLUMN,
    hash_columns,
    read_folds,
    read_table,
    read_test,
    readable_test,
    submission_table,
    targets_of,
)
from foldsmith.errors import ConfigError, OutputError
from foldsmith.evaluation.oof import constant_oof
from foldsmith.hashing import FileHashes, hash_value
from foldsmith.locking import lock
from foldsmith.stages.infer import LABELS, Criterion, inference_manifest
from foldsmith.stages.inputs import ensemble_inputs, hash_folds
from foldsmith.stages.manifest import (
    MANIFEST,
    Manifest,
    Stopwatch,
    read_manifest,
    write_manifest,
)
from foldsmith.stages.output_folder import refuse_existing, save_sources, shown
from foldsmith.stages.types import types_of
from foldsmith.tasks.metrics import rmse

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Member:
    """One experiment's predictions.

    Attributes:
        name: Name of its output folder.
        task: ``multi-class`` or ``regression``.
        oof: Shape (n_train,).
        test: Shape (n_test,).
        folds_sha256: Hash of the train ids and folds.
        test_ids_sha256: Hash of the test ids.
    """

    name: str
    task: str
    oof: Array
    test: Array
    folds_sha256: str
    test_ids_sha256: str


def ensemble(
    project: Project, config: Path | str, overrides: Sequence[str] = (), force: bool = False
) -> pd.DataFrame:
    """Average the experiments and search for the best weights.

    Writes the submissions ``avg_cls``, ``avg_reg``, ``avg_all`` and
    ``weight_optimization_all``, ``weights.csv`` and ``ensemble_scores.csv``. The optimised
    weights are scored on the rows they were chosen on.

    Args:
        project: The project.
        config: Ensemble file, relative to the project folder.
        overrides: ``PATH=VALUE`` each.
        force: Allow an existing output folder.

    Returns:
        The scores: columns name, rmse (out of fold).

    Raises:
        ConfigError: The file is wrong or no ensemble.
        OutputError: An experiment has no predictions, or experiments do not fit together.
    """
    return ensemble_experiment(Experiment.load(project, Path(config), overrides), force)


def ensemble_experiment(experiment: Experiment, force: bool) -> pd.DataFrame:
    """Blend what an experiment says; as :func:`ensemble`."""
    watch = Stopwatch()
    project = experiment.project
    if experiment.globals.task != "ensemble":
        raise ConfigError(f"{experiment.file}: globals/task is {experiment.globals.task}")
    if experiment.globals.output_path is None:
        raise ConfigError(f"{experiment.file}: globals/output_path is missing")
    experiment.check(types_of(project))
    settings = EnsembleSettings.model_validate(experiment.tree["ensemble"])
    table = read_folds(project, experiment.globals.meta_file)
    test = read_test(project)
    hashes = FileHashes(project.hash_store)
    members = [_read_member(project, folder, settings) for folder in settings.experiments]
    _check_members(
        members, hash_folds(project, table), hash_columns(test, [project.settings.id_column])
    )
    inputs = ensemble_inputs(experiment, member_hashes(project, experiment), hashes)
    folder = project.path(experiment.globals.output_path)
    if not force:
        refuse_existing(folder)

    targets = targets_of(project, table).astype(np.float64)
    low_high = project.target_range
    oof = np.stack([member.oof for member in members])
    on_test = np.stack([member.test for member in members])
    optimised = _optimise(settings, oof, targets, low_high, experiment.globals.seed)
    blends = {
        "avg-cls": _average_of(members, "multi-class"),
        "avg-reg": _average_of(members, "regression"),
        "avg-all": equal_weights(len(members)),
        "wopt-all": optimised,
    }
    blends = {name: weights for name, weights in blends.items() if weights.any()}
    # Weights need not sum to 1: what nobody could read stays at the mean whatever they are.
    unreadable = np.setdiff1d(np.arange(len(test)), readable_test(project, test))

    outputs: dict[str, pd.DataFrame] = {}
    records = []
    for name, weights in blends.items():
        prediction = blend(on_test, weights, low_high)
        prediction[unreadable] = targets.mean()
        file = f"submission_{name.replace('wopt', 'weight_optimization').replace('-', '_')}.csv"
        outputs[file] = submission_table(project, test, prediction)
        records.append((name, rmse(blend(oof, weights, low_high), targets)))
    scores = pd.DataFrame(records, columns=["name", "rmse"])
    names = [member.name for member in members]
    outputs["weights.csv"] = pd.DataFrame({"experiment": names} | blends)
    outputs["ensemble_scores.csv"] = scores
    with lock(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        # First, so that a run that is killed here does not look finished.
        for old in (folder / MANIFEST, *folder.glob("submission_*.csv")):
            old.unlink(missing_ok=True)
        save_sources(folder, experiment)
        for file, content in outputs.items():
            write_csv(folder / file, content)
        write_manifest(
            folder / MANIFEST,
            f"ensemble {experiment.globals.output_path}",
            inputs,
            [folder / file for file in outputs],
            hashes,
            members=names,
            seed=experiment.globals.seed,
            wall_s=watch.seconds,
        )
    _print_scores(members, table, project, records, settings.criterion)
    listed = ", ".join(f"{n} {w:.3f}" for n, w in zip(names, optimised, strict=True))
    print(f"optimised weights ({settings.method}): {listed}")
    if len(unreadable):
        print(f"({len(unreadable)} test photos cannot be read; they get the train targets' mean)")
    print(f"wrote {shown(folder)}/submission_*.csv, weights.csv, ensemble_scores.csv")
    return scores


def _optimise(
    settings: EnsembleSettings,
    oof: Array,
    targets: Array,
    target_range: tuple[float, float],
    seed: int,
) -> Array:
    if settings.method == "box":
        return box_weights(oof, targets, target_range)
    if settings.method == "simplex":
        return simplex_weights(oof, targets)
    return search_weights(oof, targets, target_range, settings.n_trials, settings.weight_step, seed)


def member_hashes(project: Project, experiment: Experiment) -> dict[str, str]:
    """Return output folder of each member of an ensemble -> hash of its predictions.

    Raises:
        OutputError: A member has no predictions.
    """
    settings = EnsembleSettings.model_validate(experiment.tree["ensemble"])
    found = {}
    for folder in settings.experiments:
        manifest = _read_inference(project, folder, settings.criterion)
        kept = ("oof_prediction_", "submission_")
        found[folder] = hash_value(
            {name: sha for name, sha in manifest.outputs.items() if name.startswith(kept)}
        )
    return found


def _print_scores(
    members: list[_Member],
    table: pd.DataFrame,
    project: Project,
    blends: list[tuple[str, float]],
    criterion: str,
) -> None:
    targets = targets_of(project, table)
    truth = targets.astype(np.float64)
    constant = constant_oof(targets, table[FOLD_COLUMN].to_numpy(dtype=np.int64))
    lines = [("constant (mean of the other folds)", rmse(constant, truth))]
    lines += [(member.name, rmse(member.oof, truth)) for member in members]
    lines += blends
    width = max(len(name) for name, _ in lines)
    print("OOF RMSE")
    for name, value in lines:
        note = "  (in sample: weights chosen on these rows)" if name == "wopt-all" else ""
        print(f"{name:<{width}}  {value:.4f}{note}")
    if criterion != "last":
        print(f"(each fold's epoch was chosen by its own validation {criterion})")


def _average_of(members: list[_Member], task: str) -> Array:
    """Return equal weights of the members of one task, zero for the others."""
    chosen = np.array([member.task == task for member in members], dtype=np.float64)
    return np.divide(chosen, max(chosen.sum(), 1.0))


def _read_inference(project: Project, folder: str, criterion: Criterion) -> Manifest:
    path = inference_manifest(project.path(folder), criterion)
    manifest = read_manifest(path)
    if manifest is None:
        raise OutputError(
            f"{path}: no such file; run 'foldsmith infer -e {folder} -cri {criterion}' first"
        )
    return manifest


def _read_member(project: Project, folder: str, settings: EnsembleSettings) -> _Member:
    root = project.path(folder)
    manifest = _read_inference(project, folder, settings.criterion)
    label = LABELS[settings.criterion]
    ids, target = project.settings.id_column, project.settings.target_column
    # The table carries the row ids and folds of the array.
    oof = read_table(root / f"oof_prediction_by_{label}.csv", [ids, FOLD_COLUMN], ids)
    test = read_table(root / f"submission_by_{label}.csv", [target])
    return _Member(
        name=root.name,
        task=str(manifest.facts["task"]),
        oof=np.load(root / f"oof_prediction_by_{label}.npy", allow_pickle=False)[:, 0],
        test=test[target].to_numpy(dtype=np.float64),
        folds_sha256=hash_folds(project, oof),
        test_ids_sha256=str(manifest.inputs["test ids"]),
    )


def _check_members(members: list[_Member], folds_sha256: str, test_ids_sha256: str) -> None:
    """Refuse experiments whose folds or row order differ, from each other or from the tables."""
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
    if (first.folds_sha256, first.test_ids_sha256) != (folds_sha256, test_ids_sha256):
        raise OutputError(
            f"{first.name} was made with another fold table or test table than today's; "
            "run 'foldsmith infer' again"
        )
