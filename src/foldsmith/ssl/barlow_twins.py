"""Barlow Twins: features that agree between views and not with each other."""

import torch
from torch import nn

from foldsmith.models.backbone import num_features
from foldsmith.ssl.method import Method, feature_std, two_views
from foldsmith.ssl.whole_batch import full_precision, whole_batch


class BarlowTwins(Method):
    """Barlow Twins (Zbontar et al., "Self-Supervised Learning via Redundancy Reduction", 2021).

    Args:
        backbone: Module from images to features.
        proj_hidden_dim: Width of the projection MLP's two hidden layers (8192 in the paper).
        out_dim: Width of its output (8192 in the paper; its figure 4 has 2048 some two
            points behind, at a sixteenth of the weights).
        lambd: Weight of the off-diagonal correlations (lambda in the paper).

    Attributes:
        dim: Width of the projection's output.
    """

    def __init__(
        self,
        backbone: nn.Module,
        proj_hidden_dim: int = 2048,
        out_dim: int = 2048,
        lambd: float = 5e-3,
    ) -> None:
        # Here, not above: lightly takes seconds to import, and most commands need none of it.
        from lightly.loss import BarlowTwinsLoss
        from lightly.models.modules.heads import BarlowTwinsProjectionHead

        super().__init__()
        self.backbone = backbone
        self.dim = out_dim
        self.projection = BarlowTwinsProjectionHead(
            num_features(backbone), proj_hidden_dim, out_dim
        )
        self.criterion = BarlowTwinsLoss(lambd)

    def forward(self, views: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
        """Return the loss of one batch.

        Args:
            views: Two tensors of shape (n, 3, H, W).

        Returns:
            ``loss``: squared distance of the views' cross-correlation to the identity, at
            least 0. ``std``: :func:`feature_std` of the first view's projection.
        """
        first, second = whole_batch(
            *(self.projection(self.backbone(view)) for view in two_views(views))
        )
        with full_precision(first):
            loss = self.criterion(first, second)
        return {"loss": loss, "std": feature_std(first)}
