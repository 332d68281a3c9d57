"""The step that measures the images and assigns the folds of a project."""

from collections.abc import Callable
from pathlib import Path

from foldsmith.config import Checkpoint, Experiment
from foldsmith.errors import OutputError
from foldsmith.project import ProjectFolder
from foldsmith.steps.base import Options, Plan, Planner, Step, StepKind
from foldsmith.steps.fingerprint import preprocess_inputs
from foldsmith.steps.manifest import PREPROCESS_MANIFEST, Inputs
from foldsmith.steps.status import StepState
from foldsmith.training.epoch_report import EpochReport
from foldsmith.utils.hashing import FileHashes


class Preprocess(StepKind):
    """Image statistics and folds: the step of a project, before those of its experiments."""

    name = "preprocess"

    def step(self, project: ProjectFolder) -> Step:
        """Return the step of a project."""
        return Step(self, self.name, project.data_dir)

    def plan(
        self, experiment: Experiment, output: Path, planner: Planner, checkpoint: Checkpoint
    ) -> tuple[str, ...]:
        return (planner.add(self.step(planner.project)),)

    def manifest(self, step: Step) -> Path:
        return step.folder / PREPROCESS_MANIFEST

    def locked(self, step: Step, project: ProjectFolder) -> list[Path]:
        # The data folder may hold other things, which stay free.
        return [self.manifest(step)]

    def inputs(
        self, step: Step, plan: Plan, hashes: FileHashes, weights_may_be_gone: bool = False
    ) -> Inputs:
        return preprocess_inputs(plan.project, hashes)

    def run(
        self,
        step: Step,
        plan: Plan,
        state: StepState,
        options: Options,
        listen: Callable[[EpochReport], None],
    ) -> None:
        from foldsmith.steps.preprocess import preprocess

        if "was changed" in state.why:
            raise OutputError(
                f"{step.folder}: {state.why} since preprocess wrote it; keep it under another "
                "name (globals/meta_file names a fold table), or run 'foldsmith preprocess' "
                "to have it made again"
            )
        trained = [other.experiment for other in plan.steps if other.epochs and other.experiment]
        preprocess(plan.project, options.skip_bad, trained)

    def context(self, step: Step, plan: Plan) -> tuple[Step, ...]:
        # It decodes the images of all trainings.
        return plan.steps
