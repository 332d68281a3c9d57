"""The step of a self-supervised pretraining."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from foldsmith.config import Checkpoint, Experiment
from foldsmith.config.backbones import BACKBONE_OF_PROBE, backbone_problem
from foldsmith.project import ProjectFolder
from foldsmith.steps.base import Plan, Planner, Step
from foldsmith.steps.cost import TRAINING_PASS, Costs, ModelSize, Trial
from foldsmith.steps.inputs.pretrain import pretrain_inputs, without_probe
from foldsmith.steps.kinds.preprocess import Preprocess
from foldsmith.steps.kinds.training import Training, resume_bytes
from foldsmith.steps.manifest import Inputs, Manifest
from foldsmith.steps.output_folder import Start
from foldsmith.steps.run_records import is_record, name_of
from foldsmith.training.epoch_report import EpochReport
from foldsmith.utils.hashing import FileHashes


class Pretrain(Training):
    """A pretraining on all images; fine-tunings start from its backbones."""

    name = "pretrain"
    title = "Pretraining"
    tasks = ("self-supervised",)
    gives_files = True
    # A longer pretraining continues from it.
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

    def train(
        self,
        step: Step,
        experiment: Experiment,
        start: Start,
        listen: Callable[[EpochReport], None],
    ) -> None:
        from foldsmith.steps.pretrain import pretrain_experiment

        pretrain_experiment(experiment, start, listen)

    def images(self, step: Step, costs: Costs) -> tuple[int, int]:
        return costs.n_train + costs.n_test, 0

    def operations(self, step: Step, costs: Costs) -> float | None:
        from foldsmith.ssl.method import has_teacher

        size = costs.model(step.experiment) if step.experiment is not None else None
        if step.experiment is None or size is None or not any(size.forward.values()):
            return None
        tree = step.experiment.tree
        views = tree["dataset"].get("train", {})
        per_image: float = size.forward[tree["dataset"]["img_size"]] * views.get("n_views", 1)
        if views.get("n_local"):
            per_image += size.forward[tree["dataset"]["local_size"]] * views["n_local"]
        # A teacher sees the views too, and is not trained.
        passes = TRAINING_PASS + has_teacher(costs.types[tree["model"]["type"]])
        return self.images(step, costs)[0] * per_image * passes

    def same_images(self, step: Step, made: Manifest, costs: Costs) -> bool:
        images = self.images(step, costs)[0]
        return bool(made.facts.get("n_images", images) == images)

    def disk(self, step: Step, size: ModelSize, n_splits: int) -> tuple[int, int]:
        assert step.experiment is not None
        kept = kept_backbones(step.experiment) * size.backbone
        resume = resume_bytes(step.experiment, size.weights)
        # A file is written beside the one that it replaces.
        return kept + 2 * resume, kept + resume

    def try_batch(
        self, experiment: Experiment, types: Mapping[str, Callable[..., Any]]
    ) -> Trial | None:
        from foldsmith.steps.trial_batch import try_pretraining

        return try_pretraining(experiment, types)


def kept_backbones(experiment: Experiment) -> int:
    """Return how many backbones a pretraining keeps."""
    settings = experiment.globals
    kept = -(-settings.max_epoch // settings.snapshot_interval)
    return kept + (1 if experiment.tree.get("probe") else 0)
