"""The step of a self-supervised pretraining."""

from collections.abc import Callable
from pathlib import Path

from foldsmith.config import Checkpoint, Experiment
from foldsmith.config.backbones import BACKBONE_OF_PROBE, backbone_problem
from foldsmith.project import ProjectFolder
from foldsmith.steps.base import Options, Plan, Planner, Step, name_of
from foldsmith.steps.fingerprint import pretrain_inputs, without_probe
from foldsmith.steps.kinds.preprocess import Preprocess
from foldsmith.steps.kinds.training import Training
from foldsmith.steps.manifest import Inputs, Manifest
from foldsmith.steps.output_folder import Start, is_record
from foldsmith.steps.status import Status, StepState
from foldsmith.training.epoch_report import EpochReport
from foldsmith.utils.hashing import FileHashes


class Pretrain(Training):
    """A pretraining on all images; its backbones are what fine-tunings start from."""

    name = "pretrain"
    title = "Pretraining"
    tasks = ("self-supervised",)
    gives_files = True
    # A longer pretraining goes on from it.
    keeps_resume = True

    def plan(
        self, experiment: Experiment, output: Path, planner: Planner, checkpoint: Checkpoint
    ) -> tuple[str, ...]:
        planner.check(experiment)
        label = f"{self.name} {name_of(experiment)}"
        return (planner.add(Step(self, label, output, (Preprocess.name,), experiment)),)

    def file_problem(self, experiment: Experiment, file: str) -> str | None:
        return backbone_problem(file, experiment.file.name, experiment.tree, experiment.globals)

    def inputs(
        self, step: Step, plan: Plan, hashes: FileHashes, weights_may_be_gone: bool = False
    ) -> Inputs:
        assert step.experiment is not None
        return pretrain_inputs(step.experiment, plan.types, hashes)

    def may_be_longer(self, step: Step, plan: Plan) -> bool:
        from foldsmith.steps.pretrain import may_be_longer

        assert step.experiment is not None
        return may_be_longer(step.experiment, plan.types)

    def compared(self, step: Step, inputs: Inputs) -> Inputs:
        # The backbones of chosen epochs are the same whatever the probe measures.
        unjudged = bool(step.wanted) and BACKBONE_OF_PROBE not in step.wanted
        return without_probe(inputs) if unjudged else dict(inputs)

    def unusable(
        self,
        step: Step,
        project: ProjectFolder,
        manifest: Manifest,
        changed: dict[str, str],
        hashes: FileHashes,
    ) -> str:
        texts = [text for name, text in changed.items() if not is_record(name)]
        missing = [f"{name} is missing" for name in step.wanted if name not in manifest.outputs]
        return "; ".join([*texts, *missing])

    def run(
        self,
        step: Step,
        plan: Plan,
        state: StepState,
        options: Options,
        listen: Callable[[EpochReport], None],
    ) -> None:
        from foldsmith.steps.pretrain import pretrain_experiment

        assert step.experiment is not None
        # A finished one whose files are gone is made anew.
        start: Start = "force" if state.status == Status.STALE else "auto"
        pretrain_experiment(step.experiment, start, listen)
