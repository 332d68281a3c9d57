"""How far a step is: one enum and one class for plans, trainings, engines and tables."""

from dataclasses import dataclass
from enum import Enum


class Status(str, Enum):
    """How far a step is; equal to its name, as in ``"to do"``.

    Attributes:
        DONE: Finished, from today's inputs.
        TO_DO: Never finished.
        STALE: Finished, but from other inputs than today's.
        STARTED: Stopped after some epochs, and can continue. Only trainings distinguish it from
            ``TO_DO``; tables show it as ``TO_DO``, with the epoch at which it continues.
        RUNNING: A process that is alive does it.
    """

    DONE = "done"
    TO_DO = "to do"
    STALE = "stale"
    STARTED = "started"
    RUNNING = "running"

    def __str__(self) -> str:
        return self.value

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)


@dataclass(frozen=True)
class StepState:
    """How far a step is, and why.

    Attributes:
        status: How far it is.
        why: Changes, or progress.
        epochs_left: Epochs still to train.
    """

    status: Status
    why: str = ""
    epochs_left: int = 0

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return self.status == Status.DONE
