"""One finished epoch, as listeners of a training get it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch.

    Attributes:
        epoch: Number of finished epochs.
        max_epoch: Number of epochs of the training.
        images_per_s: Images per second of the training loop.
        data_wait: Share of its time that it waited for images, 0..1.
        epoch_s: Seconds of the whole epoch, validation and snapshots included.
        values: Its logged values, as in ``train/loss``.
    """

    epoch: int
    max_epoch: int
    images_per_s: float
    data_wait: float
    epoch_s: float
    values: Mapping[str, float]
