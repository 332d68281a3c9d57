"""What predicts new photos: members, and the blend of what they say."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.blending.base import FittedBlend, Goal
from foldsmith.blending.stacking import FittedTrees
from foldsmith.data.parallel import on_all_cores
from foldsmith.data.photos_at_hand import PhotosAtHand, as_list, pixels_of
from foldsmith.data.statistics import photo_statistics
from foldsmith.errors import DataError
from foldsmith.stages.member_models import MemberModels
from foldsmith.stages.members import blend_rows
from foldsmith.tasks.scoring import class_probabilities

Array = npt.NDArray[np.float64]

# Prepared photos that wait in memory for the models: so much at a time, however many there are.
_CHUNK_BYTES = 256 * 2**20


@dataclass(frozen=True)
class NamedBlend:
    """A fitted blend of an ensemble.

    Attributes:
        name: Its name in the ensemble's tables.
        goal: What it was made for.
        fitted: What predicts.
    """

    name: str
    goal: Goal
    fitted: FittedBlend

    @property
    def with_facts(self) -> bool:
        """Whether it wants to know more of a photo than the members' predictions."""
        return isinstance(self.fitted, FittedTrees)


class Predictor:
    """Predicts new photos as a finished run has predicted the test photos.

    Models, preparation of the photos, test-time augmentation, blend and rounding are the same:
    test photos get what the run's submission says of them. All models are in memory. Made by
    :func:`~foldsmith.stages.predict.load`.

    Attributes:
        run: Output folder of the run, or the folder that it was exported into.
        members: Names of the experiments that are blended; of a single experiment its own.
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
        return self.predict_all(as_list(images), skip_bad)[0]

    def predict_all(
        self, images: Sequence[Any], skip_bad: bool
    ) -> tuple[pd.DataFrame, dict[int, str]]:
        """Return the predictions of a list, and what is wrong with each image that has none.

        Otherwise as :meth:`predict`.
        """
        if not images:
            raise DataError("there are no images to predict")
        heads = [models.head for models in self.models]
        with_facts = self.fitted_blend is not None and self.fitted_blend.with_facts
        problems: dict[int, str] = {}
        logits: list[list[npt.NDArray[np.float32]]] = [[] for _ in self.models]
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
        for models, said in zip(self.models, logits, strict=True):
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
            models.task.predict(said) for models, said in zip(self.models, logits, strict=True)
        ]
        points = [predictions.mean(axis=0) for predictions in by_fold]
        if self.fitted_blend is None:
            return points[0], by_fold[0].std(axis=0)
        goal = self.fitted_blend.goal
        probabilities = [
            class_probabilities(models.task.name, goal.class_values, said)
            for models, said in zip(self.models, logits, strict=True)
        ]
        means = [None if known is None else known.mean(axis=0) for known in probabilities]
        rows = blend_rows(goal.metric, points, means, facts)
        prediction = goal.points(self.fitted_blend.fitted.predict(rows))
        return goal.metric.as_judged(prediction), np.std(points, axis=0)
