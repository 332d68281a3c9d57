"""Learning a target as a distribution over bins."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from foldsmith.errors import DataError
from foldsmith.targets.scale import Form, TargetScale
from foldsmith.utils.formatting import number_text

# Standard deviations of the Gaussian that the bins reach beyond the range of the labels: what is
# cut off there moves an expectation by less than a thousandth of the deviation.
_MARGIN = 3.5


@dataclass(frozen=True)
class LabelDistribution:
    """A histogram of the label; the prediction is the expectation of the bins' targets.

    HL-Gauss: the label becomes a Gaussian around it, integrated over the bins (Imani & White,
    "Improving Regression Performance with Distributional Losses", 2018; Farebrother et al.,
    "Stop Regressing", 2024). The label is the target, or a continuous quantity that the target
    is a coarse form of, as a date is of a century: bins then have the target of their piece.

    The bins are equally wide on the task's scale, from the lowest to the highest possible label, or
    to the ends of the scale.

    Attributes:
        label_range: Lowest and highest possible label.
        n_bins: Bins within the range; as many of the same width as the Gaussian needs beyond
            it come on each side.
        sigma: Standard deviation of the Gaussian, in bins, above 0.
        target_range: Lowest and highest possible target.
        thresholds: Labels at which the target changes, ascending; none if it is the label.
        piece_targets: Target below, between and above the thresholds.
        column: Column of the labels, for messages.
        scale: Scale of the labels, fitted to those of the training of a fold; None for the labels
            themselves.
    """

    label_range: tuple[float, float]
    n_bins: int
    sigma: float
    target_range: tuple[float, float]
    thresholds: tuple[float, ...] = ()
    piece_targets: tuple[float, ...] = ()
    column: str = "target"
    scale: TargetScale | None = None
    name: Literal["label-distribution"] = "label-distribution"

    # The form of the target that is learned can be chosen.
    scales = True

    def fitted(self, labels: npt.NDArray[np.float64], form: Form | None) -> "LabelDistribution":
        """Return the task with the scale of these training labels, shape (n,)."""
        return self.with_scale(None if form is None else TargetScale.fit(labels, form))

    def with_scale(self, scale: TargetScale | None) -> "LabelDistribution":
        """Return the task with a scale that was fitted before."""
        return replace(self, scale=scale)

    def _learned(self, labels: npt.ArrayLike) -> npt.NDArray[np.float64]:
        values = np.asarray(labels, np.float64)
        return values if self.scale is None else self.scale.forward(values)

    @property
    def _ends(self) -> tuple[float, float]:
        """Lowest and highest label on the scale; any two where all are equal."""
        low, high = self._learned(self.label_range).tolist()
        return (low, high) if low < high else (low - 1.0, high + 1.0)

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """Edges of the bins on the scale, ascending, shape (n_outputs + 1,)."""
        low, high = self._ends
        width = (high - low) / self.n_bins
        beyond = math.ceil(_MARGIN * self.sigma)
        steps = np.arange(-beyond, self.n_bins + beyond + 1)
        return np.asarray(low + width * steps, np.float64)

    @property
    def bin_targets(self) -> npt.NDArray[np.float64]:
        """Mean target of each bin, shape (n_outputs,)."""
        edges = self.edges
        if not self.thresholds:
            middle = (edges[:-1] + edges[1:]) / 2
            return middle if self.scale is None else self.scale.inverse(middle)
        # A bin with a threshold in it has so much of either side's target.
        cuts = np.array([-np.inf, *self._learned(self.thresholds), np.inf])
        overlap = np.minimum(edges[1:, None], cuts[1:]) - np.maximum(edges[:-1, None], cuts[:-1])
        shares = np.clip(overlap, 0, None) / (edges[1:] - edges[:-1])[:, None]
        targets: npt.NDArray[np.float64] = shares @ np.asarray(self.piece_targets)
        return targets

    @property
    def n_outputs(self) -> int:
        """Number of logits per photo."""
        return len(self.edges) - 1

    def codes(self, labels: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Return where each label lies, in bins from the lower end of the range, shape (n,)."""
        low, high = self._ends
        codes: npt.NDArray[np.float64] = (self._learned(labels) - low) / (high - low) * self.n_bins
        return codes.clip(0, self.n_bins).astype(np.float32)

    def encode(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the probability of each bin, float32, shape (n, n_outputs).

        Args:
            codes: As :meth:`codes` returns them.
        """
        beyond = math.ceil(_MARGIN * self.sigma)
        edges = torch.arange(-beyond, self.n_bins + beyond + 1, device=codes.device)
        below: torch.Tensor = torch.special.ndtr((edges - codes.float()[:, None]) / self.sigma)
        inside = below.diff(dim=1)
        return inside / inside.sum(dim=1, keepdim=True)

    def targets(self, labels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the target of each label, shape (n,)."""
        if not self.thresholds:
            return labels
        pieces = np.searchsorted(np.asarray(self.thresholds), labels, side="left")
        return np.asarray(self.piece_targets, np.float64)[pieces]

    def check(self, targets: npt.NDArray[np.float64]) -> None:
        """Make sure that labels are within their range, once, before training.

        Raises:
            DataError: One is not, or is no number.
        """
        low, high = self.label_range
        outside = ~((targets >= low) & (targets <= high))
        if outside.any():
            raise DataError(
                f"column {self.column}: {outside.sum()} values are no number or outside "
                f"{number_text(low)}..{number_text(high)}, the first in row "
                f"{int(outside.argmax()) + 1}; see project.yml"
            )

    def predict(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the expectation of the softmax over the bins' targets, within the range.

        Args:
            logits: Shape (..., n_outputs).

        Returns:
            Shape (...).
        """
        if self.scale is not None and self.scale.constant:
            (target,) = self.targets(np.array([self.scale.origin]))
            return np.full(logits.shape[:-1], target)
        weights = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
        expectation = weights @ self.bin_targets / weights.sum(axis=-1)
        clipped: npt.NDArray[np.float64] = np.clip(expectation, *self.target_range)
        return clipped

    def constant_logits(self, targets: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Return the log of the labels' mean distribution, shape (n_outputs,)."""
        mean = self.encode(torch.from_numpy(self.codes(targets))).double().mean(dim=0).numpy()
        logits: npt.NDArray[np.float32] = np.log(np.maximum(mean, 1e-12)).astype(np.float32)
        return logits
