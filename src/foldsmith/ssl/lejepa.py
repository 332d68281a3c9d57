"""LeJEPA: views that agree, features that are a Gaussian along every direction."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from foldsmith.errors import ConfigError
from foldsmith.models.backbone import num_features
from foldsmith.ssl.method import Method, feature_std
from foldsmith.ssl.whole_batch import full_precision, whole_batch

# Nodes of the integral over the characteristic function, from 0 to the second number (the authors'
# code).
_NODES, _LARGEST = 17, 3.0


class LeJEPA(Method):
    """LeJEPA (Balestriero and LeCun, "LeJEPA: Provable and Scalable SSL Without Heuristics", 2025).

    It has no teacher, no predictor and no schedule. The first two views are global, others may be
    local crops of another size; every view is drawn to the mean of the global ones.

    Args:
        backbone: Module from images to features.
        proj_hidden_dim: Width of the projection MLP's two hidden layers.
        out_dim: Width of its output.
        lambd: Weight of the term that makes features a Gaussian, 0..1 (lambda in the paper, which
            explores 0.01 to 0.1); 1 - ``lambd`` is that of the distance between views.
        num_slices: Random directions in which the features are compared with a Gaussian, at each
            step (the paper has 1024 for ImageNet).

    Attributes:
        dim: Width of the projection's output.
    """

    nodes: torch.Tensor
    window: torch.Tensor
    weights: torch.Tensor
    directions: torch.Tensor

    def __init__(
        self,
        backbone: nn.Module,
        proj_hidden_dim: int = 2048,
        out_dim: int = 64,
        lambd: float = 0.05,
        num_slices: int = 256,
    ) -> None:
        # Here, not above: lightly takes seconds to import, and most commands need none of it.
        from lightly.models.modules.heads import ProjectionHead

        super().__init__()
        if not 0 <= lambd <= 1:
            raise ConfigError(f"model/lambd: {lambd:g} must be in 0..1")
        self.backbone = backbone
        self.dim = out_dim
        hidden = proj_hidden_dim
        self.projection = ProjectionHead(
            [
                (num_features(backbone), hidden, nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)),
                (hidden, hidden, nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)),
                (hidden, out_dim, None, None),
            ]
        )
        self.lambd = lambd
        nodes = torch.linspace(0, _LARGEST, _NODES)
        window = torch.exp(-nodes.square() / 2)
        # The trapezoidal rule over both signs of an even function, weighted by the window.
        weights = torch.full((_NODES,), 2 * _LARGEST / (_NODES - 1))
        weights[[0, -1]] /= 2
        for name, constant in (("nodes", nodes), ("window", window), ("weights", weights * window)):
            self.register_buffer(name, constant, persistent=False)
        # The directions of this step are in the state, so that a resumed run has the same.
        self.register_buffer("directions", torch.empty(out_dim, num_slices))
        self._draw(0.0)

    def forward(self, views: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
        """Return the loss of one batch.

        Args:
            views: Two global crops of shape (n, 3, H, W), then any number of local ones of
                another size, (n, 3, h, w).

        Returns:
            ``loss``: weighted sum of the two terms, at least 0. ``std``: :func:`feature_std` of
            the first view's projection.

        Raises:
            ConfigError: There are fewer than two views.
        """
        if len(views) < 2:
            raise ConfigError("LeJEPA needs 2 global views; set dataset/train/n_views to 2")
        projections = torch.stack(
            whole_batch(*(self.projection(self.backbone(view)) for view in views))
        )
        with full_precision(projections):
            centre = projections[:2].mean(dim=0)
            distance = (projections - centre).square().mean()
            gaussian = self._distance_to_gaussian(projections)
            loss = self.lambd * gaussian + (1 - self.lambd) * distance
        return {"loss": loss, "std": feature_std(projections[0])}

    def _distance_to_gaussian(self, projections: torch.Tensor) -> torch.Tensor:
        """Return the statistic of Epps and Pulley (SIGReg), mean over views and directions.

        Args:
            projections: float32, shape (n_views, n, dim).
        """
        along = (projections @ self.directions).unsqueeze(-1) * self.nodes
        real, imaginary = along.cos().mean(dim=1), along.sin().mean(dim=1)
        squares = (real - self.window).square() + imaginary.square()
        return (squares @ self.weights).mean() * projections.shape[1]

    def after_update(self, progress: float) -> None:
        """Draw the directions of the next step."""
        self._draw(progress)

    def _draw(self, progress: float) -> None:
        """Draw directions as a function of the progress: every process draws the same."""
        # Drawn by numpy: torch's generator would use no more than 32 bits of the seed.
        drawn = np.random.default_rng(round(progress * 2**53)).standard_normal(
            self.directions.shape, np.float32
        )
        self.directions.copy_(functional.normalize(torch.from_numpy(drawn), dim=0))
