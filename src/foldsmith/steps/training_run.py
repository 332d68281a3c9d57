"""One training in its output folder, from the claim to the manifest; of a pretraining or a fold."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from foldsmith.config import Components, Experiment
from foldsmith.distributed import process_group
from foldsmith.models.runtime import Runtime
from foldsmith.models.threads import advise_if_busy
from foldsmith.steps.manifest import MANIFEST, Inputs
from foldsmith.steps.output_folder import (
    clean_up,
    open_folder,
    outputs_of,
    owner_of_resume,
    read_resume,
)
from foldsmith.steps.status import Status
from foldsmith.steps.step_run import StepRun
from foldsmith.training.epoch_report import EpochReport
from foldsmith.training.extensions.beginning import Beginning
from foldsmith.training.extensions.loggers import loggers_of
from foldsmith.training.extensions.memory import MemoryPeak
from foldsmith.training.extensions.progress import Progress
from foldsmith.training.extensions.snapshots import restore, resume_snapshot
from foldsmith.training.loop import run_training
from foldsmith.training.manager import extend
from foldsmith.training.training_step import TrainingStep

logger = logging.getLogger(__name__)

Listener = Callable[[EpochReport], None]


class TrainingRun:
    """One training in its output folder, which the main process holds.

    Call :meth:`open`, :meth:`attach`, :meth:`train` and :meth:`finish`, in this order, in every
    process.

    Args:
        run: The run of the step.
        experiment: The experiment.
        folder: The output folder.
        step: Name of the step, as in ``train output/100 fold 0``.
        inputs: Inputs of the training.
        state: Whether it is ``fresh`` or continues.
        prepare: Makes the folder ready for a training; called when this one has something to
            keep: at once if the folder is empty or the training continues, else after the first
            epoch.
        runtime: Device and precision.
        listener: Called after each epoch.
    """

    def __init__(
        self,
        run: StepRun,
        experiment: Experiment,
        folder: Path,
        step: str,
        inputs: Inputs,
        status: Status,
        prepare: Callable[[], None],
        runtime: Runtime,
        listener: Listener | None,
    ) -> None:
        self._run = run
        self._experiment = experiment
        self._settings = experiment.globals
        self._folder = folder
        self._step = step
        self._inputs = inputs
        self._status = status
        self._runtime = runtime
        self._beginning = Beginning(prepare)
        self._progress = Progress(folder, self._settings.max_epoch, listener)

    def open(self) -> None:
        """Reserve the names of the files, and make the folder ready if nothing is replaced.

        Raises:
            OutputError: A file that foldsmith did not write is in the way.
        """
        earlier = open_folder(self._folder)
        if self._status == Status.STARTED or not earlier:
            self._beginning.now()

    def attach(self, manager: Any, extensions: Sequence[Any], name: str) -> None:
        """Extend the manager, and restore its state if the training continues.

        Args:
            manager: The manager of the training.
            extensions: Those of this kind of training; the others are added.
            name: Name of the training for loggers.

        Raises:
            OutputError: The snapshot to resume from is damaged, or another training's.
        """
        settings = self._settings
        owner = owner_of_resume(self._step, self._inputs)
        loggers = (
            loggers_of(self._experiment, self._folder, name) if process_group.is_main() else []
        )
        extend(
            manager,
            [
                self._beginning,
                *extensions,
                MemoryPeak(self._runtime.device),
                *loggers,
                self._progress,
                resume_snapshot(settings.resume_interval, settings.max_epoch, owner),
            ],
        )
        if self._status == Status.STARTED:
            restore(manager, read_resume(self._folder, owner))
            logger.info(f"continuing after epoch {manager.epoch} of {settings.max_epoch}")
        for epoch_logger in loggers:
            self._beginning.then(partial(epoch_logger.open, manager))

    def train(self, components: Components, step: TrainingStep) -> None:
        """Go through all epochs that are left.

        Args:
            components: Manager, training loader, optimizer and scheduler among them.
            step: The computation on one batch.

        Raises:
            TrainingError: The loss is NaN, or the features have collapsed.
        """
        if process_group.is_main():
            advise_if_busy(self._settings)
        run_training(
            components["manager"],
            step,
            components["loader/train"],
            components["optimizer"],
            components["scheduler"],
            self._runtime,
            self._settings.grad_accum,
            self._settings.max_epoch,
            self._settings.seed,
        )

    def finish(self, *, keep_resume: bool, **facts: Any) -> None:
        """Write the manifest, and remove files that only an unfinished training needs.

        Args:
            keep_resume: Keep the snapshot to resume from.
            **facts: Facts of this kind of training for the manifest.
        """
        self._run.finish(
            self._folder / MANIFEST,
            self._step,
            self._inputs,
            outputs_of(self._folder),
            task=self._settings.task,
            seed=self._settings.seed,
            device=str(self._runtime.device),
            processes=process_group.size(),
            started_by=process_group.started_by(),
            **facts,
            max_epoch=self._settings.max_epoch,
            epoch_s=self._progress.epoch_s,
        )
        clean_up(self._folder, keep_resume=keep_resume)
