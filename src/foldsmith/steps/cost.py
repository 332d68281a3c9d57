"""Amount of work of a step and size of its model: counted from files and networks, not measured."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from foldsmith.config import Context, Experiment
from foldsmith.config.settings import FINE_TUNINGS
from foldsmith.errors import FoldsmithError
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import (
    FOLD_COLUMN,
    read_folds,
    read_test,
    read_train,
    readable_test,
)
from foldsmith.steps.data_hashes import hash_folds
from foldsmith.steps.inputs.shared import without_pretrained
from foldsmith.steps.manifest import Manifest
from foldsmith.targets.tasks import create_task
from foldsmith.utils.flatten import flatten
from foldsmith.utils.hashing import hash_value

if TYPE_CHECKING:
    import torch

# Operations of a training pass, in forward passes: a backward pass takes about two of them.
TRAINING_PASS = 3.0

# Keys that, beside the model, dataset and loader, decide how long an image takes.
_SLOWER_BY = ("globals/freeze_backbone", "globals/tta", "globals/enable_amp", "globals/amp_dtype")


@dataclass(frozen=True)
class ModelSize:
    """Size of a model, counted on a model without memory (torch's device ``meta``).

    Attributes:
        key: Hash of the model's configuration and its image sizes.
        weights: Bytes of its weights.
        backbone: Bytes of the weights of its backbone.
        forward: Image side in px -> operations of a forward pass of the backbone.
    """

    key: str
    weights: int
    backbone: int
    forward: Mapping[int, float]


@dataclass(frozen=True)
class Trial:
    """Result of one batch through the model of an experiment.

    Attributes:
        text: One line for people.
        size: Size of the model, without its operations; None if no weights are kept.
        other_bytes: Size of the other files that the experiment writes.
    """

    text: str
    size: ModelSize | None = None
    other_bytes: int = 0


class Costs:
    """Numbers of images and sizes of models of a project, each counted once.

    Args:
        project: The project.
        types: The components that its experiments can name.

    Attributes:
        n_train: Number of labelled images.
        n_test: Number of images to predict.
    """

    def __init__(self, project: ProjectFolder, types: Mapping[str, Callable[..., Any]]) -> None:
        self.project, self.types = project, types
        self.n_train = len(read_train(project))
        self.n_test = len(readable_test(project, read_test(project)))
        self._models: dict[str, ModelSize | None] = {}
        self._folds: dict[str | None, pd.DataFrame | None] = {}

    def model(self, experiment: Experiment) -> ModelSize | None:
        """Return the size of an experiment's model; None without a model, or if counting fails."""
        tree = experiment.tree
        if "model" not in tree:
            return None
        sides = [tree["dataset"].get(name) for name in ("img_size", "local_size")]
        model = {k: v for k, v in flatten(tree["model"]).items() if not k.startswith("pretrained")}
        key = hash_value([model, sides, experiment.globals.task, experiment.globals.n_bins])
        if key not in self._models:
            try:
                self._models[key] = _counted(experiment, self.types, key, sides)
            except Exception:  # whatever a model of the project's own raises without memory
                self._models[key] = None
        return self._models[key]

    def same_folds(self, experiment: Experiment, made: Manifest) -> bool:
        """Return whether a recorded step had the fold assignment of today."""
        table = self._fold_table(experiment.globals.meta_file)
        today = None if table is None else hash_folds(self.project, table)
        return bool(made.inputs.get("fold assignment") == today)

    def held_out(self, experiment: Experiment, fold: int) -> int:
        """Return the number of images of a fold; before there are folds, the mean."""
        table = self._fold_table(experiment.globals.meta_file)
        if table is None:
            return round(self.n_train / self.project.n_splits)
        return int((table[FOLD_COLUMN] == fold).sum())

    def _fold_table(self, meta_file: str | None) -> pd.DataFrame | None:
        if meta_file not in self._folds:
            try:
                self._folds[meta_file] = read_folds(self.project, meta_file)
            except FoldsmithError:
                self._folds[meta_file] = None
        return self._folds[meta_file]


def same_speed(experiment: Experiment, config: object) -> bool:
    """Return whether an image took as long in a finished step as it would take today.

    Args:
        experiment: The experiment, as its files are today.
        config: The configuration in the manifest of the step.
    """
    if not isinstance(config, dict):
        return True
    today = flatten(json.loads(json.dumps(experiment.written_out().tree)))
    return _costly(config) == {key: v for key, v in _costly(today).items() if key in config}


def _costly(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of an experiment that decide how long an image takes."""
    return {
        key: value
        for key, value in config.items()
        if (key.startswith(("model/", "dataset/", "loader/")) or key in _SLOWER_BY)
        and not key.endswith(("num_workers", "pin_memory"))
        and not key.startswith("model/pretrained")
    }


def _counted(
    experiment: Experiment,
    types: Mapping[str, Callable[..., Any]],
    key: str,
    sides: Iterable[int | None],
) -> ModelSize:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = build_model(experiment, types, "meta")
    backbone = getattr(model, "backbone", model)
    forward = {}
    for side in sides:
        if side is None:
            continue
        image = torch.empty((1, 3, side, side), device="meta")
        try:
            with FlopCounterMode(display=False) as counter, torch.inference_mode():
                backbone.eval()(image)
            forward[side] = float(counter.get_total_flops())
        except (RuntimeError, NotImplementedError, TypeError):
            forward[side] = 0.0  # no network, as the descriptors of images
    return ModelSize(key, weight_bytes(model), weight_bytes(backbone), forward)


def build_model(
    experiment: Experiment, types: Mapping[str, Callable[..., Any]], device: str
) -> Any:
    """Return the model of an experiment with random weights.

    Args:
        experiment: A pretraining, a fine-tuning or frozen features.
        types: The components that it can name.
        device: Device of its weights; ``meta`` for a model without memory.

    Raises:
        ConfigError: The model is wrong.
    """
    from foldsmith.models.runtime import weights_on

    project, settings = experiment.project, experiment.globals
    task = create_task(settings, project) if settings.task in FINE_TUNINGS else None
    context = Context(task=task)
    with weights_on(device):
        return without_pretrained(experiment).build(types, context)["model"]


def weight_bytes(model: "torch.nn.Module") -> int:
    """Return the bytes of a module's weights and buffers."""
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())
