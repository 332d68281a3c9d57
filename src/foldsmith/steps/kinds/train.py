"""The step that fine-tunes the model of one fold."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from foldsmith.config import Checkpoint, Experiment
from foldsmith.errors import OutputError
from foldsmith.project import ProjectFolder
from foldsmith.steps.base import Plan, Planner, Step
from foldsmith.steps.checkpoint_choice import choose
from foldsmith.steps.cost import Costs, ModelSize, Trial
from foldsmith.steps.inputs.train import train_inputs
from foldsmith.steps.kinds.training import Training, resume_bytes
from foldsmith.steps.manifest import MANIFEST, Inputs, Manifest, differences, read_manifest
from foldsmith.steps.output_folder import Start
from foldsmith.steps.registry import types_of
from foldsmith.steps.run_records import is_record, name_of
from foldsmith.steps.status import Status, StepState
from foldsmith.training.epoch_report import EpochReport
from foldsmith.utils.hashing import FileHashes

# Snapshots of a fold: by metric, by loss, last.
SNAPSHOTS = 3


class Train(Training):
    """The fine-tuning of one fold, validated on the images of this fold."""

    name = "train"

    def plan(
        self, experiment: Experiment, output: Path, planner: Planner, checkpoint: Checkpoint
    ) -> tuple[str, ...]:
        """Add a step per fold, for the inference of a fine-tuning; as :meth:`StepKind.plan`."""
        needs = planner.add_sources(experiment, checkpoint)
        if checkpoint == "common" and experiment.globals.snapshot_epochs != "all":
            planner.problems.append(
                f"{experiment.file}: globals/snapshot_epochs: must be all, since an ensemble takes "
                "its epoch by the checkpoint common"
            )
        labels = []
        for fold in range(planner.project.n_splits):
            label = f"{self.name} {name_of(experiment)} fold {fold}"
            folder = output / f"fold{fold}"
            labels.append(
                planner.add(Step(self, label, folder, needs, experiment, fold, checkpoint))
            )
        return tuple(labels)

    def inputs(
        self, step: Step, plan: Plan, hashes: FileHashes, weights_may_be_gone: bool = False
    ) -> Inputs:
        assert step.experiment is not None
        return train_inputs(step.experiment, step.fold or 0, plan.types, hashes)

    def state(
        self,
        step: Step,
        plan: Plan,
        inputs: Inputs,
        manifest: Manifest | None,
        hashes: FileHashes,
        weights_may_be_gone: bool = False,
    ) -> StepState:
        made = manifest is not None and not differences(manifest.inputs, inputs)
        if weights_may_be_gone and made:
            return StepState(Status.DONE)
        return super().state(step, plan, inputs, manifest, hashes, weights_may_be_gone)

    def unusable(
        self,
        step: Step,
        project: ProjectFolder,
        manifest: Manifest,
        changed: dict[str, str],
        hashes: FileHashes,
    ) -> str:
        # Only the chosen snapshots matter: an inference deletes the others.
        texts = [
            text
            for name, text in changed.items()
            if not is_record(name) and not name.endswith(".pth")
        ]
        if texts:
            return "; ".join(texts)
        root, fold, n_splits = step.folder.parent, step.fold or 0, project.n_splits
        if step.checkpoint == "common":
            finished = [read_manifest(root / f"fold{k}" / MANIFEST) for k in range(n_splits)]
            if None in finished:
                return ""  # Which epoch it is will show when all folds are trained.
        try:
            chosen = choose(root, manifest, fold, n_splits, step.checkpoint)
        except (OutputError, OSError, ValueError, KeyError):
            return f"its snapshot by {step.checkpoint} is gone"
        same = hashes.of(chosen.source) == chosen.sha256
        return "" if same else f"{chosen.source.name} was changed"

    def train(
        self,
        step: Step,
        experiment: Experiment,
        start: Start,
        listen: Callable[[EpochReport], None],
    ) -> None:
        from foldsmith.steps.train import train_folds
        from foldsmith.steps.trial_build import check_components

        check_components(experiment, types_of(experiment.project))
        train_folds(experiment, [step.fold or 0], start, listen)

    def images(self, step: Step, costs: Costs) -> tuple[int, int]:
        assert step.experiment is not None
        held_out = costs.held_out(step.experiment, step.fold or 0)
        return costs.n_train - held_out, held_out

    def same_images(self, step: Step, made: Manifest, costs: Costs) -> bool:
        assert step.experiment is not None
        return costs.same_folds(step.experiment, made)

    def disk(self, step: Step, size: ModelSize, n_splits: int) -> tuple[int, int]:
        assert step.experiment is not None
        every = step.epochs if step.experiment.globals.snapshot_epochs == "all" else 0
        kept = (SNAPSHOTS + every) * size.weights
        # While it trains, one more snapshot and the file to continue from, beside its successor.
        return kept + size.weights + 2 * resume_bytes(step.experiment, size.weights), kept

    def try_batch(
        self, experiment: Experiment, types: Mapping[str, Callable[..., Any]]
    ) -> Trial | None:
        from foldsmith.steps.trial_batch import try_fine_tuning

        return try_fine_tuning(experiment, types)
