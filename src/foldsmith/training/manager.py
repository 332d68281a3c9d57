"""The manager of pytorch-pfn-extras, with atomic writes and resumable state."""

from collections.abc import Iterable, Sized
from pathlib import Path
from typing import Any

import pytorch_pfn_extras as ppe
import torch
from torch import nn

from foldsmith.distributed import process_group
from foldsmith.training.files import TRAINING
from foldsmith.utils.atomic import replacing
from foldsmith.utils.owned_files import OwnedFiles


class AtomicWriter(ppe.writing.SimpleWriter):
    """A writer that renames over the old file; the stock one moves the old file away first.

    Each file is put on the list of the output folder's files before it is written.
    """

    def initialize(self, out_dir: str) -> None:
        """Make no folder: a manager is built before the output folder is claimed."""

    def save(
        self,
        filename: str,
        out_dir: str,
        target: Any,
        savefun: Any,
        append: bool,
        **savefun_kwargs: Any,
    ) -> None:
        """Write ``target`` to ``filename`` in the writer's folder, then clean up old snapshots.

        Raises:
            OutputError: The file exists, and foldsmith did not write it.
        """
        path = OwnedFiles(Path(self.out_dir or out_dir)).path(filename, TRAINING)
        with replacing(path) as temporary, temporary.open("wb") as file:
            try:
                savefun(target, file, **savefun_kwargs)
            except RuntimeError as error:
                # torch.save reports a failed write as an error of its own format.
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise
        self._post_save()


def create_manager(
    models: nn.Module,
    optimizers: torch.optim.Optimizer,
    max_epochs: int,
    iters_per_epoch: int,
    out_dir: str,
    state_objects: dict[str, Any] | None = None,
) -> ppe.training.ExtensionsManager:
    """Return an ``ExtensionsManager``.

    Args:
        models: The module to train.
        optimizers: Its optimizer.
        max_epochs: Number of epochs.
        iters_per_epoch: Batches per epoch.
        out_dir: Output folder.
        state_objects: Further objects with ``state_dict``, kept in full snapshots; null
            ones are left out.
    """
    kept = {name: value for name, value in (state_objects or {}).items() if value is not None}
    return ppe.training.ExtensionsManager(
        models,
        optimizers,
        max_epochs,
        iters_per_epoch=iters_per_epoch,
        out_dir=out_dir,
        writer=AtomicWriter(out_dir=out_dir),
        state_objects=kept,
    )


def extend(manager: ppe.training.ExtensionsManager, extensions: Iterable[Any]) -> None:
    """Add extensions to the manager of one process of a training.

    Extensions that write or show run in the main process only. Collective extensions, and
    extensions that may end a training, run in every process (``on_every_rank``).

    Args:
        manager: The manager.
        extensions: Extensions, or entries of them with their triggers.
    """
    for each in extensions:
        extension = getattr(each, "extension", each)
        if process_group.is_main() or getattr(extension, "on_every_rank", False):
            manager.extend(each)


def length(obj: Sized) -> int:
    """Return ``len(obj)``.

    Args:
        obj: Anything with a length, such as a loader: its number of batches.
    """
    return len(obj)
