"""Common base of pretraining and fine-tuning: epochs, and resuming after the last finished one."""

import json
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from foldsmith.config import Experiment
from foldsmith.project import ProjectFolder
from foldsmith.steps.base import Options, Plan, Step, StepKind
from foldsmith.steps.manifest import Inputs, Manifest, changed_outputs
from foldsmith.steps.output_folder import Start, state_of, tidy
from foldsmith.steps.run_records import is_record
from foldsmith.steps.status import Status, StepState
from foldsmith.training.epoch_report import EpochReport
from foldsmith.training.files import PROGRESS_FILE
from foldsmith.utils.flatten import flatten
from foldsmith.utils.hashing import FileHashes


class Training(StepKind):
    """A step that trains for some epochs, and continues after the last finished one.

    Attributes:
        keeps_resume: Whether a finished step keeps its resume snapshot.
    """

    continues = True
    computes = True
    keeps_resume: ClassVar[bool] = False

    def epochs(self, step: Step) -> int:
        return step.experiment.globals.max_epoch if step.experiment is not None else 0

    def progress(self, step: Step) -> dict[str, Any]:
        try:
            content = json.loads((step.folder / PROGRESS_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def state(
        self,
        step: Step,
        plan: Plan,
        inputs: Inputs,
        manifest: Manifest | None,
        hashes: FileHashes,
        weights_may_be_gone: bool = False,
    ) -> StepState:
        compared = partial(self.compared, step)
        status, changed = state_of(step.folder, inputs, compared=compared)
        if status == Status.STALE:
            longer = state_of(step.folder, inputs, True, compared)
            # The question imports the method, and torch with it.
            if longer != (status, changed) and self.may_be_longer(step, plan):
                status, changed = longer
        if status == Status.DONE and manifest is not None:
            outputs = changed_outputs(self.manifest(step).parent, manifest, hashes)
            gone = self.unusable(step, plan.project, manifest, outputs, hashes)
            if gone:
                return StepState(Status.STALE, gone, step.epochs)
            records = [text for name, text in outputs.items() if is_record(name)]
            return (
                StepState(Status.TO_DO, "; ".join(records)) if records else StepState(Status.DONE)
            )
        if status == Status.STARTED:
            epoch = int(self.progress(step).get("epoch", 0))
            return StepState(Status.TO_DO, f"continues at epoch {epoch + 1}", step.epochs - epoch)
        return StepState(status, "; ".join(changed), step.epochs)

    def may_be_longer(self, step: Step, plan: Plan) -> bool:
        """Return whether a finished training may be continued to a later epoch."""
        return False

    def compared(self, step: Step, inputs: Inputs) -> Inputs:
        """Return the inputs that must be the same for a finished training to be done."""
        return dict(inputs)

    @abstractmethod
    def unusable(
        self,
        step: Step,
        project: ProjectFolder,
        manifest: Manifest,
        changed: dict[str, str],
        hashes: FileHashes,
    ) -> str:
        """Return why later steps cannot use the output of a finished training; empty if they can.

        Args:
            step: The step.
            project: The project.
            manifest: Its manifest.
            changed: Name -> state of missing or changed outputs.
            hashes: Hashes of files.
        """

    def run(
        self,
        step: Step,
        plan: Plan,
        state: StepState,
        options: Options,
        listen: Callable[[EpochReport], None],
    ) -> None:
        assert step.experiment is not None
        # A finished training whose files are missing starts again.
        start: Start = "force" if state.status == Status.STALE else "auto"
        self.train(step, step.experiment, start, listen)

    @abstractmethod
    def train(
        self,
        step: Step,
        experiment: Experiment,
        start: Start,
        listen: Callable[[EpochReport], None],
    ) -> None:
        """Train the model of a step.

        Args:
            step: The step.
            experiment: Its experiment.
            start: Whether to start again or to continue.
            listen: Called after each epoch.
        """

    def tidy(self, step: Step, project: ProjectFolder) -> None:
        tidy(step.folder, keep_resume=self.keeps_resume)

    def weights(self, step: Step) -> list[Path]:
        return list(step.folder.glob("*.pth"))


def resume_bytes(experiment: Experiment, weights: int) -> int:
    """Return the size of a training's resume snapshot.

    Args:
        experiment: A pretraining or fine-tuning.
        weights: Bytes of its model.
    """
    # The weights, and the optimizer's one or two values for each.
    optimizer = str(flatten(experiment.tree).get("optimizer/type"))
    averaged = experiment.globals.ema_decay is not None
    return weights * ((2 if optimizer == "SGD" else 3) + averaged)
