"""The ways to train that `benchmarks/training.py` measures, one class each.

All of them train the same timm backbone on the same images with the same batch and the same
kinds of augmentation. Each has the settings that its own documentation recommends, and is
given the number of loader processes that is fastest for it here.
"""

import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import timm
import timm.data
import timm.optim
import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules.heads import ProjectionHead, SimSiamPredictionHead
from plain_transforms import plain_transform, resized_transform
from torch import nn
from torch.utils.data import DataLoader, Dataset

from foldsmith.config import Context, Experiment
from foldsmith.data.datasets import Batch
from foldsmith.models.measured_choices import Measured, tune
from foldsmith.models.runtime import Runtime, create_runtime, seed_everything
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import image_paths, read_test, read_train, targets_of
from foldsmith.steps.image_store import open_store
from foldsmith.steps.registry import types_of
from foldsmith.targets.tasks import create_task
from foldsmith.training.fine_tune_step import FineTuneStep
from foldsmith.training.loop import run_training
from foldsmith.training.manager import create_manager
from foldsmith.training.pretrain_step import PretrainStep
from foldsmith.training.training_step import TrainingStep
from foldsmith.utils.hashing import FileHashes

BACKBONE = "resnet18d"
CONFIGS = {"SimSiam": "exp_config/000.yml", "fine-tuning": "exp_config/100.yml"}
MEAN, STD = [0.7757, 0.7424, 0.6690], [0.1146, 0.1135, 0.1139]
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")


def wait() -> None:
    """Wait until the device has done all that was asked of it."""
    if CUDA:
        torch.cuda.synchronize()


class Foldsmith:
    """foldsmith's own loop; and, with the same parts, the model alone on one batch."""

    augment_on = "auto"
    # Overrides of fine-tunings.
    more: tuple[str, ...] = ()

    def __init__(
        self,
        folder: Path,
        kind: str,
        size: int,
        batch: int,
        workers: int,
        backbone: str = BACKBONE,
    ) -> None:
        project = ProjectFolder.open(folder)
        experiment = Experiment.load(
            project,
            CONFIGS[kind],
            [
                f"dataset/img_size={size}",
                f"loader/train/batch_size={batch}",
                f"loader/train/num_workers={workers}",
                "loader/train/drop_last=true",
                f"globals/augment_on={self.augment_on}",
                *(
                    [f"model/backbone/model_name={backbone}"]
                    if kind == "SimSiam"
                    else ["model/pretrained=null", f"model/base_name={backbone}", *self.more]
                ),
            ],
        )
        settings = experiment.globals
        seed_everything(settings.seed)
        self.seed = settings.seed
        self.runtime: Runtime = create_runtime(settings)
        task = None if kind == "SimSiam" else create_task(settings, project)
        store = open_store(project, settings, FileHashes(project.hash_store))
        context = Context(images=store, runtime=self.runtime, task=task)
        parts = experiment.build(types_of(project), context)
        self.loader = parts["loader/train"]
        measured = Measured(project.measurements)
        self.model = tune(parts["model"], self.loader, settings, self.runtime, measured)
        self.optimizer = parts["optimizer"]
        self.step: TrainingStep = (
            PretrainStep(self.model)
            if task is None
            else FineTuneStep(self.model, parts["loss"], task, None, 1, settings.seed)
        )
        first = next(iter(self.loader))
        self.batch = self.runtime.transfer(first, self.loader.on_device)
        self.n_images = sum(self.loader.sampler.sizes())
        self.parts = parts
        # Share of the last epoch's time that the loop waited for the loader.
        self.waited = math.nan

    def floor(self) -> float:
        """Return the images/s of the model alone, over as many batches as an epoch has."""
        return self.n_images / self.seconds_of(self.batch, len(self.loader))

    def seconds_of(self, batch: Batch, n_steps: int) -> float:
        """Return the seconds of some optimizer steps on one batch."""
        self.model.train()
        wait()
        started = time.perf_counter()
        for index in range(n_steps):
            self.train_step(batch, index)
        wait()
        return time.perf_counter() - started

    def train_step(self, batch: Batch, index: int) -> None:
        """Do one optimizer step."""
        with self.runtime.autocast():
            loss = self.step(batch, 0, index)["loss"]
        self.runtime.scaler.scale(loss).backward()
        self.runtime.scaler.step(self.optimizer)
        self.runtime.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def epoch(self) -> float:
        """Return the images/s of one epoch of the real loop."""
        with tempfile.TemporaryDirectory() as folder:
            manager = create_manager(self.model, self.optimizer, 1, len(self.loader), folder)
            wait()
            started = time.perf_counter()
            run_training(
                *(manager, self.step, self.loader, self.optimizer, None, self.runtime),
                grad_accum=1,
                max_epoch=1,
                seed=self.seed,
            )
            wait()
            seconds = time.perf_counter() - started
            self.waited = float(manager.observation["data_wait"])
            return self.n_images / seconds


class FoldsmithOnCPU(Foldsmith):
    """The loop whose loader augments, where another has the card do it."""

    augment_on = "cpu"


class FoldsmithOnGPU(Foldsmith):
    """The loop whose card augments, the images resident there if they fit."""

    augment_on = "gpu"


class SimSiamHeads(nn.Module):
    """The published SimSiam: two projection layers, two prediction layers."""

    def __init__(self, backbone: str = BACKBONE) -> None:
        super().__init__()
        self.backbone = timm.create_model(backbone, num_classes=0)
        dim = int(self.backbone.num_features)
        self.projection = ProjectionHead(
            [
                (dim, 2048, nn.BatchNorm1d(2048), nn.ReLU(inplace=True)),
                (2048, dim, nn.BatchNorm1d(dim), None),
            ]
        )
        self.prediction = SimSiamPredictionHead(dim, dim // 4, dim)
        self.criterion = NegativeCosineSimilarity()

    def forward(self, views: list[torch.Tensor]) -> torch.Tensor:
        """Return the loss of two views."""
        first, second = (self.projection(self.backbone(view)) for view in views)
        return 0.5 * (
            self.criterion(self.prediction(first).float(), second.detach().float())
            + self.criterion(self.prediction(second).float(), first.detach().float())
        )


class _Images(Dataset[tuple[list[torch.Tensor], int]]):
    """Decode, convert, augment: every image, every epoch."""

    def __init__(self, paths: list[Path], targets: np.ndarray, transform: Any, views: int) -> None:
        self.paths, self.targets, self.transform, self.views = paths, targets, transform, views

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[list[torch.Tensor], int]:
        image = cv2.cvtColor(cv2.imread(str(self.paths[index])), cv2.COLOR_BGR2RGB)
        views = [self.transform(image) for _ in range(self.views)]
        return views, int(self.targets[index])


class Plain:
    """The loop of a 2021 competition notebook.

    cv2.imread and albumentations (torchvision's transforms if that is not installed) in a
    DataLoader, fp32 (fp16 autocast on CUDA), NCHW, the loss read at every step.
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        size: int,
        batch: int,
        workers: int,
        backbone: str = BACKBONE,
    ) -> None:
        project = ProjectFolder.open(folder)
        paths, targets = labelled(project, kind)
        self.kind, self.backbone = kind, backbone
        self.transform = plain_transform(kind, size, MEAN, STD)
        self.batch, self.workers = batch, workers
        self.scaler = torch.amp.GradScaler(DEVICE.type, enabled=CUDA)
        if kind == "SimSiam":
            self._load(paths, targets)
            self.model: nn.Module = SimSiamHeads(backbone).to(DEVICE)
            self.optimizer: torch.optim.Optimizer = torch.optim.SGD(
                self.model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4
            )
        else:
            self.use(paths, targets, 4, {})

    def use(
        self,
        paths: list[Path],
        targets: np.ndarray,
        outputs: int,
        backbone: dict[str, torch.Tensor],
    ) -> None:
        """Begin a fine-tuning on some images, from a backbone's weights."""
        self._load(paths, targets)
        self.model = timm.create_model(self.backbone, num_classes=outputs)
        self.model.load_state_dict(backbone, strict=False)
        self.model.to(DEVICE)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)

    def _load(self, paths: list[Path], targets: np.ndarray) -> None:
        self.loader = DataLoader(
            _Images(paths, targets, self.transform, 2 if self.kind == "SimSiam" else 1),
            self.batch,
            shuffle=True,
            drop_last=True,
            num_workers=self.workers,
            pin_memory=CUDA,
            persistent_workers=self.workers > 0,
        )
        self.n_images = len(self.loader) * self.batch

    def plain_loader(self, paths: list[Path], size: int) -> DataLoader[Any]:
        """Return images for prediction, in their order."""
        data = _Images(paths, np.zeros(len(paths)), resized_transform(size, MEAN, STD), 1)
        return DataLoader(data, 64, num_workers=self.workers)

    def epoch(self) -> float:
        """Return the images/s of one epoch."""
        self.model.train()
        started = time.perf_counter()
        total = 0.0
        for views, targets in self.loader:
            views = [view.to(DEVICE, non_blocking=True) for view in views]
            with torch.autocast(DEVICE.type, torch.float16, enabled=CUDA):
                if self.kind == "SimSiam":
                    loss = self.model(views)
                else:
                    loss = self._loss(self.model(views[0]), targets.to(DEVICE))
            self.optimizer.zero_grad()
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            total += loss.item()
        assert math.isfinite(total)
        return self.n_images / (time.perf_counter() - started)

    @staticmethod
    def _loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if logits.shape[1] == 1:
            return nn.functional.mse_loss(logits[:, 0].float(), targets.float())
        return nn.functional.cross_entropy(logits, targets)


class Timm:
    """timm's loader, transforms and optimizer in the loop of its training script.

    As train.py with ``--amp --amp-dtype bfloat16 --channels-last``: PIL decoding, its
    ImageNet augmentations, bytes to the device and normalised there, losses read every 50
    batches.
    """

    def __init__(self, folder: Path, kind: str, size: int, batch: int, workers: int) -> None:
        project = ProjectFolder.open(folder)
        assert kind == "fine-tuning"
        data = timm.data.create_dataset("", str(image_folder(project, kind)), is_training=True)
        self.loader = timm.data.create_loader(
            data,
            input_size=(3, size, size),
            batch_size=batch,
            is_training=True,
            num_workers=workers,
            mean=MEAN,
            std=STD,
            device=DEVICE,
            pin_memory=CUDA,
            persistent_workers=workers > 0,
        )
        model = timm.create_model(BACKBONE, num_classes=4)
        self.model = model.to(DEVICE, memory_format=torch.channels_last)
        self.optimizer = timm.optim.create_optimizer_v2(self.model, opt="adamw", lr=1e-4)
        self.n_images = len(self.loader) * batch

    def epoch(self) -> float:
        """Return the images/s of one epoch."""
        self.model.train()
        started = time.perf_counter()
        for index, (images, targets) in enumerate(self.loader):
            images = images.to(DEVICE, memory_format=torch.channels_last)
            with torch.autocast(DEVICE.type, torch.bfloat16):
                loss = nn.functional.cross_entropy(self.model(images), targets.to(DEVICE))
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            if index % 50 == 0:
                assert math.isfinite(loss.item())
        wait()
        return self.n_images / (time.perf_counter() - started)


def labelled(project: ProjectFolder, kind: str) -> tuple[list[Path], np.ndarray]:
    """Return the images and targets of a training: all images for SimSiam, else the labelled."""
    if kind == "SimSiam":
        paths = image_paths(project, read_train(project)) + image_paths(project, read_test(project))
        return paths, np.zeros(len(paths), np.float32)
    table = read_train(project)
    return image_paths(project, table), targets_of(project, table)


def image_folder(project: ProjectFolder, kind: str) -> Path:
    """Return the images as one folder per class, as torchvision and timm want them."""
    root = project.folder / f"image_folder_{kind}"
    if not root.exists():
        for path, target in zip(*labelled(project, kind), strict=True):
            folder = root / str(int(target))
            folder.mkdir(parents=True, exist_ok=True)
            os.link(path, folder / path.name)
    return root


def create(name: str) -> Any:
    """Return the class of a contender."""
    if name == "lightly":
        # Here, not above: Lightning is there for this one alone.
        from contender_lightly import Lightly

        return Lightly
    return _HERE[name]


_HERE: dict[str, Any] = {
    "foldsmith": Foldsmith,
    "augmenting on the CPU": FoldsmithOnCPU,
    "augmenting on the GPU": FoldsmithOnGPU,
    "plain": Plain,
    "timm": Timm,
}
