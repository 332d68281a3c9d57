"""Send the log of each epoch to other tools.

If a logger fails, for example without a network, one warning is printed; the training goes
on.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pytorch_pfn_extras.training import extension

from foldsmith.errors import one_line
from foldsmith.training.files import LOGGED_RUNS
from foldsmith.utils.atomic import write_json
from foldsmith.utils.interrupts import uninterrupted

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoggedRun:
    """A training that is watched.

    Attributes:
        name: Experiment and fold, as in ``100 fold0``.
        project: Name of the project.
        project_folder: Its folder.
        folder: Output folder of the training.
        config: The configuration, path -> value.
    """

    name: str
    project: str
    project_folder: Path
    folder: Path
    config: Mapping[str, Any]


class Logger(Protocol):
    """Where values are sent.

    Attributes:
        last_epoch: The last epoch that it has; 0 for none.
    """

    last_epoch: int

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Send the values of an epoch."""

    def close(self) -> None:
        """Send the remaining entries."""


Log = Sequence[Mapping[str, Any]]
Create = Callable[[LoggedRun, Log], Logger]


class EpochLogger(extension.Extension):
    """Sends each entry of the log to a logger, missed entries first.

    Args:
        name: Name of the logger.
        create: Opens it: (run, log of the finished epochs) -> logger.
        run: The training.
    """

    trigger = (1, "epoch")
    # After the log, and before the state that a killed training continues from.
    priority = extension.PRIORITY_READER - 50

    def __init__(self, name: str, create: Create, run: LoggedRun) -> None:
        self.name = name
        self._create = create
        self._run = run
        self._logger: Logger | None = None

    def open(self, manager: Any) -> None:
        """Open the logger, and send missing entries of a resumed training.

        To be called when the training's state is restored, which for an extension's own
        ``initialize`` it is not.
        """

        def begin() -> None:
            log = manager.get_extension("LogReport").log
            self._logger = self._create(self._run, log)
            self._send(log)

        self._try(begin)

    def __call__(self, manager: Any) -> None:
        """Send the epoch; called by the manager at its end."""
        if self._logger is not None:
            self._try(lambda: self._send(manager.get_extension("LogReport").log))

    def finalize(self, manager: extension.ExtensionsManagerProtocol) -> None:
        """Close the logger."""
        if self._logger is not None:
            self._try(self._logger.close)
            self._logger = None

    def on_error(self, manager: Any, exc: Exception, tb: Any) -> None:
        """Close the logger; sent entries stay."""
        self.finalize(manager)

    def _send(self, log: Log) -> None:
        assert self._logger is not None
        # An entry per epoch, from the first on.
        for entry in log[self._logger.last_epoch :]:
            self._logger.log(int(entry["epoch"]), entry)
            self._logger.last_epoch = int(entry["epoch"])

    def _try(self, action: Callable[[], None]) -> None:
        try:
            # A signal inside a library's callback would look like a failure of the library.
            with uninterrupted():
                action()
        except Exception as error:  # whatever a library or its server may do
            self._logger = None
            logger.warning(
                f"{self.name}: {self._run.name} is logged no further "
                f"({one_line(error)[:300] or type(error).__name__}); the training goes on"
            )


def known_run(folder: Path, logger: str) -> str | None:
    """Return under which name a logger knows the training in a folder, if it does."""
    return _known(folder).get(logger)


def remember_run(folder: Path, logger: str, name: str) -> None:
    """Keep under which name a logger knows the training in a folder."""
    write_json(folder / LOGGED_RUNS, _known(folder) | {logger: name})


def _known(folder: Path) -> dict[str, str]:
    try:
        content = json.loads((folder / LOGGED_RUNS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
