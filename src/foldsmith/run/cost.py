"""How much work a step is and how large its files are: counted from its files, not measured."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from foldsmith.config import Context, Experiment
from foldsmith.errors import FoldsmithError
from foldsmith.project.tables import (
    FOLD_COLUMN,
    read_folds,
    read_test,
    read_train,
    readable_test,
)
from foldsmith.ssl.method import has_teacher
from foldsmith.steps.base import Plan, Step
from foldsmith.steps.fingerprint import hash_folds, without_pretrained
from foldsmith.targets.tasks import create_task
from foldsmith.utils.flatten import flatten
from foldsmith.utils.hashing import hash_value

# A backward pass takes about twice the operations of a forward pass.
_TRAINED = 3.0

# Passes over a photo by globals/tta.
_PASSES = {"none": 1, "hflip": 2, "flips": 4}


@dataclass(frozen=True)
class ModelSize:
    """What a model is, counted on a model without memory (torch's device ``meta``).

    Attributes:
        key: What the model is and which photos it takes, as a hash.
        weights: Bytes of its weights.
        backbone: Bytes of those of its backbone.
        forward: Side of a photo in px -> operations of a forward pass of the backbone.
    """

    key: str
    weights: int
    backbone: int
    forward: dict[int, float]


class Work:
    """The work of a plan's steps.

    Args:
        plan: The plan.

    Attributes:
        n_train: Labelled photos.
        n_test: Photos to predict.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        test = read_test(plan.project)
        self.n_train = len(read_train(plan.project))
        self.n_test = len(readable_test(plan.project, test))
        self._models: dict[str, ModelSize | None] = {}
        self._folds: dict[str | None, pd.DataFrame | None] = {}

    def photos(self, step: Step) -> tuple[int, int]:
        """Return the photos that a step learns from in an epoch, and those it only looks at.

        Of an inference: none, and how often a photo goes through a model.
        """
        if step.kind.name == "pretrain":
            return self.n_train + self.n_test, 0
        if step.kind.name == "train" and step.experiment is not None:
            held_out = self._held_out(step.experiment.globals.meta_file, step.fold or 0)
            return self.n_train - held_out, held_out
        if step.kind.predicts and step.experiment is not None:
            passes = _PASSES[step.experiment.globals.tta]
            if step.kind.name == "features":
                return 0, passes * (self.n_train + self.n_test)
            # Out of fold by the chosen epoch and by the last; the test photos by every fold.
            return 0, passes * (2 * self.n_train + self.plan.project.n_splits * self.n_test)
        return 0, self.n_train + self.n_test

    def operations(self, step: Step) -> float | None:
        """Return the floating-point operations of an epoch, or of a whole inference.

        Forward passes of the backbone, three times for what learns; None if the step has no model
        or its model cannot be counted.
        """
        size = None if step.experiment is None else self.model(step.experiment)
        if step.experiment is None or size is None or not any(size.forward.values()):
            return None
        learned, seen = self.photos(step)
        tree = step.experiment.tree
        whole = size.forward[tree["dataset"]["img_size"]]
        if step.kind.name != "pretrain":
            trained = 1.0 if step.experiment.globals.freeze_backbone else _TRAINED
            return whole * (trained * learned + seen)
        views = tree["dataset"].get("train", {})
        per_photo: float = whole * views.get("n_views", 1)
        if views.get("n_local"):
            per_photo += size.forward[tree["dataset"]["local_size"]] * views["n_local"]
        # A momentum encoder looks at the views, and is not trained.
        method = self.plan.types[tree["model"]["type"]]
        return learned * per_photo * (_TRAINED + has_teacher(method))

    def model(self, experiment: Experiment) -> ModelSize | None:
        """Return the size of an experiment's model; None if it has none that can be counted."""
        tree = experiment.tree
        if "model" not in tree:
            return None
        sides = [tree["dataset"].get(name) for name in ("img_size", "local_size")]
        model = {k: v for k, v in flatten(tree["model"]).items() if not k.startswith("pretrained")}
        key = hash_value([model, sides, experiment.globals.task, experiment.globals.n_bins])
        if key not in self._models:
            try:
                self._models[key] = _counted(experiment, self.plan, key, sides)
            except Exception:  # whatever a model of the project's own raises without memory
                self._models[key] = None
        return self._models[key]

    def folds_hash(self, experiment: Experiment) -> str | None:
        """Return the hash of which photo is in which fold; None before there are folds."""
        table = self._fold_table(experiment.globals.meta_file)
        return None if table is None else hash_folds(self.plan.project, table)

    def _held_out(self, meta_file: str | None, fold: int) -> int:
        """Return how many photos a fold holds; an equal share before there are folds."""
        table = self._fold_table(meta_file)
        if table is None:
            return round(self.n_train / self.plan.project.n_splits)
        return int((table[FOLD_COLUMN] == fold).sum())

    def _fold_table(self, meta_file: str | None) -> pd.DataFrame | None:
        if meta_file not in self._folds:
            try:
                self._folds[meta_file] = read_folds(self.plan.project, meta_file)
            except FoldsmithError:
                self._folds[meta_file] = None
        return self._folds[meta_file]


def _counted(
    experiment: Experiment, plan: Plan, key: str, sides: Iterable[int | None]
) -> ModelSize:
    from torch.utils.flop_counter import FlopCounterMode

    model = build_model(experiment, plan, "meta")
    backbone = getattr(model, "backbone", model)
    forward = {}
    for side in sides:
        if side is None:
            continue
        photo = torch.empty((1, 3, side, side), device="meta")
        try:
            with FlopCounterMode(display=False) as counter, torch.inference_mode():
                backbone.eval()(photo)
            forward[side] = float(counter.get_total_flops())
        except (RuntimeError, NotImplementedError, TypeError):
            forward[side] = 0.0  # no network, as the descriptors of photos
    return ModelSize(key, weight_bytes(model), weight_bytes(backbone), forward)


def build_model(experiment: Experiment, plan: Plan, device: str) -> Any:
    """Return the model of an experiment with random weights.

    Args:
        experiment: A pretraining, a fine-tuning or frozen features.
        plan: The plan that it is in.
        device: Where its weights are; ``meta`` for nowhere.

    Raises:
        ConfigError: The model is wrong.
    """
    project, settings = experiment.project, experiment.globals
    with_task = settings.task not in ("self-supervised", "frozen-features")
    task = create_task(settings, project) if with_task else None
    context = Context(task=task)
    with torch.device(device):
        return without_pretrained(experiment).build(plan.types, context)["model"]


def weight_bytes(model: torch.nn.Module) -> int:
    """Return the bytes of a module's weights and buffers."""
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())
