"""Snapshots of weights and of whole trainings, and the triggers that fire them."""

from typing import Any

import pytorch_pfn_extras as ppe
from pytorch_pfn_extras.training.extension import ExtensionEntry
from pytorch_pfn_extras.training.triggers import ManualScheduleTrigger
from pytorch_pfn_extras.training.triggers import MinValueTrigger as MinValueTrigger
from torch import nn


def every_and_last(n: int, max_epoch: int) -> ManualScheduleTrigger:
    """Return a trigger that fires every ``n`` epochs and at the last one."""
    return ManualScheduleTrigger(sorted({*range(n, max_epoch + 1, n), max_epoch}), "epoch")


def last_epoch(max_epoch: int) -> ManualScheduleTrigger:
    """Return a trigger that fires at the last epoch."""
    return ManualScheduleTrigger([max_epoch], "epoch")


def weights_snapshot(
    target: nn.Module, filename: str, trigger: Any, keep: int | None = None
) -> ExtensionEntry:
    """Return an extension that writes the weights of one module.

    Args:
        target: The module; the file holds its ``state_dict``.
        filename: Name with ``{.epoch}`` for the epoch.
        trigger: When.
        keep: How many of its files to keep, the newest; null keeps all.
    """
    extension = ppe.training.extensions.snapshot_object(
        target, filename, n_retains=-1 if keep is None else keep
    )
    return ExtensionEntry(extension, name=filename, trigger=trigger)


def full_snapshot(filename: str, trigger: Any, keep: int = 1) -> ExtensionEntry:
    """Return an extension that writes everything a training needs to continue.

    Args:
        filename: Name with ``{.epoch}`` for the epoch.
        trigger: When; at the end of an epoch.
        keep: How many of its files to keep, the newest.
    """
    extension = ppe.training.extensions.snapshot(filename=filename, n_retains=keep)
    return ExtensionEntry(extension, name=filename, trigger=trigger)
