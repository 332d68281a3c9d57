"""One of several targets of an image, judged alone: its row in reports and comparisons."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foldsmith.blending.bootstrap import bootstrap, interval
from foldsmith.targets.metric import Metric

Array = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int64]


@dataclass(frozen=True)
class JudgedColumn:
    """A target, of the images that have it.

    Attributes:
        name: Its column.
        metric: The metric of this column alone.
        seen: Which images have it, shape (n,).
        truth: Their targets, shape (n_seen,).
        groups: Number of each one's group, from 0 on, shape (n_seen,).
        weights: Weight of each in the metric, shape (n_seen,); None for 1 each.
    """

    name: str
    metric: Metric
    seen: npt.NDArray[np.bool_]
    truth: Array
    groups: Groups
    weights: Array | None

    @classmethod
    def of(
        cls, name: str, metric: Metric, targets: Array, groups: Groups, weights: Array | None
    ) -> "JudgedColumn":
        """Return the column of some images.

        Args:
            name: Its name.
            metric: The metric of this column alone.
            targets: Shape (n,), NaN where one is missing.
            groups: Number of each image's group, shape (n,).
            weights: Weight of each image in the metric, shape (n,); None for 1 each.
        """
        seen = ~np.isnan(targets)
        own_groups = np.unique(groups[seen], return_inverse=True)[1]
        of_rows = None if weights is None else weights[seen]
        return cls(name, metric, seen, targets[seen], own_groups, of_rows)

    def score(self, predictions: Array, metric: Metric | None = None) -> float:
        """Return the metric, or another one, of the predictions of all images."""
        return (metric or self.metric)(predictions[self.seen], self.truth, self.weights)

    def scored(self, predictions: Array, with_interval: bool) -> dict[str, object]:
        """Return the number of images and the score, maybe with its 95 % interval over groups.

        Args:
            predictions: Those of all images, shape (n,) or (n, n_classes).
            with_interval: Whether to compute ``low`` and ``high``.
        """
        row: dict[str, object] = {"images": int(self.seen.sum())}
        row[self.metric.title] = self.score(predictions)
        if with_interval:
            own = {self.name: predictions[self.seen]}
            drawn = bootstrap(self.metric, own, self.truth, self.groups, 0, self.weights)
            row["low"], row["high"] = interval(drawn[self.name])
        return row

    def compared(self, runs: Mapping[str, Array], with_interval: bool) -> dict[str, object]:
        """Return the scores of two runs and the gain of the second, maybe with its 95 % interval.

        Args:
            runs: Predictions of all images by A and B, shape (n,) or (n, n_classes) each.
            with_interval: Whether to compute ``low`` and ``high``, by paired resamples of groups.
        """
        row: dict[str, object] = {"label": self.name, "images": int(self.seen.sum())}
        a, b = self.score(runs["A"]), self.score(runs["B"])
        row |= {"A": a, "B": b, "gain": self.metric.gain(b, a)}
        if with_interval:
            own = {run: predictions[self.seen] for run, predictions in runs.items()}
            drawn = bootstrap(self.metric, own, self.truth, self.groups, 0, self.weights)
            row["low"], row["high"] = interval(self.metric.gain(drawn["B"], drawn["A"]))
        return row
