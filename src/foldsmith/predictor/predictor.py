"""Predict new images: members, and the blend of their predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.blending.base import FittedBlend, Goal
from foldsmith.data.intensity import IntensityRange
from foldsmith.data.loose_images import ImagesAtHand, as_list, pixels_of
from foldsmith.data.parallel import on_all_cores
from foldsmith.data.statistics import image_statistics
from foldsmith.errors import DataError
from foldsmith.predictor.member_models import MemberModels
from foldsmith.project.target_forms import TargetForm
from foldsmith.steps.members import blend_rows
from foldsmith.targets.scoring import mean_prediction, predictions_of
from foldsmith.targets.task import Task

Array = npt.NDArray[np.float64]

# Prepared images that wait in memory for the models: so much at a time, however many there are.
_CHUNK_BYTES = 256 * 2**20


@dataclass(frozen=True)
class NamedBlend:
    """A fitted blend of an ensemble.

    Attributes:
        name: Its name in the ensemble's tables.
        goal: Objective of the blend.
        fitted: The fitted blend.
    """

    name: str
    goal: Goal
    fitted: FittedBlend

    @property
    def with_facts(self) -> bool:
        """Whether the blend needs measurements of the images beside the members' predictions."""
        return self.fitted.with_facts


class Predictor:
    """Predicts new images as a finished run has predicted the test images.

    Models, preparation of the images, test-time augmentation, blend and rounding are the same:
    test images get the values in the run's submission. All models are in memory. Made by
    :func:`~foldsmith.predictor.predict.load`.

    Attributes:
        run: Output folder of the run, or the folder that it was exported into.
        members: Names of the experiments with a weight in the blend; for a single experiment, its
            own.
        blend: Name of the blend; None for a single experiment.
        models: The members themselves.
        fitted_blend: The blend itself; None for a single experiment.
    """

    def __init__(
        self, run: Path, members: Sequence[MemberModels], blend: NamedBlend | None
    ) -> None:
        self.run = run
        self.members = [member.name for member in members]
        self.blend = None if blend is None else blend.name
        self.models = list(members)
        self.fitted_blend = blend

    def __repr__(self) -> str:
        of = f"{self.blend} of " if self.blend else ""
        return f"<Predictor: {of}{', '.join(self.members)}>"

    @property
    def intensity_range(self) -> IntensityRange | None:
        """Scale of images with more than 8 bits per channel, as the models were trained with."""
        return self.models[0].experiment.project.intensity_range

    def predict(self, images: Any, skip_bad: bool = False) -> pd.DataFrame:
        """Predict images.

        Args:
            images: One image or any iterable of them: paths of images, RGB arrays (uint8,
                shape (H, W, 3)) or PIL images.
            skip_bad: NaN for an image that cannot be read, instead of an error.

        Returns:
            A row per image, in their order. Columns: path (None for an image in memory);
            prediction, in units of the target or the name of a class; spread, the standard
            deviation over the members with a weight (of a single member, over its folds' models);
            probability_NAME of each class or label, if the run blends probabilities or is a single
            experiment that gives them. The deviation is of the predictions; for classes without
            an order, of the probability of the predicted class; for labels, the mean of the
            deviations of their probabilities. Several numbers have prediction_NAME and
            spread_NAME each.

        Raises:
            DataError: There are no images, or some cannot be read: a line for each of these.
        """
        return self.predict_all(as_list(images), skip_bad)[0]

    def predict_all(
        self, images: Sequence[Any], skip_bad: bool
    ) -> tuple[pd.DataFrame, dict[int, str]]:
        """Return the predictions of a list, and the problem of each unreadable image.

        Otherwise as :meth:`predict`.
        """
        if not images:
            raise DataError("there are no images to predict")
        heads = [models.head for models in self.models]
        with_facts = self.fitted_blend is not None and self.fitted_blend.with_facts
        problems: dict[int, str] = {}
        logits: list[list[npt.NDArray[np.float32]]] = [[] for _ in self.models]
        facts: list[Sequence[float]] = []
        waiting = ImagesAtHand(heads)
        prepare = waiting.versions

        def read(number: int) -> str | tuple[dict[str, npt.NDArray[np.uint8]], Sequence[float]]:
            try:
                image = pixels_of(images[number], f"image {number}", self.intensity_range)
            except DataError as error:
                return str(error)
            return prepare(image), image_statistics(image) if with_facts else ()

        for number, result in enumerate(
            on_all_cores(read, range(len(images)), "images", leave=False)
        ):
            if isinstance(result, str):
                problems[number] = result
            elif skip_bad or not problems:
                waiting.add(result[0])
                facts.append(result[1])
            # After an error nothing is computed any more: only further errors are looked for.
            if waiting.n_bytes >= _CHUNK_BYTES and (skip_bad or not problems):
                self._ask(waiting, logits)
                waiting = ImagesAtHand(heads)
        if problems and not skip_bad:
            raise DataError("\n".join(problems.values()))
        if len(waiting):
            self._ask(waiting, logits)
        paths = [str(x) if isinstance(x, (str, Path)) else None for x in images]
        form = self.models[0].experiment.project.form
        table = pd.DataFrame({"path": paths} | form.no_prediction(len(paths)))
        if facts:
            good = [number for number in range(len(images)) if number not in problems]
            joined = [np.concatenate(parts, axis=1) for parts in logits]
            outcome = self._outcome(joined, np.array(facts) if with_facts else None)
            table = table[["path"]].join(outcome.set_axis(good))
        return table, problems

    def _ask(self, images: ImagesAtHand, logits: list[list[npt.NDArray[np.float32]]]) -> None:
        for models, said in zip(self.models, logits, strict=True):
            said.append(models.logits(images))

    def _outcome(
        self, logits: Sequence[npt.NDArray[np.float32]], facts: Array | None
    ) -> pd.DataFrame:
        """Return predictions and spreads, and probabilities where there are some.

        Args:
            logits: Logits of each member, shape (n_folds, n, n_outputs).
            facts: Size and colours of the images, shape (n, 8), if the blend needs them.
        """
        if self.fitted_blend is None:
            form = self.models[0].experiment.project.form
            return _of_single(self.models[0].tasks, form, logits[0])
        by_fold = [
            predictions_of(models.tasks, said)
            for models, said in zip(self.models, logits, strict=True)
        ]
        points = [predictions.mean(axis=0) for predictions in by_fold]
        goal = self.fitted_blend.goal
        probabilities = [
            models.tasks[0].probabilities(said)
            for models, said in zip(self.models, logits, strict=True)
        ]
        means = [None if known is None else known.mean(axis=0) for known in probabilities]
        rows = blend_rows(goal.metric, points, means, facts)
        blended = self.fitted_blend.fitted.predict(rows)
        prediction = goal.metric.as_judged(goal.points(blended))
        used = self.fitted_blend.fitted.uses(len(points))
        counted = np.flatnonzero(used if used.any() else np.ones_like(used))
        # Of one member, how far its folds' models disagree.
        alone = int(counted[0]) if len(counted) == 1 else None
        said = np.stack(points)[counted] if alone is None else by_fold[alone]
        spread = said.std(axis=0)
        if not goal.metric.takes_probabilities:
            return _of_numbers(prediction, spread, goal.form)
        of_one = None if alone is None else probabilities[alone]
        by_model = rows.predictions[counted] if of_one is None else of_one
        return _of_classes(prediction, spread, blended, by_model, goal.form, goal.labels)


def _of_single(
    tasks: Sequence[Task], form: TargetForm, logits: npt.NDArray[np.float32]
) -> pd.DataFrame:
    """Return the predictions of a single experiment; logits have shape (n_folds, n, n_outputs)."""
    prediction, spread = mean_prediction(tasks, logits), predictions_of(tasks, logits).std(axis=0)
    task = tasks[0]
    by_fold = task.probabilities(logits)
    if by_fold is None:
        return _of_numbers(prediction, spread, form)
    mean = by_fold.mean(axis=0)
    return _of_classes(prediction, spread, mean, by_fold, form, task.class_labels)


def _of_numbers(prediction: Array, spread: Array, form: TargetForm) -> pd.DataFrame:
    """Return predictions of numbers and their spreads, both of shape (n,) or (n, n_targets)."""
    columns = form.table_of("prediction", prediction)
    return pd.DataFrame(columns | form.spreads_of(spread))


def _of_classes(
    prediction: Array,
    spread: Array,
    probabilities: Array,
    by_model: Array,
    form: TargetForm,
    labels: Sequence[str],
) -> pd.DataFrame:
    """Return predictions with the probabilities of the classes or labels.

    Args:
        prediction: Point predictions, shape (n,); of labels (n, n_labels).
        spread: Standard deviation of point predictions, of the same shape.
        probabilities: Shape (n, n_classes).
        by_model: Probabilities by each member or fold, shape (n_models, n, n_classes).
        form: Form of the target.
        labels: Text of each class or label.
    """
    columns = {f"probability_{name}": probabilities[:, k] for k, name in enumerate(labels)}
    of_image = form.spreads_of(form.spread(spread, by_model, probabilities))
    return pd.DataFrame(form.table_of("prediction", prediction) | of_image | columns)
