"""Snapshots of weights and of whole trainings, and the triggers that fire them."""

import operator
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_pfn_extras.training import extension
from pytorch_pfn_extras.training.extension import ExtensionEntry
from pytorch_pfn_extras.training.triggers import (
    BestValueTrigger,
    ManualScheduleTrigger,
)
from torch import nn

from foldsmith.targets.metrics import Metric
from foldsmith.training.files import BELONGS_TO, RESUME_FILE
from foldsmith.utils.owned_files import OwnedFiles


def every_and_last(n: int, max_epoch: int) -> ManualScheduleTrigger:
    """Return a trigger that fires every ``n`` epochs and at the last one.

    Args:
        n: Epochs between two firings.
        max_epoch: Number of epochs.
    """
    return ManualScheduleTrigger(sorted({*range(n, max_epoch + 1, n), max_epoch}), "epoch")


def last_epoch(max_epoch: int) -> ManualScheduleTrigger:
    """Return a trigger that fires at the last epoch.

    Args:
        max_epoch: Number of epochs.
    """
    return ManualScheduleTrigger([max_epoch], "epoch")


class _BestReported(BestValueTrigger):
    """The trigger of pytorch-pfn-extras, for values that some epochs lack."""

    def __call__(self, manager: Any) -> bool:
        """Return whether the epoch has the value, and it is better than all before."""
        return self._key in manager.observation and super().__call__(manager)


def best_value(key: str, metric: Metric | None = None) -> BestValueTrigger:
    """Return a trigger that fires at each epoch whose value is better than all before.

    Epochs without the value are passed over.

    Args:
        key: Key of the log, as in ``val/metric``.
        metric: Says which values are better; null for a loss, of which lower ones are.
    """
    upwards = metric is not None and metric.greater_is_better
    return _BestReported(key, operator.lt if upwards else operator.gt)


class WeightsSnapshot(extension.Extension):
    """Writes the weights of one module.

    Args:
        target: The module; the file holds its ``state_dict``.
        filename: Name with ``{.epoch}`` for the epoch.
        keep: Number of its newest files to keep; null keeps all. :class:`ResumeSnapshot` removes
            the others once the training's own state is saved.
    """

    priority = extension.PRIORITY_SNAPSHOT
    needs_model_state = True

    def __init__(self, target: nn.Module, filename: str, keep: int | None = None) -> None:
        self.target = target
        self.filename = filename
        self.keep = keep

    def __call__(self, manager: extension.ExtensionsManagerProtocol) -> None:
        """Write a file; called by the manager."""
        _save(manager, self.filename.format(manager), self.target.state_dict())

    def remove_superseded(self, folder: Path) -> None:
        """Remove the oldest files beyond ``keep``."""
        if self.keep is not None:
            OwnedFiles(folder).remove(list(self._files(folder).values())[: -self.keep])

    def remove_after(self, folder: Path, epoch: int) -> None:
        """Remove the files of epochs after the restored one."""
        later = [name for number, name in self._files(folder).items() if number > epoch]
        OwnedFiles(folder).remove(later)

    def _files(self, folder: Path) -> dict[int, str]:
        """Return the names of this extension's files by epoch, oldest first.

        The list decides: a killed process may have removed a file and left its entry.
        """
        # "snapshot_by_metric_epoch_{.epoch}.pth" as what stands before and after the number.
        (before, _, _, _), *rest = string.Formatter().parse(self.filename)
        after = rest[0][0] if rest else ""
        found = {
            name[len(before) : len(name) - len(after)]: name
            for name in OwnedFiles(folder).of()
            if name.startswith(before) and name.endswith(after)
        }
        return {
            int(number): found[number]
            for number in sorted(found, key=_as_number)
            if number.isdigit()
        }


class ResumeSnapshot(extension.Extension):
    """Writes everything a training needs to continue, over the file before.

    Args:
        belongs_to: Identity of the training, stored under :data:`BELONGS_TO`.

    That is the manager's state: model, optimizer, the state objects (scheduler, gradient
    scaler), log and best values so far, the number of finished epochs. Random generators need
    no state: all that is drawn is a function of (seed, epoch, index).

    To be added after every other extension, so that it holds their state from after this epoch.
    """

    priority = extension.PRIORITY_SNAPSHOT
    needs_model_state = True
    default_name = "resume"

    def __init__(self, belongs_to: Mapping[str, str]) -> None:
        self.belongs_to = dict(belongs_to)

    def __call__(self, manager: Any) -> None:
        """Write the file, then remove the files that it replaces."""
        _save(manager, RESUME_FILE, manager.state_dict() | {BELONGS_TO: self.belongs_to})
        for _, entry in manager.extensions:
            if isinstance(entry.extension, WeightsSnapshot):
                entry.extension.remove_superseded(Path(manager.out))


def restore(manager: Any, state: dict[str, Any]) -> None:
    """Put a manager into the state that :class:`ResumeSnapshot` wrote.

    Extensions that the snapshot does not know (a plot that was added since) begin anew. Files
    of later epochs go: the training was killed after it wrote them, and gets there again. So do
    superseded ones, which it was killed before removing.
    """
    own = {name: entry.state_dict() for name, entry in manager._extensions.items()}
    manager.load_state_dict(state | {"extensions": own | state["extensions"]})
    for entry in manager._extensions.values():
        if isinstance(entry.extension, WeightsSnapshot):
            entry.extension.remove_after(Path(manager.out), manager.epoch)
            entry.extension.remove_superseded(Path(manager.out))


def weights_snapshot(
    target: nn.Module, filename: str, trigger: Any, keep: int | None = None
) -> ExtensionEntry:
    """Return a :class:`WeightsSnapshot` with its trigger.

    Args:
        target: The module.
        filename: Name with ``{.epoch}`` for the epoch.
        trigger: When; at the end of an epoch.
        keep: How many of its files to keep, the newest; null keeps all.
    """
    snapshot = WeightsSnapshot(target, filename, keep)
    return ExtensionEntry(snapshot, name=filename, trigger=trigger)


def every_epoch_snapshot(target: nn.Module) -> ExtensionEntry:
    """Return a :class:`WeightsSnapshot` of every epoch, all of which are kept."""
    return weights_snapshot(target, "snapshot_epoch_{.epoch}.pth", (1, "epoch"))


def resume_snapshot(interval: int, max_epoch: int, belongs_to: Mapping[str, str]) -> ExtensionEntry:
    """Return a :class:`ResumeSnapshot` that fires every ``interval`` epochs and at the last."""
    return ExtensionEntry(ResumeSnapshot(belongs_to), trigger=every_and_last(interval, max_epoch))


def _as_number(text: str) -> int:
    return int(text) if text.isdigit() else -1


def _save(manager: Any, filename: str, state: Any) -> None:
    manager.writer(filename, manager.out, state, savefun=torch.save)
