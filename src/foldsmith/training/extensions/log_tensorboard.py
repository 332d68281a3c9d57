"""Curves for TensorBoard, in the output folder of a training."""

from collections.abc import Mapping

import pytorch_pfn_extras as ppe

from foldsmith.training.extensions.epoch_logger import Log, LoggedRun
from foldsmith.training.files import EVENTS, TRAINING
from foldsmith.utils.owned_files import OwnedFiles


class TensorBoardLogger:
    """Writes event files: ``tensorboard --logdir output`` shows those of all trainings.

    The steps are iterations, as the writer of pytorch-pfn-extras has them; the curve ``epoch``
    says which epoch each is.

    Args:
        run: The training.
        log: The log of the epochs that are done.
    """

    def __init__(self, run: LoggedRun, log: Log) -> None:
        folder = run.folder / EVENTS
        last = log[-1] if log and any(folder.glob("events.*")) else {"epoch": 0, "iteration": 0}
        self.last_epoch = int(last["epoch"])
        # Entries of a killed training for an epoch that is trained again are dropped.
        before = set(folder.glob("events.*"))
        self._writer = _Writer(out_dir=str(folder), purge_step=last["iteration"] + 1)
        written = (path.name for path in sorted(set(folder.glob("events.*")) - before))
        names = [f"{EVENTS}/{name}" for name in written]
        OwnedFiles(run.folder).record(names, TRAINING, written=True)

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Write the values of an epoch, so that they survive a kill."""
        self._writer("", "", dict(values))
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.finalize()


class _Writer(ppe.writing.TensorBoardWriter):
    def flush(self) -> None:
        """Write buffered entries at once."""
        if self._writer is not None:
            self._writer.flush()
