"""Resources that a step of a run requests."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Resources(BaseModel):
    """Resources of a running step; the engine decides the null ones.

    Attributes:
        cpus: CPU cores.
        gpus: GPUs; a fraction, as in 0.25, lets steps share one.
        memory_gib: Memory in GiB.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpus: Annotated[float, Field(gt=0)] | None = None
    gpus: Annotated[float, Field(ge=0)] | None = None
    memory_gib: Annotated[float, Field(gt=0)] | None = None

    def over(self, other: "Resources") -> "Resources":
        """Return these resources, with null values taken from another."""
        mine = self.model_dump(exclude_none=True)
        return other.model_copy(update=mine)
