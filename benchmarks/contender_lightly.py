"""lightly's own way to train SimSiam, for `benchmarks/training.py`."""

import math
import time
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from contenders import CUDA, SimSiamHeads, image_folder, wait
from lightly.data import LightlyDataset
from lightly.data.multi_view_collate import MultiViewCollate
from lightly.transforms.simsiam_transform import SimSiamTransform
from torch.utils.data import DataLoader

from foldsmith.project import ProjectFolder


class Lightly:
    """lightly's documented SimSiam example: LightlyDataset, SimSiamTransform, Lightning.

    Precision: bf16 mixed, as its documentation's benchmarks use 16-bit mixed; drop_last,
    shuffle and collation as in the example.
    """

    def __init__(self, folder: Path, kind: str, size: int, batch: int, workers: int) -> None:
        project = ProjectFolder.open(folder)
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
