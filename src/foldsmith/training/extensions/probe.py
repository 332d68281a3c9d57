"""Probes of the features during a pretraining."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_pfn_extras as ppe
import torch
from pytorch_pfn_extras.training import extension
from torch import nn

from foldsmith.config.backbones import BACKBONE_OF_EPOCH, BACKBONE_OF_PROBE
from foldsmith.data.loader import ImageLoader
from foldsmith.errors import ConfigError, TrainingError
from foldsmith.inference.predict import predict_logits
from foldsmith.inference.probes import effective_rank, knn_oof, ridge_oof
from foldsmith.models.runtime import Runtime
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import FOLD_COLUMN, metric_weights_of, read_folds
from foldsmith.ssl.method import feature_std
from foldsmith.training.extensions.snapshots import every_and_last
from foldsmith.training.files import PROBES_FILE, TRAINING
from foldsmith.utils.atomic import copy_file, write_csv
from foldsmith.utils.owned_files import OwnedFiles

# Default number of probes in a training.
_PROBES = 10


class Probe(extension.Extension):
    """Scores the frozen backbone on the project's folds every so many epochs and at the last.

    Reports ``probe/knn`` and ``probe/ridge`` (the project's metric of out-of-fold predictions,
    over all labelled images at once; of classes without an order the Accuracy), ``probe/rank``
    (RankMe of the features) and ``probe/std`` (near 1/sqrt(dim) when they spread). Labels are
    used for nothing else: the training does not see them, but which of its backbones is kept as
    the best does depend on them.

    Args:
        loader: Every labelled image in the order of the fold table.
        backbone: The scored module, whose snapshots are kept.
        project: The project, for its folds and metric.
        runtime: Device and precision.
        max_epoch: Number of epochs of the training.
        snapshot_interval: Epochs between two kept backbones.
        every: Epochs between two probes, a multiple of ``snapshot_interval``, so that each
            probed backbone is kept; null for about ten probes in all.
        k: Neighbours of the k-nearest-neighbour probe.
        meta_file: Table with the column ``fold``; the project's own if null.

    Raises:
        ConfigError: ``every`` is no multiple of ``snapshot_interval``, or ``k`` is below 1.
        DataError: There is no fold table, or it is wrong.
    """

    priority = extension.PRIORITY_WRITER
    default_name = "probe"
    needs_model_state = True
    on_every_rank = True

    def __init__(
        self,
        loader: ImageLoader,
        backbone: nn.Module,
        project: ProjectFolder,
        runtime: Runtime,
        max_epoch: int,
        snapshot_interval: int,
        every: int | None = None,
        k: int = 20,
        meta_file: str | None = None,
    ) -> None:
        if every is None:
            every = snapshot_interval * math.ceil(max_epoch / _PROBES / snapshot_interval)
        if every < 1 or every % snapshot_interval:
            raise ConfigError(
                f"every: {every} must be a multiple of globals/snapshot_interval "
                f"({snapshot_interval}): the backbone of each probe is kept"
            )
        if k < 1:
            raise ConfigError(f"k: {k} must be at least 1")
        self.trigger = every_and_last(every, max_epoch)
        self.loader = loader
        self.backbone = backbone
        self.runtime = runtime
        self.k = k
        self.metric = project.metric.for_points()
        self.target_range = project.target_range
        self.form = project.form
        table = read_folds(project, meta_file)
        self.folds = table[FOLD_COLUMN].to_numpy(dtype=np.int64)
        self.weights = metric_weights_of(project, table)
        self._records: list[dict[str, float]] = []

    def __call__(self, manager: extension.ExtensionsManagerProtocol) -> None:
        """Probe and report; called by the manager at the end of an epoch.

        Raises:
            TrainingError: The features are no numbers.
        """
        features = predict_logits([self.backbone], self.loader, self.runtime)[0]
        if not np.isfinite(features).all():
            raise TrainingError(
                f"{manager.out}: the backbone's features are no numbers at epoch "
                f"{manager.epoch}; lower the learning rate, or set globals/enable_amp=false"
            )
        targets = self.loader.dataset.targets
        exact = features.astype(np.float64)
        # Classes without an order and labels are learned as shares of each: 0 and 1.
        wanted = self.form.encoded(targets) if self.form.texts else targets
        knn = knn_oof(exact, wanted, self.folds, self.k)
        ridge = ridge_oof(exact, wanted, self.folds)
        if not self.form.unordered:
            ridge = ridge.clip(*self.target_range)
        scores = {
            "knn": self.metric(knn, targets, self.weights),
            "ridge": self.metric(ridge, targets, self.weights),
            "rank": effective_rank(exact),
            "std": float(feature_std(torch.from_numpy(features))),
        }
        self._records.append({"epoch": manager.epoch, **scores})
        ppe.reporting.report({f"probe/{name}": value for name, value in scores.items()})

    @property
    def best_epoch(self) -> int:
        """Epoch of the best ridge probe so far, the first of equal ones."""
        best = self.metric.best([record["ridge"] for record in self._records])
        return int(self._records[best]["epoch"])

    def keep_best(self, folder: Path) -> None:
        """Keep the backbone with the best ridge probe; call it when the training has ended.

        Args:
            folder: Output folder of the training, with the backbones of all probed epochs.
        """
        table = pd.DataFrame(self._records)
        table["best"] = table["epoch"] == self.best_epoch
        names = (BACKBONE_OF_PROBE, PROBES_FILE)
        OwnedFiles(folder).record(names, TRAINING)
        backbone, probes = (folder / name for name in names)
        copy_file(folder / BACKBONE_OF_EPOCH.format(epoch=self.best_epoch), backbone)
        write_csv(probes, table)

    def state_dict(self) -> dict[str, Any]:
        """Return all probes so far."""
        return {"records": self._records}

    def load_state_dict(self, to_load: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self._records = list(to_load["records"])
