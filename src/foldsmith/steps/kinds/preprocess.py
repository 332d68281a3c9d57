"""The step that measures the images and assigns the folds of a project."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from foldsmith.config import Checkpoint, Experiment
from foldsmith.errors import DataError, OutputError
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import image_paths, read_test, read_train
from foldsmith.steps.base import Options, Plan, Planner, Step, StepKind
from foldsmith.steps.cost import Costs
from foldsmith.steps.inputs.preprocess import preprocess_inputs
from foldsmith.steps.manifest import PREPROCESS_MANIFEST, Inputs, Manifest
from foldsmith.steps.status import StepState
from foldsmith.training.epoch_report import EpochReport
from foldsmith.utils.hashing import FileHashes
from foldsmith.utils.machine import cores_here

# Images that are decoded for a guess of the time.
_SAMPLE = 8

# Guessed seconds of its start, and how often the time of decoding is needed.
_START_S, _DECODINGS = 3.0, 2


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

    def guess_s(self, step: Step, costs: Costs) -> float | None:
        from foldsmith.data.images import read_image
        from foldsmith.data.transforms.base import Compose

        project = costs.project
        tables = [read_train(project, with_bad=True), read_test(project)]
        paths = [path for table in tables for path in image_paths(project, table)]
        sample = paths[:: max(1, len(paths) // _SAMPLE)][:_SAMPLE]
        started = time.perf_counter()
        for path in sample:
            with contextlib.suppress(DataError):  # preprocess reports it
                read_image(path, Compose([]), project.intensity_range)
        each = (time.perf_counter() - started) / max(1, len(sample))
        return _START_S + _DECODINGS * each * len(paths) / cores_here()

    def same_images(self, step: Step, made: Manifest, costs: Costs) -> bool:
        return bool(made.facts.get("n_train", costs.n_train) == costs.n_train)
