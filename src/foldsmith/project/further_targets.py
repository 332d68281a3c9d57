"""Further columns of a project beside the target: its continuous form, auxiliary targets."""

from itertools import pairwise
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

AuxiliaryKind = Literal["regression", "multi-label"]


class ContinuousSettings(BaseModel):
    """A continuous column that the target is a coarse form of.

    Attributes:
        column: Column of the train table, as a date.
        range: Lowest and highest possible value.
        thresholds: Values at which the target changes to the next class value, ascending, one
            less than there are classes; a value on a threshold has the lower target.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str
    range: tuple[float, float]
    thresholds: tuple[float, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> "ContinuousSettings":
        low, high = self.range
        inside = (low, *self.thresholds, high)
        if any(one >= other for one, other in pairwise(inside)):
            raise ValueError(f"range and thresholds: {list(inside)} must ascend")
        return self


class AuxiliarySettings(BaseModel):
    """Something else that is known of the labelled images, for auxiliary heads.

    Attributes:
        table: CSV in ``data_dir`` with the id column, any number of rows per id; the train
            table if not given.
        column: Its column.
        kind: ``regression`` (numbers) or ``multi-label`` (words, several per image).
        min_count: Images of the training folds that a word needs, to be learned.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str | None = None
    column: str
    kind: AuxiliaryKind
    min_count: int = Field(default=10, ge=1)
