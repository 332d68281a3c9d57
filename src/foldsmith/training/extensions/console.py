"""Output of a training: a progress bar on a terminal, and a table row per epoch."""

import logging
from typing import Any

from pytorch_pfn_extras.training import extension

from foldsmith.utils.progress_bars import Bar, progress_bar

logger = logging.getLogger(__name__)


class ConsoleReport(extension.Extension):
    """Logs a table row per epoch and, where someone watches, a progress bar.

    The rows are plain text without escape sequences.

    Args:
        keys: Keys of the log, one column each.
        label: Text before the bar.
        max_epoch: Number of epochs.
        iters_per_epoch: Batches per epoch.
    """

    trigger = (1, "iteration")
    priority = extension.PRIORITY_READER - 20
    default_name = "console"

    def __init__(self, keys: list[str], label: str, max_epoch: int, iters_per_epoch: int) -> None:
        self.keys = keys
        self.label = label
        self.max_epoch = max_epoch
        self.iters_per_epoch = iters_per_epoch
        self._bar: Bar | None = None

    def initialize(self, manager: extension.ExtensionsManagerProtocol) -> None:
        """Log the head of the table."""
        head = f"{'epoch':>9}" + "".join(f"{_short(key):>12}" for key in self.keys)
        logger.info(head)

    def __call__(self, manager: extension.ExtensionsManagerProtocol) -> None:
        """Advance the bar; at the end of an epoch log a row."""
        if self._bar is None:
            self._bar = progress_bar(
                label=self.label,
                total=self.max_epoch * self.iters_per_epoch,
                initial=manager.iteration - 1,
                unit="batch",
                # As distinct from the time of a run of several steps.
                where="in this step",
            )
        self._bar.update(1)
        if manager.iteration % self.iters_per_epoch:
            return
        entry = manager.get_extension("LogReport").log[-1]
        row = f"{manager.epoch:>5}/{self.max_epoch:<3}"
        row += "".join(f"{_number(entry.get(key)):>12}" for key in self.keys)
        logger.info(row)
        if {"images_per_s", "data_wait"} <= entry.keys():
            speed = f"{entry['images_per_s']:.0f} images/s, {entry['data_wait']:.0%} waiting"
            self._bar.note = speed

    def finalize(self, manager: extension.ExtensionsManagerProtocol) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()

    def on_error(self, manager: Any, exc: Exception, tb: Any) -> None:
        """Take the bar away before the error is printed."""
        self.finalize(manager)


def _short(key: str) -> str:
    names = {"images_per_s": "images/s", "data_wait": "data wait", "elapsed_time": "seconds"}
    return names.get(key, key)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if value == 0 or 0.001 <= abs(value) < 100:
        return f"{value:.4f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2e}"
