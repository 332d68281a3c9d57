"""Watching a self-supervised training for collapse."""

import logging
import math
from typing import Any

from pytorch_pfn_extras.training import extension

from foldsmith.distributed import process_group
from foldsmith.errors import ConfigError, TrainingError

logger = logging.getLogger(__name__)


class CollapseWatch(extension.Extension):
    """Warns when all images get nearly the same features for some epochs on end.

    The standard deviation of L2-normalised features is near 1/sqrt(dim) when they spread and
    near 0 when they have collapsed (Chen and He 2021, section 4.1).

    Args:
        key: Logged standard deviation.
        dim: Width of the features.
        fraction: Below this fraction of 1/sqrt(dim), 0..1, an epoch counts as collapsed.
        epochs: Collapsed epochs on end before anything is said.
        stop: End the training then; otherwise warn.
    """

    trigger = (1, "epoch")
    priority = extension.PRIORITY_READER - 40
    default_name = "collapse"
    on_every_rank = True

    def __init__(
        self, key: str, dim: int, fraction: float = 0.1, epochs: int = 3, stop: bool = False
    ) -> None:
        if not 0 < fraction < 1 or epochs < 1:
            raise ConfigError("fraction must be in 0..1 and epochs at least 1")
        self.key = key
        self.limit = fraction / math.sqrt(dim)
        self.epochs = epochs
        self.stop = stop
        self._low = 0

    def __call__(self, manager: extension.ExtensionsManagerProtocol) -> None:
        """Look at the epoch's value; called by the manager.

        Raises:
            TrainingError: The features have collapsed and ``stop`` is set.
        """
        observed: Any = manager.observation[self.key]
        value = float(observed)
        self._low = self._low + 1 if value < self.limit else 0
        if self._low < self.epochs:
            return
        text = (
            f"{manager.out}: the features have collapsed: {self.key} is {value:.2g}, below "
            f"{self.limit:.2g} for {self._low} epochs, at epoch {manager.epoch}; lower the "
            "learning rate, or enlarge the batch"
        )
        if self.stop:
            raise TrainingError(text)
        if self._low == self.epochs and process_group.is_main():
            logger.warning(text)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of collapsed epochs on end."""
        return {"low": self._low}

    def load_state_dict(self, to_load: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self._low = to_load["low"]


class RankWatch(extension.Extension):
    """Warns when a probe finds that the features use next to no directions.

    Features may spread and still lie on a line, which their standard deviation does not show.

    Args:
        key: Logged effective rank; epochs without it are passed over.
        minimum: Ranks below this count as collapsed; the least that there is is 1.
        stop: End the training then; otherwise warn.
    """

    trigger = (1, "epoch")
    priority = extension.PRIORITY_READER - 40
    default_name = "rank collapse"
    on_every_rank = True

    def __init__(self, key: str = "probe/rank", minimum: float = 2.0, stop: bool = False) -> None:
        if minimum < 1:
            raise ConfigError(f"minimum: {minimum} must be at least 1")
        self.key = key
        self.minimum = minimum
        self.stop = stop
        self._collapsed = False

    def __call__(self, manager: extension.ExtensionsManagerProtocol) -> None:
        """Look at the epoch's value, if there is one; called by the manager.

        Raises:
            TrainingError: The rank has collapsed and ``stop`` is set.
        """
        observed: Any = manager.observation
        if self.key not in observed:
            return
        rank = float(observed[self.key])
        before, self._collapsed = self._collapsed, rank < self.minimum
        if not self._collapsed:
            return
        text = (
            f"{manager.out}: the features have collapsed in rank: {self.key} is {rank:.3g}, below "
            f"{self.minimum:g}, at epoch {manager.epoch}; lower the learning rate, or enlarge "
            "the batch"
        )
        if self.stop:
            raise TrainingError(text)
        if not before and process_group.is_main():
            logger.warning(text)

    def state_dict(self) -> dict[str, Any]:
        """Return whether the last probe found a collapse."""
        return {"collapsed": self._collapsed}

    def load_state_dict(self, to_load: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self._collapsed = to_load["collapsed"]
