"""The supervised model: a backbone and a head."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from foldsmith.errors import ConfigError
from foldsmith.models.backbone import create_backbone, num_features
from foldsmith.models.snapshots import load_backbone

_PREFIX = "of_"


class ImageModel(nn.Module):
    """A timm backbone and a multi-layer head, for training also auxiliary heads.

    Args:
        base_name: timm model of the backbone.
        dims_head: Widths of the head: first the features (null: the width of the backbone's
            output), last the outputs. Two numbers are one linear layer; each further one adds a
            hidden layer with ReLU.
        pretrained: Weights of the backbone, relative to ``folder``: a snapshot of a pretraining,
            or a file of timm; null for random weights.
        folder: The project folder.
        freeze_backbone: Train the head alone; the backbone keeps its weights and its
            BatchNorm statistics.
        drop_rate: Dropout before the head's last layer, 0..1.
        backbone_options: Further arguments of :func:`create_backbone`.

    Raises:
        ConfigError: ``dims_head`` does not fit the backbone, or the snapshot does not.
    """

    # Weights that a snapshot may have and prediction does not need.
    training_only = "auxiliary."

    def __init__(
        self,
        base_name: str,
        dims_head: list[int | None],
        pretrained: str | None = None,
        folder: Path = Path(),
        freeze_backbone: bool = False,
        drop_rate: float = 0.0,
        backbone_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = create_backbone(base_name, **(backbone_options or {}))
        features = num_features(self.backbone)
        if len(dims_head) < 2 or None in dims_head[1:]:
            raise ConfigError(
                f"dims_head: {dims_head} must be [null, ..., outputs], as in [null, 4]"
            )
        if dims_head[0] not in (None, features):
            raise ConfigError(
                f"dims_head: {base_name} gives {features} features, not {dims_head[0]}"
            )
        widths = [features, *(int(width) for width in dims_head[1:] if width is not None)]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths[:-1]):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True)]
        if drop_rate:
            layers.append(nn.Dropout(drop_rate))
        layers.append(nn.Linear(widths[-2], widths[-1]))
        self.head = nn.Sequential(*layers)
        self.auxiliary = nn.ModuleDict()
        if pretrained is not None:
            load_backbone(self.backbone, folder / pretrained)
        self.freeze_backbone = freeze_backbone
        # Some backbones have parameters that are never trained.
        self._trainable = [p for p in self.backbone.parameters() if p.requires_grad]
        self.train_head_alone(False)

    def start_head(self, weights: npt.NDArray[np.float64], bias: float) -> None:
        """Set the head, which has to be one linear layer with one output.

        Args:
            weights: Shape (n_features,).
            bias: The bias.

        Raises:
            ConfigError: The head is another one.
        """
        layer = self.head[-1]
        assert isinstance(layer, nn.Linear)
        if sum(isinstance(part, nn.Linear) for part in self.head) > 1 or layer.out_features > 1:
            raise ConfigError(
                "globals/head_init: ridge needs a head of one linear layer with one output, "
                "model/dims_head=[null, 1]"
            )
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weights.astype(np.float32))[None])
            layer.bias.fill_(bias)

    def start_at_zero(self) -> None:
        """Initialise the last layer so that all outputs are 0, the mean of a scaled target."""
        layer = self.head[-1]
        assert isinstance(layer, nn.Linear)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)

    def add_auxiliary(self, widths: Mapping[str, int]) -> None:
        """Add linear heads on the features, for training; prediction knows nothing of them.

        Args:
            widths: Name of each head -> number of its outputs.
        """
        features = num_features(self.backbone)
        for name, width in widths.items():
            # The prefix avoids names of a ModuleDict's methods, such as "values".
            self.auxiliary[_PREFIX + name] = nn.Linear(features, width)

    def train_head_alone(self, alone: bool) -> None:
        """Let the backbone stand still, or train it too unless ``freeze_backbone`` is set.

        Takes effect for BatchNorm statistics with the next call of :meth:`train`.
        """
        self._head_alone = alone or self.freeze_backbone
        for parameter in self._trainable:
            parameter.requires_grad_(not self._head_alone)

    def train(self, mode: bool = True) -> "ImageModel":
        """Switch between training and evaluation; a frozen backbone stays in evaluation."""
        super().train(mode)
        if self._head_alone:
            self.backbone.eval()
        return self

    def forward(
        self, images: torch.Tensor, auxiliary: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return logits, and if asked the outputs of the auxiliary heads.

        Args:
            images: Shape (n, 3, H, W).
            auxiliary: Also return the auxiliary heads' outputs.

        Returns:
            Logits, shape (n, outputs); with them, if asked, a dict of shapes (n, width).
        """
        features = self.backbone(images)
        logits: torch.Tensor = self.head(features)
        if not auxiliary:
            return logits
        return logits, {
            key.removeprefix(_PREFIX): head(features) for key, head in self.auxiliary.items()
        }


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are not frozen, for an optimizer's ``params``.

    Args:
        model: The model.
    """
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
