"""Submissions of several class targets: the text of the class of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.project.submission_base import CLASS_TARGETS
from foldsmith.project.submission_columns import NumberColumns
from foldsmith.project.submission_rows import JoinedIds, LongForm, LongNumbers
from foldsmith.utils.formatting import brief


@dataclass(frozen=True)
class TargetColumns(NumberColumns):
    """One row per id, and a column with the class of each of several targets."""

    suits = (CLASS_TARGETS,)
    example = ("id,colour,shape", "a,red,disc", "b,red,disc")

    def read(self, table: pd.DataFrame, n_test: int) -> npt.NDArray[Any]:
        """Return the texts of the classes."""
        found = np.full((n_test, len(self.labels)), "", dtype=object)
        for name, k in zip(self.columns, self.positions, strict=True):
            found[self.rows, k] = table[name].to_numpy(dtype=object)
        return found


@dataclass(frozen=True)
class LongTargets(LongNumbers):
    """One row per id and target, with its class."""

    suits = (CLASS_TARGETS,)
    example = ("id,name,value", "a,colour,red", "a,shape,disc", "b,colour,red", "b,shape,disc")

    @property
    def title(self) -> str:
        """The form, for people."""
        return (
            f"long: a row per id and target ({brief(self.name_column)}), its class in "
            f"{brief(self.column)}"
        )

    def read(self, table: pd.DataFrame, n_test: int) -> npt.NDArray[Any]:
        """Return the texts of the classes."""
        return _texts(self, table, n_test)


@dataclass(frozen=True)
class JoinedTargets(JoinedIds):
    """One row per id and target, both in one text such as ``a_colour``, with the target's class."""

    needs_probabilities = False
    suits = (CLASS_TARGETS,)
    output = ("target", "targets")
    joined_with = "target"
    example = ("id,value", "a_colour,red", "a_shape,disc", "b_colour,red", "b_shape,disc")

    @property
    def title(self) -> str:
        """The form, for people."""
        return (
            f"long: a row per id and target, joined as {self.joined.example} in "
            f"{brief(self.name_column)}, its class in {brief(self.column)}"
        )

    def read(self, table: pd.DataFrame, n_test: int) -> npt.NDArray[Any]:
        """Return the texts of the classes."""
        return _texts(self, table, n_test)


def _texts(form: LongForm, table: pd.DataFrame, n_test: int) -> npt.NDArray[Any]:
    """Return the texts of a submission in rows, shape (n_test, n_targets)."""
    found = np.full((n_test, len(form.labels)), "", dtype=object)
    found[form.rows, form.positions] = table[form.column].to_numpy(dtype=object)
    return found
