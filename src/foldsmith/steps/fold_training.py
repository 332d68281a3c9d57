"""The training of one fold of a fine-tuning."""

import copy
import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from foldsmith.config import Components, Context, Experiment, Globals
from foldsmith.config.output_path import claimant
from foldsmith.data.loader import ImageLoader, one_image
from foldsmith.distributed import process_group
from foldsmith.distributed.collectives import same_weights, synchronised
from foldsmith.errors import ConfigError, one_line
from foldsmith.inference.predict import measure_norms, predict_logits
from foldsmith.models.classifier import ImageModel
from foldsmith.models.measured_choices import Measured, tune
from foldsmith.models.ridge_layer import ridge_layer
from foldsmith.models.runtime import Runtime, random_state_kept, seed_everything
from foldsmith.project.tables import FOLD_COLUMN
from foldsmith.steps.fold_components import FoldComponents, build_fold, set_labels
from foldsmith.steps.inputs.train import train_inputs
from foldsmith.steps.manifest import Inputs
from foldsmith.steps.output_folder import (
    Start,
    check_unchanged,
    claimed,
    clean_up,
    decide,
    prepare,
    shown,
    start_in,
)
from foldsmith.steps.run_records import restore_records, save_sources
from foldsmith.steps.status import Status
from foldsmith.steps.step_run import StepRun
from foldsmith.steps.training_run import Listener, TrainingRun
from foldsmith.targets.auxiliary import read_auxiliary
from foldsmith.targets.column_scales import ScaleForm
from foldsmith.targets.metrics import Metric
from foldsmith.targets.scoring import check_metric
from foldsmith.targets.task import Task
from foldsmith.targets.weighted_losses import loss_name, with_weights
from foldsmith.training.auxiliary import AuxiliaryLoss
from foldsmith.training.extensions.snapshots import every_epoch_snapshot
from foldsmith.training.fine_tune_step import FineTuneStep
from foldsmith.utils.formatting import counted
from foldsmith.utils.locking import lock
from foldsmith.utils.owned_files import OwnedFiles

logger = logging.getLogger(__name__)

# Rows with a missing target on which a loss is tried.
_TRIED = 8


class FoldTraining:
    """The training of one fold.

    Args:
        experiment: The fine-tuning.
        run: The run of this fold.
        root: Output folder of the experiment.
        fold: The fold.
        start: Treatment of an existing output folder.
        context: Objects that components refer to, with the task of all folds.
        form: Form of the target scale; None for a task without one.
        listener: Called after each epoch.
    """

    def __init__(
        self,
        experiment: Experiment,
        run: StepRun,
        root: Path,
        fold: int,
        start: Start,
        context: Context,
        form: ScaleForm | None,
        listener: Listener | None,
    ) -> None:
        output_path = f"{experiment.globals.output_root}/fold{fold}"
        self._all_folds = experiment
        self._experiment = experiment.with_values(
            {"globals/val_fold": fold, "globals/output_path": output_path}
        )
        self._settings = experiment.globals
        self._run = run
        self._root = root
        self._folder = root / f"fold{fold}"
        self._fold = fold
        self._start = start
        self._context = context
        self._form = form
        self._listener = listener
        self._step = f"train {self._settings.output_root} fold {fold}"

    def run(self) -> None:
        """Train the fold, unless it is finished."""
        before = process_group.from_main(self._inputs)
        start = process_group.from_main(partial(start_in, self._folder, self._start))
        decided = partial(decide, self._folder, before, start)
        if process_group.from_main(decided) == Status.DONE:
            if process_group.is_main():
                with lock(self._folder):
                    clean_up(self._folder, keep_resume=False)
                    restore_records(self._folder, self._experiment, self._run.hashes)
            self._print_finished()
            return
        built = self._build()
        with claimed(self._folder):
            # Again, now that no other process can change it.
            check_unchanged(before, process_group.from_main(self._inputs), self._folder)
            status = process_group.from_main(decided)
            if status == Status.DONE:  # by another process, while the components were built
                self._print_finished()
                return
            self._train(built, before, status)

    def _print_finished(self) -> None:
        logger.info(f"fold {self._fold}: finished already")

    def _inputs(self) -> Inputs:
        """Return the training's inputs of now."""
        run = self._run
        return run.noted(train_inputs(self._all_folds, self._fold, run.types, run.hashes))

    def _build(self) -> "_Built":
        """Build everything that the training takes, before the folder is touched.

        Raises:
            ConfigError: A component is wrong, or does not fit the task.
        """
        runtime = self._context.runtime
        with process_group.main_first():
            seed_everything(self._settings.seed)
            experiment = self._experiment.with_values({"globals/output_path": str(self._folder)})
            made = build_fold(
                experiment, self._run.types, self._context, self._context.task, self._form
            )
            made.components["loader/train"].check_shares()
            model, auxiliary = self._checked_model(made)
            to_start_at = self._images_for_ridge(made, model)
        model = synchronised(model)
        if to_start_at is not None:
            _start_head(model, to_start_at, runtime)
            # Another machine may have rounded it otherwise.
            model = same_weights(model)
        with process_group.main_first():
            # Built when the weights are those at the start of training: an average copies them.
            made.components.ensure("loss", "optimizer", "scheduler", "ema", "manager", "extensions")
        return _Built(made, model, auxiliary, made.weights_on(runtime.device))

    def _checked_model(self, made: FoldComponents) -> tuple[nn.Module, AuxiliaryLoss | None]:
        """Return the model of the fold on its device, and the loss of its auxiliary heads."""
        components, runtime, task = made.components, self._context.runtime, self._context.task
        loader = components["loader/train"]
        auxiliary = _add_auxiliary(self._experiment, components["model"], made.table, runtime)
        check_metric(task, components["eval/metric"])
        with_weights(components["loss"], made.weights is not None)
        _check_missing_targets(made, runtime)
        measured = Measured(self._run.project.measurements)
        model = tune(components["model"], loader, self._settings, runtime, measured)
        check_outputs(self._all_folds, model, components["loader/val"], task, runtime)
        check_batches(self._all_folds, model, loader, runtime)
        return model, auxiliary

    def _images_for_ridge(self, made: FoldComponents, model: nn.Module) -> ImageLoader | None:
        """Return the training images, transformed as in validation, if a ridge sets the head."""
        if self._settings.head_init != "ridge":
            return None
        val_as_train = self._experiment.with_values({"dataset/val/part": "train"})
        context = replace(self._context, task=made.task)
        loader: ImageLoader = val_as_train.build(self._run.types, context)["loader/val"]
        set_labels(loader, made.task, made.labels, made.weights)
        if isinstance(model, ImageModel) and not model.freeze_backbone:
            measure_norms(model.backbone, loader, self._context.runtime)
        return loader

    def _train(self, built: "_Built", inputs: Inputs, status: Status) -> None:
        """Train the fold in its folder, which is held, and write the manifest."""
        runtime, settings, made = self._context.runtime, self._settings, built.made
        training = TrainingRun(
            *(self._run, self._experiment, self._folder, self._step, inputs, status),
            *(partial(self._prepare_folders, inputs, status), runtime, self._listener),
        )
        with process_group.main_first():
            if process_group.is_main():
                self._claim_root()
                training.open()
        logger.info(f"fold {self._fold}: {settings.task}, {runtime.device}, {shown(self._folder)}")
        if process_group.is_main():
            for line in made.task.lines_of_fold(self._fold, made.labels[made.seen]):
                logger.info(line)
        name = f"{self._experiment.file.stem} {self._folder.name}"
        components = made.components
        training.attach(components["manager"], _extensions(components, settings), name)
        training.train(components, built.step(self._experiment))
        if process_group.is_main():
            metric: Metric = components["eval/metric"]
            training.finish(
                keep_resume=False, metric=metric.title, greater_is_better=metric.greater_is_better
            )

    def _claim_root(self) -> None:
        """Claim the experiment's folder: a kill may leave an unfinished fold alone in it."""
        if OwnedFiles(self._root).experiment is None:
            with lock(self._root, wait_s=60):
                OwnedFiles(self._root).claim(claimant(self._all_folds))

    def _prepare_folders(self, inputs: Inputs, status: Status) -> None:
        """Make the fold's folder, and the experiment's, ready for the training."""
        # Trainings of other folds hold it for a moment each, and may all begin at once; an
        # inference holds it for long.
        with lock(self._root, wait_s=60):
            _remove_inferred(self._root, self._fold)
            save_sources(self._root, self._all_folds, "train")
        prepare(self._folder, self._step, inputs, status)
        save_sources(self._folder, self._experiment, "train")


@dataclass(frozen=True)
class _Built:
    """Everything that one fold's training takes.

    Attributes:
        made: The components, the task and the labels of the fold.
        model: The model, on its device, the same in all processes.
        auxiliary: Losses of its auxiliary heads, or None.
        weights: Weight of each row in the loss, on the device; None for 1 each.
    """

    made: FoldComponents
    model: nn.Module
    auxiliary: AuxiliaryLoss | None
    weights: torch.Tensor | None

    def step(self, experiment: Experiment) -> FineTuneStep:
        """Return the training step of the fold."""
        components, settings = self.made.components, experiment.globals
        mixup = components["dataset/mixup"] if "mixup" in experiment.tree["dataset"] else None
        return FineTuneStep(
            *(self.model, components["loss"], self.made.task, mixup),
            *(settings.max_epoch, settings.seed),
            head_epochs=settings.head_epochs,
            ema=components["ema"],
            auxiliary=self.auxiliary,
            weights=self.weights,
        )


def _check_missing_targets(made: FoldComponents, runtime: Runtime) -> None:
    """Make sure that the loss leaves missing targets out, if there are any.

    Raises:
        ConfigError: It is NaN for rows with a missing target.
    """
    labels = made.labels[made.seen]
    gaps = np.isnan(labels.reshape(len(labels), -1)).any(axis=1)
    if not gaps.any():
        return
    codes = made.task.codes(labels[gaps][:_TRIED])
    targets = made.task.encode(torch.from_numpy(codes).to(runtime.device))
    loss = with_weights(made.components["loss"], needed=False)
    outputs = torch.zeros(len(codes), made.task.n_outputs, device=runtime.device)
    if torch.isnan(loss(outputs, targets, None)):
        raise ConfigError(
            f"loss: {loss_name(made.components['loss'])} is NaN where a target is missing, as in "
            f"{counted(int(gaps.sum()), 'training row')}; take a loss that leaves missing targets "
            "out: MaskedMSELoss, MaskedL1Loss or MaskedHuberLoss; of classes ClassTargetsLoss"
        )


def _extensions(components: Components, settings: Globals) -> list[Any]:
    """Return the extensions of a fine-tuning, in their order."""
    every_epoch = settings.snapshot_epochs == "all"
    return [
        components["eval"],
        *components["extensions"],
        *([every_epoch_snapshot(components["ema"].module)] if every_epoch else []),
    ]


def _remove_inferred(root: Path, fold: int) -> None:
    """Remove the inference from an earlier training of a fold."""
    owned = OwnedFiles(root)
    inferred = owned.of("infer")
    # Manifests first, so that nothing looks finished. Other folds' copies of weights stay.
    manifests = [name for name in inferred if name.startswith("manifest_by_")]
    copies = [name for name in inferred if name.endswith(".pth")]
    own = [name for name in copies if name.endswith(f"_fold{fold}.pth")]
    owned.remove(manifests)
    owned.remove([*(name for name in inferred if name not in copies), *own])


def _add_auxiliary(
    experiment: Experiment, model: nn.Module, table: pd.DataFrame, runtime: Runtime
) -> AuxiliaryLoss | None:
    """Add the auxiliary heads of one fold to its model, before the optimizer is made."""
    settings = experiment.globals
    if not settings.auxiliary:
        return None
    if not isinstance(model, ImageModel):
        raise ConfigError(
            f"{experiment.file}: globals/auxiliary: {type(model).__name__} has no auxiliary heads; "
            "take model/type ImageModel"
        )
    seen = table[FOLD_COLUMN].to_numpy() != settings.val_fold
    targets = read_auxiliary(experiment.project, settings.auxiliary, table, seen)
    model.add_auxiliary({name: target.width for name, target in targets.items()})
    return AuxiliaryLoss(targets, settings.auxiliary, runtime.device)


def _start_head(model: nn.Module, loader: ImageLoader, runtime: Runtime) -> None:
    """Let the head begin as a ridge regression on the features of the training folds.

    Args:
        model: On the runtime's device.
        loader: The training folds' images with the transforms of the validation.
        runtime: Device and precision.
    """
    if not isinstance(model, ImageModel):
        raise ConfigError(
            f"globals/head_init: {type(model).__name__} has no head to set; take ImageModel"
        )
    features = predict_logits([model.backbone], loader, runtime, "ridge")[0]
    dataset = loader.dataset
    weights = None if dataset.weights is None else dataset.weights.astype(np.float64)
    model.start_head(*ridge_layer(features, dataset.codes.astype(np.float64), weights))


@torch.inference_mode()
def check_outputs(
    experiment: Experiment, model: nn.Module, loader: ImageLoader, task: Task, runtime: Runtime
) -> None:
    """Pass one image through the model and check its outputs against the task.

    Args:
        experiment: Named in the error.
        model: On the runtime's device; left in evaluation mode.
        loader: Source of the image.
        task: The task.
        runtime: Device and precision.

    Raises:
        ConfigError: The model cannot take the image, or gives another number of outputs.
    """
    images = runtime.transfer(loader.dataset[0, 0], loader.on_device).views[0]
    try:
        with runtime.autocast():
            shape = tuple(model.eval()(images).shape)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(
            f"{experiment.file}: model: cannot take images of shape {tuple(images.shape[1:])}: "
            f"{one_line(error)[:200]}"
        ) from error
    if shape != (1, task.n_outputs):
        raise ConfigError(
            f"{experiment.file}: model: gives outputs of shape {shape[1:]}, but the task "
            f"{task.name} needs ({task.n_outputs},); set model/dims_head=[null, {task.n_outputs}]"
        )


def check_batches(
    experiment: Experiment, model: nn.Module, loader: ImageLoader, runtime: Runtime
) -> None:
    """Make sure that a model can be trained on the smallest batch, if that is a single image.

    A BatchNorm whose input has one value per channel has no variance to normalise by: a single
    image that the layers before have shrunk to one pixel. The model is left as it was.

    Args:
        experiment: Named in the error.
        model: On the runtime's device; left in evaluation mode.
        loader: The training batches.
        runtime: Device and precision.

    Raises:
        ConfigError: It cannot.
    """
    if min(loader.sampler.sizes()) > 1:
        return
    images = runtime.transfer(loader.dataset[0, 0], loader.on_device).views[0]
    tried = copy.deepcopy(model)
    try:
        with torch.no_grad(), runtime.autocast(), random_state_kept():
            tried.train()(images)
    except ValueError as error:
        raise ConfigError(
            f"{experiment.file}: {one_image(loader)}, which BatchNorm cannot be trained on where "
            "the layers before leave one pixel of it; set loader/train/batch_size to 2 or more, "
            "enlarge dataset/img_size, or set globals/freeze_backbone"
        ) from error
