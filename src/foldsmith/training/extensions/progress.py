"""How far a training is, for those who look from outside."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytorch_pfn_extras.training import extension

from foldsmith.training.epoch_report import EpochReport
from foldsmith.training.files import PROGRESS_FILE
from foldsmith.utils.atomic import write_json
from foldsmith.utils.locking import this_process


class Progress(extension.Extension):
    """Writes ``progress.json`` and tells a listener after each epoch.

    Args:
        folder: Output folder of the training.
        max_epoch: Number of epochs.
        listener: Called after each epoch, or None.

    Attributes:
        epoch_s: Seconds of the last epoch; None before the first.
    """

    trigger = (1, "epoch")
    priority = extension.PRIORITY_READER - 30
    default_name = "progress"

    def __init__(
        self,
        folder: Path,
        max_epoch: int,
        listener: Callable[[EpochReport], None] | None = None,
    ) -> None:
        self.folder = folder
        self.max_epoch = max_epoch
        self.listener = listener
        self._process = this_process()
        self._since = 0.0
        self.epoch_s: float | None = None

    def initialize(self, manager: extension.ExtensionsManagerProtocol) -> None:
        """Say that the training has begun; called by the manager."""
        self._since = time.perf_counter()
        begun = {"process": self._process, "epoch": manager.epoch, "max_epoch": self.max_epoch}
        write_json(self.folder / PROGRESS_FILE, begun)

    def __call__(self, manager: extension.ExtensionsManagerProtocol) -> None:
        """Say that an epoch has ended; called by the manager."""
        now = time.perf_counter()
        seen: Any = manager.observation
        values = {key: float(value) for key, value in seen.items()}
        speed = values["images_per_s"], values["data_wait"]
        report = EpochReport(manager.epoch, self.max_epoch, *speed, now - self._since, values)
        self._since = now
        self.epoch_s = round(report.epoch_s, 3)
        write_json(
            self.folder / PROGRESS_FILE,
            {
                "process": self._process,
                "epoch": report.epoch,
                "max_epoch": report.max_epoch,
                "images_per_s": round(report.images_per_s, 1),
                "epoch_s": self.epoch_s,
            },
        )
        if self.listener is not None:
            self.listener(report)
