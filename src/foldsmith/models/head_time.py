"""How the time of a head on frozen features grows with its rows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from foldsmith.models.fitted_heads import Features, FittedHead, Targets

Fit = Callable[[Features, Targets, npt.NDArray[np.int64], int], FittedHead | None]


@dataclass(frozen=True)
class TimePart:
    """A part of the time that a head takes.

    Attributes:
        fit: The work for features, targets, groups and seed; a result also predicts.
        rows: Rows up to which the time grows in its own way; None for any number.
        power: Beyond them it grows with this power of the rows.
    """

    fit: Fit
    rows: int | None = None
    power: int = 0


class _InParts(Protocol):
    def time_parts(self, n_features: int) -> tuple[TimePart, ...]:
        """Return the parts of the time that the head takes."""


def time_parts(head: Any, n_features: int) -> tuple[TimePart, ...]:
    """Return the parts of the time that a head takes; one, unless it has ``time_parts`` itself.

    Args:
        head: The head.
        n_features: Features of a row.
    """
    own: _InParts | None = head if hasattr(head, "time_parts") else None
    return (TimePart(head.fit),) if own is None else own.time_parts(n_features)
