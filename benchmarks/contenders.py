"""The ways to train that `benchmarks/training.py` measures, one class each.

All of them train the same timm backbone on the same photos with the same batch and the same
kinds of augmentation. Each has the settings that its own documentation recommends, and is
given the number of loader processes that is fastest for it here.
"""

import math
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import albumentations as al
import cv2
import numpy as np
import pytorch_lightning as pl
import timm
import timm.data
import timm.optim
import torch
from albumentations.pytorch import ToTensorV2
from lightly.data import LightlyDataset
from lightly.data.multi_view_collate import MultiViewCollate
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules.heads import ProjectionHead, SimSiamPredictionHead
from lightly.transforms.simsiam_transform import SimSiamTransform
from torch import nn
from torch.utils.data import DataLoader, Dataset

from foldsmith.config import Experiment, Project
from foldsmith.data.tables import photo_paths, read_test, read_train, targets_of
from foldsmith.hashing import FileHashes
from foldsmith.models.runtime import Runtime, create_runtime, seed_everything
from foldsmith.models.speed import Measured, tune
from foldsmith.stages.photos import open_store
from foldsmith.stages.types import types_of
from foldsmith.tasks.task import create_task
from foldsmith.training.loop import run_training
from foldsmith.training.manager import create_manager
from foldsmith.training.steps import FineTuneStep, PretrainStep, Step

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

    def __init__(self, project: Project, kind: str, size: int, batch: int, workers: int) -> None:
        experiment = Experiment.load(
            project,
            CONFIGS[kind],
            [
                f"dataset/img_size={size}",
                f"loader/train/batch_size={batch}",
                f"loader/train/num_workers={workers}",
                "loader/train/drop_last=true",
                f"globals/augment_on={self.augment_on}",
                *([] if kind == "SimSiam" else ["model/pretrained=null"]),
            ],
        )
        settings = experiment.globals
        seed_everything(settings.seed)
        self.seed = settings.seed
        self.runtime: Runtime = create_runtime(settings)
        task = None if kind == "SimSiam" else create_task(settings, project)
        context: dict[str, Any] = {
            "project": project,
            "images": open_store(project, settings, FileHashes(project.hash_store)),
            "runtime": self.runtime,
            "task": task,
        }
        parts = experiment.build(types_of(project), context)
        self.loader = parts["loader/train"]
        measured = Measured(project.measurements)
        self.model = tune(parts["model"], self.loader, settings, self.runtime, measured)
        self.optimizer = parts["optimizer"]
        self.step: Step = (
            PretrainStep(self.model)
            if task is None
            else FineTuneStep(self.model, parts["loss"], task, None, 1, settings.seed)
        )
        first = next(iter(self.loader))
        self.batch = self.runtime.transfer(first, self.loader.on_device)
        self.n_images = sum(self.loader.sampler.sizes())

    def floor(self) -> float:
        """Return the images/s of the model alone, over as many batches as an epoch has."""
        self.model.train()
        wait()
        started = time.perf_counter()
        for index in range(len(self.loader)):
            with self.runtime.autocast():
                loss = self.step(self.batch, 0, index)["loss"]
            self.runtime.scaler.scale(loss).backward()
            self.runtime.scaler.step(self.optimizer)
            self.runtime.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
        wait()
        return self.n_images / (time.perf_counter() - started)

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
            return self.n_images / (time.perf_counter() - started)


class FoldsmithOnCPU(Foldsmith):
    """The loop whose loader augments, where another has the card do it."""

    augment_on = "cpu"


class FoldsmithOnGPU(Foldsmith):
    """The loop whose card augments, the photos resident there if they fit."""

    augment_on = "gpu"


class SimSiamHeads(nn.Module):
    """The published SimSiam: two projection layers, two prediction layers."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model(BACKBONE, num_classes=0)
        self.projection = ProjectionHead(
            [
                (512, 2048, nn.BatchNorm1d(2048), nn.ReLU(inplace=True)),
                (2048, 512, nn.BatchNorm1d(512), None),
            ]
        )
        self.prediction = SimSiamPredictionHead(512, 128, 512)
        self.criterion = NegativeCosineSimilarity()

    def forward(self, views: list[torch.Tensor]) -> torch.Tensor:
        """Return the loss of two views."""
        first, second = (self.projection(self.backbone(view)) for view in views)
        return 0.5 * (
            self.criterion(self.prediction(first).float(), second.detach().float())
            + self.criterion(self.prediction(second).float(), first.detach().float())
        )


class _Photos(Dataset[tuple[list[torch.Tensor], int]]):
    """Decode, convert, augment: every photo, every epoch."""

    def __init__(self, paths: list[Path], targets: np.ndarray, transform: Any, views: int) -> None:
        self.paths, self.targets, self.transform, self.views = paths, targets, transform, views

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[list[torch.Tensor], int]:
        image = cv2.cvtColor(cv2.imread(str(self.paths[index])), cv2.COLOR_BGR2RGB)
        views = [self.transform(image=image)["image"] for _ in range(self.views)]
        return views, int(self.targets[index])


class Plain:
    """The loop of a 2021 competition notebook.

    cv2.imread and albumentations in a DataLoader, fp32 (fp16 autocast on CUDA), NCHW, the loss
    read at every step.
    """

    def __init__(self, project: Project, kind: str, size: int, batch: int, workers: int) -> None:
        paths, targets = labelled(project, kind)
        self.kind = kind
        steps: list[Any]
        if kind == "SimSiam":
            steps = [
                al.RandomResizedCrop(size=(size, size), scale=(0.2, 1.0)),
                al.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1), p=0.8),
                al.ToGray(p=0.2),
                al.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 2.0), p=0.5),
                al.HorizontalFlip(p=0.5),
            ]
        else:
            steps = [
                al.LongestMaxSize(size),
                al.PadIfNeeded(size, size, border_mode=cv2.BORDER_WRAP),
                al.VerticalFlip(p=0.5),
                al.HorizontalFlip(p=0.5),
                al.ShiftScaleRotate(0.2, 0.2, 20, border_mode=cv2.BORDER_REFLECT, p=0.5),
                al.RandomResizedCrop(size=(size, size), scale=(0.875, 1.0)),
                al.RandomGridShuffle((4, 4), p=0.5),
            ]
        self.transform = al.Compose([*steps, al.Normalize(MEAN, STD), ToTensorV2()])
        self.batch, self.workers = batch, workers
        self.scaler = torch.amp.GradScaler(DEVICE.type, enabled=CUDA)
        if kind == "SimSiam":
            self._load(paths, targets)
            self.model: nn.Module = SimSiamHeads().to(DEVICE)
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
        """Begin a fine-tuning on some photos, from a backbone's weights."""
        self._load(paths, targets)
        self.model = timm.create_model(BACKBONE, num_classes=outputs)
        self.model.load_state_dict(backbone, strict=False)
        self.model.to(DEVICE)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)

    def _load(self, paths: list[Path], targets: np.ndarray) -> None:
        self.loader = DataLoader(
            _Photos(paths, targets, self.transform, 2 if self.kind == "SimSiam" else 1),
            self.batch,
            shuffle=True,
            drop_last=True,
            num_workers=self.workers,
            pin_memory=CUDA,
            persistent_workers=self.workers > 0,
        )
        self.n_images = len(self.loader) * self.batch

    def plain_loader(self, paths: list[Path], size: int) -> DataLoader[Any]:
        """Return photos for prediction, in their order."""
        steps = [
            al.LongestMaxSize(size),
            al.PadIfNeeded(size, size, border_mode=cv2.BORDER_WRAP),
            al.Normalize(MEAN, STD),
            ToTensorV2(),
        ]
        data = _Photos(paths, np.zeros(len(paths)), al.Compose(steps), 1)
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


class Lightly:
    """lightly's documented SimSiam example: LightlyDataset, SimSiamTransform, Lightning.

    Precision: bf16 mixed, as its documentation's benchmarks use 16-bit mixed; drop_last,
    shuffle and collation as in the example.
    """

    def __init__(self, project: Project, kind: str, size: int, batch: int, workers: int) -> None:
        assert kind == "SimSiam"
        transform = SimSiamTransform(input_size=size)
        data = LightlyDataset(str(image_folder(project, kind)), transform=transform)
        self.loader = DataLoader(
            data,
            batch,
            collate_fn=MultiViewCollate(),
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=CUDA,
        )
        self.module = _LightlyModule()
        self.n_images = len(self.loader) * batch

    def epoch(self) -> float:
        """Return the images/s of one epoch, without what Lightning sets up before it."""
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = pl.Trainer(
                max_epochs=1,
                devices=1,
                accelerator="gpu" if CUDA else "cpu",
                precision="bf16-mixed",
                enable_model_summary=False,
                **quiet,
            )
            trainer.fit(self.module, self.loader)
        return self.n_images / self.module.seconds


class _LightlyModule(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = SimSiamHeads()
        self.seconds = math.inf

    def on_train_epoch_start(self) -> None:
        wait()
        self.started = time.perf_counter()

    def on_train_epoch_end(self) -> None:
        wait()
        self.seconds = time.perf_counter() - self.started

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        views, _, _ = batch
        loss: torch.Tensor = self.model(views)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            self.model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4
        )


class Timm:
    """timm's loader, transforms and optimizer in the loop of its training script.

    As train.py with ``--amp --amp-dtype bfloat16 --channels-last``: PIL decoding, its
    ImageNet augmentations, bytes to the device and normalised there, losses read every 50
    batches.
    """

    def __init__(self, project: Project, kind: str, size: int, batch: int, workers: int) -> None:
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


def labelled(project: Project, kind: str) -> tuple[list[Path], np.ndarray]:
    """Return the photos and targets of a training: all photos for SimSiam, else the labelled."""
    if kind == "SimSiam":
        paths = photo_paths(project, read_train(project)) + photo_paths(project, read_test(project))
        return paths, np.zeros(len(paths), np.float32)
    table = read_train(project)
    return photo_paths(project, table), targets_of(project, table)


def image_folder(project: Project, kind: str) -> Path:
    """Return the photos as one folder per class, as torchvision and timm want them."""
    root = project.folder / f"image_folder_{kind}"
    if not root.exists():
        for path, target in zip(*labelled(project, kind), strict=True):
            folder = root / str(int(target))
            folder.mkdir(parents=True, exist_ok=True)
            os.link(path, folder / path.name)
    return root


ALL: dict[str, Any] = {
    "foldsmith": Foldsmith,
    "augmenting on the CPU": FoldsmithOnCPU,
    "augmenting on the GPU": FoldsmithOnGPU,
    "plain": Plain,
    "lightly": Lightly,
    "timm": Timm,
}
