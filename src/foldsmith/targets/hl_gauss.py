"""HL-Gauss: learning a target as a distribution over bins."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.number_columns import numbers
from foldsmith.project.tables import targets_of
from foldsmith.targets.column_scales import ColumnScales, Scale
from foldsmith.targets.scale import TargetScale
from foldsmith.targets.task import VALUE_TEXT, Array, Explained, Logits, Task
from foldsmith.utils.formatting import number_text

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

    from foldsmith.config.settings import Globals

# Standard deviations by which the bins extend beyond the range of the labels: truncation there
# changes an expectation by less than a thousandth of the deviation.
_MARGIN = 3.5


@dataclass(frozen=True)
class HLGauss(Task):
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

    name = "hl-gauss"
    default_loss = "CrossEntropyLoss"
    learns_numbers = True
    takes_continuous = True

    @classmethod
    def from_settings(cls, settings: Globals, project: ProjectFolder) -> Self:
        """Return the task for the target, or for the project's ``continuous`` column."""
        bins = settings.n_bins, settings.label_sigma, project.target_range
        continuous = project.settings.continuous
        if continuous is None or not settings.continuous_target:
            return cls(project.target_range, *bins)
        return cls(
            *(continuous.range, *bins, continuous.thresholds),
            piece_targets=tuple(sorted(project.class_values)),
            column=continuous.column,
        )

    def with_scale(self, scale: Scale | None) -> Self:
        """Return the task with a scale that was fitted before."""
        assert not isinstance(scale, ColumnScales), "of one column"
        return replace(self, scale=scale)

    def _learned(self, labels: npt.ArrayLike) -> Array:
        values = np.asarray(labels, np.float64)
        return values if self.scale is None else self.scale.forward(values)

    @property
    def _ends(self) -> tuple[float, float]:
        """Lowest and highest label on the scale; any two where all are equal."""
        low, high = self._learned(self.label_range).tolist()
        return (low, high) if low < high else (low - 1.0, high + 1.0)

    @property
    def edges(self) -> Array:
        """Edges of the bins on the scale, ascending, shape (n_outputs + 1,)."""
        low, high = self._ends
        width = (high - low) / self.n_bins
        beyond = math.ceil(_MARGIN * self.sigma)
        steps = np.arange(-beyond, self.n_bins + beyond + 1)
        return np.asarray(low + width * steps, np.float64)

    @property
    def bin_targets(self) -> Array:
        """Mean target of each bin, shape (n_outputs,)."""
        edges = self.edges
        if not self.thresholds:
            middle = (edges[:-1] + edges[1:]) / 2
            return middle if self.scale is None else self.scale.inverse(middle)
        # A bin with a threshold in it has so much of either side's target.
        cuts = np.array([-np.inf, *self._learned(self.thresholds), np.inf])
        overlap = np.minimum(edges[1:, None], cuts[1:]) - np.maximum(edges[:-1, None], cuts[:-1])
        shares = np.clip(overlap, 0, None) / (edges[1:] - edges[:-1])[:, None]
        targets: Array = shares @ np.asarray(self.piece_targets)
        return targets

    @property
    def n_outputs(self) -> int:
        """Number of logits per image."""
        return len(self.edges) - 1

    def labels(self, project: ProjectFolder, table: pd.DataFrame) -> Array:
        """Return the label of each row: the target, or the number in the continuous column.

        Raises:
            DataError: The column is missing, or a label does not lead to the row's target.
        """
        targets = targets_of(project, table)
        if not self.thresholds:
            return targets
        if self.column not in table:
            raise DataError(f"{project.settings.train_csv}: no column {self.column!r} (continuous)")
        labels = numbers(table[self.column]).to_numpy(np.float64, copy=True)
        self.check(labels)
        apart = np.diff(np.sort(project.class_values)).min()
        wrong = np.abs(self.targets(labels) - targets) > 1e-3 * apart
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(
                f"{project.settings.train_csv}: id {table[project.settings.id_column].iloc[row]}: "
                f"{self.column} {number_text(labels[row])} leads to the target "
                f"{number_text(self.targets(labels)[row])}, but the table has "
                f"{number_text(targets[row])} ({int(wrong.sum())} such rows); set "
                "continuous/thresholds in project.yml"
            )
        return labels

    def codes(self, labels: Array) -> npt.NDArray[np.float32]:
        """Return where each label lies, in bins from the lower end of the range, shape (n,)."""
        low, high = self._ends
        codes: Array = (self._learned(labels) - low) / (high - low) * self.n_bins
        return codes.clip(0, self.n_bins).astype(np.float32)

    def encode(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the probability of each bin, float32, shape (n, n_outputs).

        Args:
            codes: As :meth:`codes` returns them.
        """
        import torch

        beyond = math.ceil(_MARGIN * self.sigma)
        edges = torch.arange(-beyond, self.n_bins + beyond + 1, device=codes.device)
        below: torch.Tensor = torch.special.ndtr((edges - codes.float()[:, None]) / self.sigma)
        inside = below.diff(dim=1)
        return inside / inside.sum(dim=1, keepdim=True)

    def targets(self, labels: Array) -> Array:
        """Return the target of each label, shape (n,)."""
        if not self.thresholds:
            return labels
        pieces = np.searchsorted(np.asarray(self.thresholds), labels, side="left")
        return np.asarray(self.piece_targets, np.float64)[pieces]

    def check(self, labels: Array) -> None:
        """Check that labels are within their range.

        Raises:
            DataError: A value is not in the range, or not a number.
        """
        low, high = self.label_range
        outside = ~((labels >= low) & (labels <= high))
        if outside.any():
            raise DataError(
                f"column {self.column}: {outside.sum()} values are not numbers or outside "
                f"{number_text(low)}..{number_text(high)}, the first in row "
                f"{int(outside.argmax()) + 1}; see project.yml"
            )

    def predict(self, logits: Logits) -> Array:
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
        clipped: Array = np.clip(expectation, *self.target_range)
        return clipped

    def constant_logits(self, labels: Array) -> Logits:
        """Return the log of the labels' mean distribution, shape (n_outputs,)."""
        import torch

        mean = self.encode(torch.from_numpy(self.codes(labels))).double().mean(dim=0).numpy()
        logits: Logits = np.log(np.maximum(mean, 1e-12)).astype(np.float32)
        return logits

    def explained(self) -> Explained:
        """Return the expectation of the bins' targets."""
        import torch

        # Distances from their middle: in float32 large targets would lose their differences.
        middle = float(self.bin_targets.mean())
        distances = torch.from_numpy(self.bin_targets - middle).float()
        return Explained(
            lambda logits: logits.softmax(dim=1) @ distances.to(logits.device) + middle,
            False,
            VALUE_TEXT,
        )
