"""The blocks of probabilities of several class targets: one block per column."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClassBlocks:
    """The columns of several class targets, and their places among the probabilities.

    Attributes:
        names: Names of the columns.
        sizes: Number of classes of each.
        weights: Weight of each in metrics and losses, above 0.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def n_outputs(self) -> int:
        """Number of probabilities of an image."""
        return sum(self.sizes)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Place of each column's probabilities."""
        return slices_of(self.sizes)

    def of(self, outputs: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """Return the outputs of each column, shape (..., n_classes), of all of them."""
        return [outputs[..., part] for part in self.slices]

    def encoded(self, targets: Array) -> Array:
        """Return 0 and 1 for each class, NaN for all classes of a missing target.

        Args:
            targets: Class numbers, shape (n, n_columns), NaN where one is missing.

        Returns:
            Shape (n, n_outputs).
        """
        found = np.full((len(targets), self.n_outputs), np.nan)
        for part, size, column in zip(self.slices, self.sizes, targets.T, strict=True):
            seen = ~np.isnan(column)
            found[seen, part] = np.eye(size)[column[seen].astype(np.int64)]
        return found

    def decided(self, probabilities: Array) -> npt.NDArray[np.int64]:
        """Return the most probable class of each column, shape (n, n_columns)."""
        return np.stack([block.argmax(axis=-1) for block in self.of(probabilities)], axis=-1)


def slices_of(sizes: Sequence[int]) -> tuple[slice, ...]:
    """Return the place of each of several blocks that follow each other."""
    ends = np.cumsum(sizes).tolist()
    return tuple(slice(end - size, end) for end, size in zip(ends, sizes, strict=True))
