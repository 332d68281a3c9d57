"""The plain mean of several blends."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foldsmith.blending.base import FittedBlend, FittedOnSome, Mask, Rows
from foldsmith.models.fitted_arrays import Arrays, prefixed

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FittedMeanOfBlends:
    """The plain mean of the predictions of fitted blends.

    Attributes:
        blends: The blends, at least one, of the same members.
    """

    blends: tuple[FittedBlend, ...]

    @property
    def with_facts(self) -> bool:
        """Whether one of them needs the facts of each image."""
        return any(blend.with_facts for blend in self.blends)

    def uses(self, n_members: int) -> Mask:
        """Return the members that at least one of them uses."""
        used: Mask = np.any([blend.uses(n_members) for blend in self.blends], axis=0)
        return used

    def among(self, members: Mask) -> "FittedMeanOfBlends":
        """Return it for rows of more members."""
        return FittedMeanOfBlends(tuple(blend.among(members) for blend in self.blends))

    def only(self, used: Mask) -> "FittedMeanOfBlends":
        """Return it for rows of the members alone that it uses; each blend keeps its own."""

        def narrowed(blend: FittedBlend) -> FittedBlend:
            own = blend.uses(len(used))
            if not own.any():
                return blend.only(used)
            return FittedOnSome(blend.only(own), own[used])

        return FittedMeanOfBlends(tuple(narrowed(blend) for blend in self.blends))

    def predict(self, rows: Rows) -> Array:
        """Return the means, shape (n,) or (n, n_classes)."""
        means: Array = np.mean([blend.predict(rows) for blend in self.blends], axis=0)
        return means

    def arrays(self) -> Arrays:
        """Return the arrays of all blends."""
        found: Arrays = {"n_blends": np.array(len(self.blends))}
        for k, blend in enumerate(self.blends):
            found |= prefixed(str(k), blend.arrays())
        return found
