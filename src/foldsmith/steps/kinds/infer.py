"""The step that predicts the images of each fold out of fold, and the test images."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from foldsmith.config import Checkpoint, Experiment
from foldsmith.config.settings import FINE_TUNINGS
from foldsmith.errors import OutputError
from foldsmith.project import ProjectFolder
from foldsmith.steps.base import Options, Plan, Planner, Step
from foldsmith.steps.checkpoint_choice import choose
from foldsmith.steps.cost import Costs, ModelSize, Trial
from foldsmith.steps.inputs.predictions import infer_inputs
from foldsmith.steps.kinds.predictions import PASSES, PredictionStep
from foldsmith.steps.kinds.train import SNAPSHOTS, Train
from foldsmith.steps.manifest import MANIFEST, Inputs, read_manifest
from foldsmith.steps.run_records import name_of
from foldsmith.steps.status import StepState
from foldsmith.targets.tasks import task_type
from foldsmith.training.epoch_report import EpochReport
from foldsmith.utils.hashing import FileHashes


class Infer(PredictionStep):
    """The inference of a fine-tuning, after the trainings of all its folds."""

    name = "infer"
    title = "Experiment"
    tasks = FINE_TUNINGS
    frees_needs = True

    def plan(
        self, experiment: Experiment, output: Path, planner: Planner, checkpoint: Checkpoint
    ) -> tuple[str, ...]:
        folds = Train().plan(experiment, output, planner, checkpoint)
        # An experiment in two ensembles with different checkpoints is inferred by both.
        by = "" if checkpoint == "metric" else f" by {checkpoint}"
        label = f"{self.name} {name_of(experiment)}{by}"
        step = Step(self, label, output, folds, experiment, checkpoint=checkpoint)
        return (planner.add(step),)

    def gives_probabilities(self, experiment: Experiment, planner: Planner) -> bool:
        return task_type(experiment.globals.task, experiment.project).gives_probabilities()

    def locked(self, step: Step, project: ProjectFolder) -> list[Path]:
        folds = [step.folder / f"fold{fold}" for fold in range(project.n_splits)]
        return [step.folder, *folds]

    def inputs(
        self, step: Step, plan: Plan, hashes: FileHashes, weights_may_be_gone: bool = False
    ) -> Inputs:
        assert step.experiment is not None
        chosen, n_splits = {}, plan.project.n_splits
        finished = read_manifest(self.manifest(step)) if weights_may_be_gone else None
        inferred = {} if finished is None else finished.inputs["snapshots"]
        for fold in range(n_splits):
            manifest = read_manifest(step.folder / f"fold{fold}" / MANIFEST)
            if manifest is None:
                raise OutputError(f"{step.folder}: fold {fold} is not trained")
            known = inferred.get(f"fold{fold}")
            if known is None or known not in manifest.outputs.values():
                known = choose(step.folder, manifest, fold, n_splits, step.checkpoint).sha256
            chosen[f"fold{fold}"] = known
        return infer_inputs(step.experiment, step.checkpoint, chosen, plan.types, hashes)

    def run(
        self,
        step: Step,
        plan: Plan,
        state: StepState,
        options: Options,
        listen: Callable[[EpochReport], None],
    ) -> None:
        from foldsmith.steps.infer import infer_experiment

        assert step.experiment is not None
        infer_experiment(step.experiment, step.folder, step.checkpoint, options.keep_snapshots)

    def tidy(self, step: Step, project: ProjectFolder) -> None:
        from foldsmith.steps.infer import tidy_inference

        tidy_inference(step.folder, step.checkpoint, project.n_splits)

    def advice(self, step: Step, project: ProjectFolder) -> str | None:
        from foldsmith.steps.epoch_advice import more_epochs_may_help

        return more_epochs_may_help(step.folder, project.n_splits)

    def images(self, step: Step, costs: Costs) -> tuple[int, int]:
        assert step.experiment is not None
        # Out of fold by the chosen and by the last epoch; the test images by every fold.
        images = 2 * costs.n_train + costs.project.n_splits * costs.n_test
        return 0, PASSES[step.experiment.globals.tta] * images

    def disk(self, step: Step, size: ModelSize, n_splits: int) -> tuple[int, int]:
        assert step.experiment is not None
        # Copies of the snapshots, and of the common epoch's where every epoch's are kept.
        common = step.experiment.globals.snapshot_epochs == "all"
        copies = (SNAPSHOTS + common) * n_splits * size.weights
        return copies, copies

    def weights(self, step: Step) -> list[Path]:
        return list(step.folder.glob("*_model_fold*.pth"))

    def try_batch(
        self, experiment: Experiment, types: Mapping[str, Callable[..., Any]]
    ) -> Trial | None:
        return Train().try_batch(experiment, types)
