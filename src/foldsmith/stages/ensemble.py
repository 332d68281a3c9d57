"""Stage 5: blending finished experiments."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.atomic import write_csv
from foldsmith.blending.weights import blend, equal_weights, optimise_weights
from foldsmith.config import EnsembleSettings, Experiment, Project
from foldsmith.data.tables import (
    FOLD_COLUMN,
    hash_columns,
    read_folds,
    read_table,
    read_test,
    submission_table,
    targets_of,
)
from foldsmith.errors import ConfigError, OutputError
from foldsmith.evaluation.oof import constant_oof
from foldsmith.stages.infer import LABELS
from foldsmith.stages.output_folder import claim, save_record, save_sources, shown
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
    experiment = Experiment.load(project, Path(config), overrides)
    if experiment.globals.task != "ensemble":
        raise ConfigError(f"{experiment.file}: globals/task is {experiment.globals.task}")
    if experiment.globals.output_path is None:
        raise ConfigError(f"{experiment.file}: globals/output_path is missing")
    experiment.check(types_of(project))
    settings = EnsembleSettings.model_validate(experiment.tree["ensemble"])
    table = read_folds(project, experiment.globals.meta_file)
    test = read_test(project)
    columns = [project.settings.id_column, FOLD_COLUMN]
    members = [_read_member(project, folder, settings) for folder in settings.experiments]
    _check_members(members, hash_columns(table, columns), hash_columns(test, columns[:1]))

    targets = targets_of(project, table).astype(np.float64)
    low_high = project.target_range
    oof = np.stack([member.oof for member in members])
    on_test = np.stack([member.test for member in members])
    optimised = optimise_weights(
        oof,
        targets,
        low_high,
        settings.n_trials,
        settings.weight_step,
        experiment.globals.seed,
    )
    blends = {
        "avg-cls": _average_of(members, "multi-class"),
        "avg-reg": _average_of(members, "regression"),
        "avg-all": equal_weights(len(members)),
        "wopt-all": optimised,
    }
    blends = {name: weights for name, weights in blends.items() if weights.any()}

    folder = project.path(experiment.globals.output_path)
    claim(folder, force)
    save_sources(folder, experiment)
    records = []
    for name, weights in blends.items():
        prediction = blend(on_test, weights, low_high)
        file = f"submission_{name.replace('wopt', 'weight_optimization').replace('-', '_')}.csv"
        write_csv(folder / file, submission_table(project, test, prediction))
        records.append((name, rmse(blend(oof, weights, low_high), targets)))
    scores = pd.DataFrame(records, columns=["name", "rmse"])
    names = [member.name for member in members]
    write_csv(folder / "weights.csv", pd.DataFrame({"experiment": names} | blends))
    write_csv(folder / "ensemble_scores.csv", scores)
    save_record(folder, members=names, seed=experiment.globals.seed)

    constant = constant_oof(targets_of(project, table), table[FOLD_COLUMN].to_numpy(dtype=np.int64))
    lines = [("constant (mean of the other folds)", rmse(constant, targets))]
    lines += [(member.name, rmse(member.oof, targets)) for member in members]
    lines += records
    width = max(len(name) for name, _ in lines)
    print("OOF RMSE")
    for name, value in lines:
        note = "  (in sample: weights chosen on these rows)" if name == "wopt-all" else ""
        print(f"{name:<{width}}  {value:.4f}{note}")
    if settings.criterion != "last":
        print(f"(each fold's epoch was chosen by its own validation {settings.criterion})")
    listed = ", ".join(f"{n} {w:.3f}" for n, w in zip(names, optimised, strict=True))
    print(f"optimised weights: {listed}")
    print(f"wrote {shown(folder)}/submission_*.csv, weights.csv, ensemble_scores.csv")
    return scores


def _average_of(members: list[_Member], task: str) -> Array:
    """Return equal weights of the members of one task, zero for the others."""
    chosen = np.array([member.task == task for member in members], dtype=np.float64)
    return np.divide(chosen, max(chosen.sum(), 1.0))


def _read_member(project: Project, folder: str, settings: EnsembleSettings) -> _Member:
    root = project.path(folder)
    label = LABELS[settings.criterion]
    path = root / f"inference_by_{label}.json"
    if not path.is_file():
        raise OutputError(
            f"{path}: no such file; run 'foldsmith infer -e {folder} "
            f"-cri {settings.criterion}' first"
        )
    facts = json.loads(path.read_text())
    submission = root / f"submission_by_{label}.csv"
    target = project.settings.target_column
    return _Member(
        name=root.name,
        task=facts["task"],
        oof=np.load(root / f"oof_prediction_by_{label}.npy", allow_pickle=False)[:, 0],
        test=read_table(submission, [target])[target].to_numpy(dtype=np.float64),
        folds_sha256=facts["folds_sha256"],
        test_ids_sha256=facts["test_ids_sha256"],
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
