"""Simple baselines: out-of-fold scores that a run has to beat, beside the constant."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.blending.base import Goal, Mask
from foldsmith.data.images import read_image
from foldsmith.data.parallel import on_all_cores
from foldsmith.data.transforms.base import Compose
from foldsmith.models.number_heads import NumbersHead
from foldsmith.models.simple_features import SIMPLE_FEATURES, Features, small_copy
from foldsmith.models.simple_models import (
    FittedModel,
    Model,
    models_of_class_targets,
    models_of_classes,
    models_of_labels,
    models_of_numbers,
)
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import (
    FOLD_COLUMN,
    groups_of,
    image_paths,
    metric_weights_of,
    targets_of,
)
from foldsmith.steps.data_hashes import hash_folds, hash_images
from foldsmith.steps.inputs.shared import metric_files
from foldsmith.steps.manifest import Manifest
from foldsmith.targets.metrics import Metric
from foldsmith.utils.atomic import write_json
from foldsmith.utils.hashing import FileHashes, hash_value
from foldsmith.utils.locking import lock

Array = npt.NDArray[np.float64]

# Labelled images that are read and scored, at most: larger tables are sampled, to take seconds.
MOST_ROWS = 2000

# Whatever the experiments' seeds are, these scores stay.
_SEED = 0
# Another number makes stored scores stale: features or models have changed.
_VERSION = 1
# Seconds to wait for another process that computes the same.
_WAIT_S = 600.0


@dataclass(frozen=True)
class SimpleBaselines:
    """Scores of plain models on plain features, out of fold on the folds of the project.

    Attributes:
        scores: "features, model" -> metric of all rows together.
        rows: Positions of the scored rows in the fold table, ascending.
        metric: The metric.
    """

    scores: dict[str, float]
    rows: npt.NDArray[np.int64]
    metric: Metric

    @property
    def best(self) -> str:
        """Name of the best one. It is chosen by its score, which is a little too good for that."""
        names = list(self.scores)
        return names[self.metric.best([self.scores[name] for name in names])]


def simple_baselines(
    project: ProjectFolder, table: pd.DataFrame, hashes: FileHashes
) -> SimpleBaselines:
    """Return the scores of the simple baselines of a project.

    Four kinds of features (:data:`~foldsmith.models.simple_features.SIMPLE_FEATURES`) with three
    models each: ridge regression, a support vector machine and extremely randomised trees; for a
    metric of classes that ignores their order a logistic regression in the place of the first, and
    classifiers. Nothing is tuned on more than the training folds. The scores are kept by the
    content of the images, targets, folds and groups.

    Args:
        project: The project, whose metric judges.
        table: The fold table.
        hashes: Hashes of files.

    Raises:
        DataError: An image cannot be read.
    """
    rows = _chosen(len(table))
    chosen = table.iloc[rows].reset_index(drop=True)
    key = hash_value(_question(project, chosen, hashes))
    file, metric = project.baselines, project.metric
    known = _read(file)
    if key not in known:
        with lock(file, _WAIT_S):
            known = _read(file)
            if key not in known:
                known[key] = _compute(project, chosen)
                write_json(file, known)
    return SimpleBaselines(known[key], rows, metric)


@dataclass(frozen=True)
class ScoresToBeat:
    """Score of a run beside the scores to beat.

    Attributes:
        metric: Name of the metric.
        constant: Score of the same prediction for every image.
        baseline: Name of the best simple baseline.
        baseline_score: Its score.
        n_baselines: From so many it was chosen.
        run_score: Score of the run on the same rows as the baseline's.
        n_rows: So many rows.
        n_labelled: Number of labelled images.
        beaten: Whether the run is better than the baseline.
        beats_constant: Whether it is better than the constant.
    """

    metric: str
    constant: float
    baseline: str
    baseline_score: float
    n_baselines: int
    run_score: float
    n_rows: int
    n_labelled: int
    beaten: bool
    beats_constant: bool

    @property
    def title(self) -> str:
        """The baseline, in a few words."""
        return f"best of {self.n_baselines} simple baselines ({self.baseline}){self._rows}"

    @property
    def _rows(self) -> str:
        of_all = self.n_rows == self.n_labelled
        return "" if of_all else f", on {self.n_rows} of {self.n_labelled} images"

    @property
    def sentence(self) -> str:
        """All scores in a line."""
        return (
            f"{self.metric} out of fold: constant {self.constant:.4f}; {self.title} "
            f"{self.baseline_score:.4f}; this run {self.run_score:.4f}"
        )

    @property
    def warning(self) -> str:
        """Sentence about a run that loses to the constant or the baseline; empty if to neither."""
        if not self.beats_constant:
            return (
                f"this run ({self.metric} {self.run_score:.4f}) is not better than the constant "
                f"({self.constant:.4f}), the same prediction for every image: out of fold it has "
                "learned nothing of use; look at targets, groups and rare classes, or train for "
                "longer"
            )
        if self.beaten:
            return ""
        return (
            f"this run ({self.metric} {self.run_score:.4f}) is not better than a simple baseline "
            f"({self.baseline}: {self.baseline_score:.4f}): train for longer, or add a member on "
            "fixed features of the images to ensemble/experiments"
        )

    def facts(self) -> dict[str, Any]:
        """Return it for a manifest."""
        return asdict(self)


def scores_of(manifest: Manifest) -> ScoresToBeat | None:
    """Return the scores that an ensemble noted in its manifest; None if it could not."""
    facts = manifest.facts["to_beat"]
    return None if facts is None else ScoresToBeat(**facts)


def scores_to_beat(
    goal: Goal,
    baselines: SimpleBaselines,
    predictions: Array,
    targets: Array,
    weights: Array | None = None,
) -> ScoresToBeat:
    """Compare a run with the constant and the best simple baseline, all on the same rows.

    Args:
        goal: Objective of the run.
        baselines: The baselines.
        predictions: The run's predictions out of fold, shape (n,) or (n, n_classes).
        targets: Shape (n,).
        weights: Weight of each row in the metric, shape (n,); None for 1 each.
    """
    metric, rows, best = goal.metric, baselines.rows, baselines.best
    of_rows = None if weights is None else weights[rows]
    score = metric(predictions[rows], targets[rows], of_rows)
    to_beat, constant = baselines.scores[best], goal.constant_score(targets[rows], of_rows)
    return ScoresToBeat(
        metric=metric.title,
        constant=constant,
        baseline=best,
        baseline_score=to_beat,
        n_baselines=len(baselines.scores),
        run_score=score,
        n_rows=len(rows),
        n_labelled=len(targets),
        beaten=bool(metric.gain(score, to_beat) > 0),
        beats_constant=bool(metric.gain(score, constant) > 0),
    )


def _chosen(n: int) -> npt.NDArray[np.int64]:
    """Return the positions of the rows to score: all, or :data:`MOST_ROWS` drawn ones."""
    if n <= MOST_ROWS:
        return np.arange(n)
    drawn = np.random.default_rng(_SEED).permutation(n)[:MOST_ROWS]
    rows: npt.NDArray[np.int64] = np.sort(drawn)
    return rows


def _question(project: ProjectFolder, table: pd.DataFrame, hashes: FileHashes) -> dict[str, object]:
    """Return everything that the scores depend on."""
    metric, weights = project.metric, metric_weights_of(project, table)
    return {
        "version": [_VERSION, version("scikit-learn")],
        "metric": metric.title,
        "files of the metric": metric_files(project, hashes, metric),
        "classes": [
            *map(float, project.class_values),
            *(project.form.labels if project.form.texts else ()),
        ],
        "range": list(project.target_range),
        **({"form": project.form.facts()} if project.form.output_weights is not None else {}),
        "intensity": project.intensity_range,
        "folds": hash_folds(project, table),
        "targets": targets_of(project, table).tolist(),
        **({} if weights is None else {"metric weights": weights.tolist()}),
        "groups": groups_of(project, table).tolist(),
        "images": hash_images(image_paths(project, table), hashes),
    }


def _read(file: Path) -> dict[str, dict[str, float]]:
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _compute(project: ProjectFolder, table: pd.DataFrame) -> dict[str, float]:
    """Fit all baselines; return their scores by name."""
    metric, goal = project.metric, Goal.of_project(project)
    targets, groups = targets_of(project, table), groups_of(project, table)
    weights = metric_weights_of(project, table)
    folds, models = table[FOLD_COLUMN].to_numpy(dtype=np.int64), _models(goal)

    def read(path: Path) -> npt.NDArray[np.uint8]:
        return small_copy(read_image(path, Compose([]), project.intensity_range))

    paths = image_paths(project, table)
    images = np.stack(list(on_all_cores(read, paths, "simple baselines", leave=False)))
    scores = {}
    for kind, compute in SIMPLE_FEATURES.items():
        features = compute(images)
        for name, model in models.items():
            predicted = [
                (held, model.fit(features[~held], targets[~held], groups[~held], _SEED))
                for held in (folds == fold for fold in np.unique(folds))
            ]
            scores[f"{kind}, {name}"] = metric(
                _out_of_fold(goal, features, predicted), targets, weights
            )
    return scores


def _models(goal: Goal) -> Mapping[str, Model]:
    """Return the models by name: of numbers, or of classes if the metric ignores their order."""
    metric = goal.metric
    if metric.of_labels:
        return models_of_labels()
    if metric.of_numbers:
        return {name: NumbersHead(model) for name, model in models_of_numbers().items()}
    if goal.form.block_sizes:
        return models_of_class_targets(goal.form.block_sizes)
    if not metric.of_classes or (metric.uses_order and not metric.takes_probabilities):
        return models_of_numbers()
    return models_of_classes(goal.form.class_values)


def _out_of_fold(
    goal: Goal, features: Features, fitted: Sequence[tuple[Mask, FittedModel]]
) -> Array:
    """Return the predictions of each fold's rows by its model, as the metric takes them."""
    parts = [(held, model.predict(features[held])) for held, model in fitted]
    found = np.empty((len(features), *parts[0][1].shape[1:]))
    for held, predicted in parts:
        found[held] = predicted
    if goal.metric.takes_probabilities:
        return found
    if found.ndim == 2 and not goal.metric.of_numbers:
        values: Array = np.asarray(goal.form.class_values)[found.argmax(axis=1)]
        return values
    return np.clip(found, *goal.bounds)
