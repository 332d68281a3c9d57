"""Predictions for new photos, by a finished ensemble or by a single experiment."""

import importlib.util
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.atomic import replacing, write_csv, write_json
from foldsmith.blending.base import FittedBlend, FittedWeights, Goal
from foldsmith.config import Criterion, EnsembleSettings, Experiment
from foldsmith.config.settings import MEMBERS
from foldsmith.config.suggest import did_you_mean
from foldsmith.data.parallel import on_all_cores
from foldsmith.data.photos_at_hand import PhotosAtHand, as_list, find_photos, pixels_of
from foldsmith.data.statistics import photo_statistics
from foldsmith.data.tables import read_folds, read_table, read_test, targets_of
from foldsmith.errors import ConfigError, DataError, OutputError
from foldsmith.hashing import FileHashes
from foldsmith.stages.ensemble import candidates_of
from foldsmith.stages.inputs import ensemble_inputs
from foldsmith.stages.manifest import MANIFEST, Manifest, differences, read_manifest
from foldsmith.stages.member_models import MemberModels, read_member
from foldsmith.stages.members import blend_rows, member_hashes, read_members, rows_of
from foldsmith.stages.output_folder import open_run, read_resolved, shown
from foldsmith.stages.selection import criterion_of
from foldsmith.tasks.metrics import project_metric
from foldsmith.tasks.scoring import class_probabilities

Array = npt.NDArray[np.float64]

FORMATS = (".csv", ".json", ".parquet")

# Prepared photos that wait in memory for the models: so much at a time, however many there are.
_CHUNK_BYTES = 256 * 2**20


@dataclass(frozen=True)
class _Blend:
    """The blend of an ensemble.

    Attributes:
        name: Its name in the ensemble's tables.
        goal: What it was made for.
        fitted: What predicts.
        with_facts: Whether it wants to know more of a photo than the members' predictions.
    """

    name: str
    goal: Goal
    fitted: FittedBlend
    with_facts: bool


class Predictor:
    """Predicts new photos as a finished run has predicted the test photos.

    Models, preparation of the photos, test-time augmentation, blend and rounding are the same:
    test photos get what the run's submission says of them. All models are in memory. Made by
    :func:`load`.

    Attributes:
        run: Output folder of the run.
        members: Names of the experiments that are blended; of a single experiment its own.
        blend: Name of the blend; None for a single experiment.
    """

    def __init__(self, run: Path, members: Sequence[MemberModels], blend: _Blend | None) -> None:
        self.run = run
        self.members = [member.name for member in members]
        self.blend = None if blend is None else blend.name
        self._models = list(members)
        self._blend = blend

    def __repr__(self) -> str:
        of = f"{self.blend} of " if self.blend else ""
        return f"<Predictor: {of}{', '.join(self.members)}>"

    def predict(self, images: Any, skip_bad: bool = False) -> pd.DataFrame:
        """Predict images.

        Args:
            images: One image or any iterable of them: paths of photos, RGB arrays (uint8,
                shape (H, W, 3)) or PIL images.
            skip_bad: NaN for an image that cannot be read, instead of an error.

        Returns:
            A row per image, in their order. Columns: path (None for an image in memory);
            prediction, in units of the target; spread, the standard deviation of the members'
            predictions (of a single experiment: of its folds' models).

        Raises:
            DataError: There are no images, or some cannot be read: a line for each of these.
        """
        return self._predict(as_list(images), skip_bad)[0]

    def _predict(
        self, images: Sequence[Any], skip_bad: bool
    ) -> tuple[pd.DataFrame, dict[int, str]]:
        """Return the predictions, and what is wrong with each image that has none."""
        if not images:
            raise DataError("there are no images to predict")
        heads = [models.head for models in self._models]
        with_facts = self._blend is not None and self._blend.with_facts
        problems: dict[int, str] = {}
        logits: list[list[npt.NDArray[np.float32]]] = [[] for _ in self._models]
        facts: list[Sequence[float]] = []
        waiting = PhotosAtHand(heads)
        prepare = waiting.versions

        def read(number: int) -> str | tuple[dict[str, npt.NDArray[np.uint8]], Sequence[float]]:
            try:
                image = pixels_of(images[number], f"image {number}")
            except DataError as error:
                return str(error)
            return prepare(image), photo_statistics(image) if with_facts else ()

        for number, result in enumerate(
            on_all_cores(read, range(len(images)), "photos", leave=False)
        ):
            if isinstance(result, str):
                problems[number] = result
            elif skip_bad or not problems:
                waiting.add(result[0])
                facts.append(result[1])
            # After an error nothing is computed any more: only further errors are looked for.
            if waiting.n_bytes >= _CHUNK_BYTES and (skip_bad or not problems):
                self._ask(waiting, logits)
                waiting = PhotosAtHand(heads)
        if problems and not skip_bad:
            raise DataError("\n".join(problems.values()))
        if len(waiting):
            self._ask(waiting, logits)
        table = pd.DataFrame(
            {
                "path": [str(x) if isinstance(x, (str, Path)) else None for x in images],
                "prediction": np.nan,
                "spread": np.nan,
            }
        )
        if facts:
            good = [number not in problems for number in range(len(images))]
            joined = [np.concatenate(parts, axis=1) for parts in logits]
            prediction, spread = self._outcome(joined, np.array(facts) if with_facts else None)
            table.loc[good, "prediction"] = prediction
            table.loc[good, "spread"] = spread
        return table, problems

    def _ask(self, photos: PhotosAtHand, logits: list[list[npt.NDArray[np.float32]]]) -> None:
        for models, said in zip(self._models, logits, strict=True):
            said.append(models.logits(photos))

    def _outcome(
        self, logits: Sequence[npt.NDArray[np.float32]], facts: Array | None
    ) -> tuple[Array, Array]:
        """Return predictions and spreads, each of shape (n,).

        Args:
            logits: Of each member, shape (n_folds, n, n_outputs).
            facts: Size and colours of the photos, shape (n, 8), where the blend wants them.
        """
        by_fold = [
            models.task.predict(said) for models, said in zip(self._models, logits, strict=True)
        ]
        points = [predictions.mean(axis=0) for predictions in by_fold]
        if self._blend is None:
            return points[0], by_fold[0].std(axis=0)
        goal = self._blend.goal
        probabilities = [
            class_probabilities(models.task.name, goal.class_values, said)
            for models, said in zip(self._models, logits, strict=True)
        ]
        means = [None if known is None else known.mean(axis=0) for known in probabilities]
        rows = blend_rows(goal.metric, points, means, facts)
        prediction = goal.points(self._blend.fitted.predict(rows))
        return goal.metric.as_judged(prediction), np.std(points, axis=0)


def load(
    run: Path | str,
    *,
    blend: str | None = None,
    criterion: Criterion | None = None,
    device: str | None = None,
    project: Path | str | None = None,
) -> Predictor:
    """Return what predicts new photos as a finished run has predicted the test photos.

    Args:
        run: Output folder of an ensemble, or of one experiment (a fine-tuning after ``infer``,
            or frozen features), whose folds' models are averaged.
        blend: Blend of the ensemble; the one that it recommends if None.
        criterion: Which snapshots of a single experiment, if it was inferred by several.
        device: Where to compute, as in ``globals/device``; None as each experiment says.
        project: The project folder, which ``run`` is relative to then; None takes the one that
            the run lies in.

    Raises:
        ConfigError: There is no such blend or criterion, or an experiment is wrong.
        OutputError: The folder holds no finished run, a file that it needs is missing, or
            something is not as it was when the run predicted the test photos.
    """
    opened, root = open_run(Path(run), project)
    experiment = read_resolved(opened, root)
    task = experiment.globals.task
    if task in MEMBERS:
        if blend is not None:
            raise ConfigError(f"{root}: is a single experiment; it has no blend {blend!r}")
        chosen = criterion_of(root, criterion, any_will_do=task == "frozen-features")
        return Predictor(root, [read_member(opened, root, chosen, device)], None)
    if task != "ensemble":
        raise OutputError(f"{root}: holds a {task} run, which predicts nothing")
    if criterion is not None:
        raise ConfigError(f"{root}: is an ensemble, whose file says which snapshots are taken")
    settings = EnsembleSettings.model_validate(experiment.tree["ensemble"])
    manifest = read_manifest(root / MANIFEST)
    if manifest is None:
        raise OutputError(f"{root / MANIFEST}: no such file; run 'foldsmith ensemble' first")
    members = [
        read_member(opened, folder, settings.criterion, device) for folder in settings.experiments
    ]
    return Predictor(root, members, _read_blend(experiment, settings, root, manifest, blend))


def predict(
    run: Path | str,
    photos: Iterable[str | Path],
    output: Path | None = None,
    *,
    blend: str | None = None,
    criterion: Criterion | None = None,
    skip_bad: bool = False,
    device: str | None = None,
    project: Path | str | None = None,
) -> pd.DataFrame:
    """Predict photos, and write the predictions into a file.

    Args:
        run: As for :func:`load`.
        photos: Files, folders (with all below them) and patterns such as ``new/*.jpg``.
        output: A .csv, .json or .parquet file, which is replaced; None writes none.
        blend: As for :func:`load`.
        criterion: As for :func:`load`.
        skip_bad: No prediction for a photo that cannot be read, instead of an error.
        device: As for :func:`load`.
        project: As for :func:`load`.

    Returns:
        As :meth:`Predictor.predict`.

    Raises:
        ConfigError: As :func:`load`, or the file is of another kind.
        OutputError: As :func:`load`.
        DataError: A folder or pattern holds no photo, or photos cannot be read; nothing is
            written then.
    """
    if output is not None:
        _check_format(output)
    found = find_photos(photos)
    predictor = load(run, blend=blend, criterion=criterion, device=device, project=project)
    table, problems = predictor._predict(found, skip_bad)
    for problem in problems.values():
        print(f"warning: no prediction: {problem}", file=sys.stderr)
    if output is not None:
        _write(output, table)
        unread = f", {len(problems)} of them without a prediction" if problems else ""
        how = f"{predictor.blend} of " if predictor.blend else ""
        print(
            f"wrote {shown(output)} ({len(table)} photos{unread}; by {how}"
            f"{', '.join(predictor.members)})"
        )
    return table


def _read_blend(
    experiment: Experiment,
    settings: EnsembleSettings,
    root: Path,
    manifest: Manifest,
    name: str | None,
) -> _Blend:
    """Return a blend of an ensemble: by its weights, or, where it has none, fitted again."""
    project, hashes = experiment.project, FileHashes(experiment.project.hash_store)
    predictions = member_hashes(project, experiment)
    if manifest.inputs["predictions"] != predictions:
        raise OutputError(
            f"{root}: has blended other predictions than those of its experiments now; run "
            "'foldsmith ensemble' again"
        )
    weights_file, scores_file = root / "weights.csv", root / "ensemble_scores.csv"
    for path in (weights_file, scores_file):
        digest = hashes.of(path)
        if digest != manifest.outputs.get(path.name):
            state = "no such file" if digest == "missing" else "was changed"
            raise OutputError(f"{path}: {state}; run 'foldsmith ensemble' again")
    names = [str(value) for value in read_table(scores_file, ["name"])["name"]]
    name = str(manifest.facts["submit"]) if name is None else name
    if name not in names:
        raise ConfigError(f"{root}: has no blend {name!r}{did_you_mean(name, names)}")
    goal = Goal(project_metric(project), project.target_range, tuple(project.class_values))
    weights = read_table(weights_file, ["experiment"])
    if name in weights.columns:
        fitted = FittedWeights(weights[name].to_numpy(dtype=np.float64), goal.bounds)
        return _Blend(name, goal, fitted, with_facts=False)
    changed = differences(manifest.inputs, ensemble_inputs(experiment, predictions, hashes))
    if changed:
        raise OutputError(
            f"{root}: the blend {name} has to be fitted again, and what it was fitted to has "
            f"changed ({'; '.join(changed[:5])}); run 'foldsmith ensemble' again"
        )
    table, test = read_folds(project, experiment.globals.meta_file), read_test(project)
    members = read_members(project, settings, table, test)
    with_facts = name == "stack"
    rows, _ = rows_of(project, members, goal.metric, table, test, with_facts)
    tasks = [member.task for member in members]
    candidates = candidates_of(tasks, settings, goal, experiment.globals.seed)
    blend = next(candidate.blend for candidate in candidates if candidate.name == name)
    fitted_again = blend.fit(rows, targets_of(project, table).astype(np.float64))
    return _Blend(name, goal, fitted_again, with_facts)


def _check_format(path: Path) -> None:
    """Make sure, before the work, that a table can be written into a file of this name.

    Raises:
        ConfigError: It is of no known kind, or a library is missing.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"{path}: must end with {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    engines = ("pyarrow", "fastparquet")
    if path.suffix.lower() == ".parquet" and not any(map(importlib.util.find_spec, engines)):
        raise ConfigError(f"{path}: Parquet needs pyarrow; run 'pip install pyarrow', or use .csv")


def _write(path: Path, table: pd.DataFrame) -> None:
    kind = path.suffix.lower()
    if kind == ".csv":
        write_csv(path, table)
    elif kind == ".json":
        # JSON has no NaN.
        plain = table.astype(object).where(table.notna(), None)
        write_json(path, plain.to_dict(orient="records"))
    else:
        with replacing(path) as temporary:
            table.to_parquet(temporary, index=False)
