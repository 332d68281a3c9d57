"""Common base of the steps that predict all images: a manifest per checkpoint."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from foldsmith.config import Checkpoint, Experiment
from foldsmith.steps.base import Step, StepKind
from foldsmith.steps.checkpoint_choice import checkpoint_for, inference_manifest
from foldsmith.steps.cost import Costs
from foldsmith.steps.inputs.predictions import new_image_inputs
from foldsmith.steps.manifest import Manifest, read_manifest
from foldsmith.utils.flatten import flatten
from foldsmith.utils.hashing import FileHashes

# Forward passes per image by globals/tta.
PASSES = {"none": 1, "hflip": 2, "flips": 4}

# Guessed seconds of the heads of all folds, and of the descriptors of an image.
_FIT_S, _DESCRIBED_S = 10.0, 0.02


class PredictionStep(StepKind):
    """A step whose results an ensemble can blend."""

    computes = True
    predicts = True

    def manifest(self, step: Step) -> Path:
        return inference_manifest(step.folder, step.checkpoint)

    def as_run(
        self,
        experiment: Experiment,
        folder: Path,
        checkpoint: Checkpoint,
        types: Mapping[str, Callable[..., Any]],
        hashes: FileHashes,
    ) -> Experiment:
        label = checkpoint_for(experiment.globals.task, checkpoint)
        manifest = read_manifest(inference_manifest(folder, label))
        return experiment if manifest is None else as_inferred(experiment, manifest, types, hashes)

    def guess_s(self, step: Step, costs: Costs) -> float | None:
        return _FIT_S + _DESCRIBED_S * self.images(step, costs)[1]

    def same_images(self, step: Step, made: Manifest, costs: Costs) -> bool:
        assert step.experiment is not None
        return costs.same_folds(step.experiment, made)


def as_inferred(
    experiment: Experiment,
    manifest: Manifest,
    types: Mapping[str, Callable[..., Any]],
    hashes: FileHashes,
) -> Experiment:
    """Return an experiment with the values that its inference was given (``globals/tta``)."""
    experiment = experiment.written_out()
    today = new_image_inputs(experiment, types, hashes)["config"]
    then = dict(manifest.inputs["config"])
    known = flatten(experiment.tree)
    return experiment.with_values(
        {
            key: value
            for key, value in then.items()
            # An inference starts from snapshots, so the weights before the training do not matter.
            if key in known and key != "model/pretrained" and today.get(key) != value
        }
    )
