"""VICReg: views that agree, features that vary and do not repeat each other."""

import torch
from torch import nn

from foldsmith.models.backbone import num_features
from foldsmith.ssl.shared import feature_std, full_precision, of_all, pair


class VICReg(nn.Module):
    """VICReg (Bardes et al., "Variance-Invariance-Covariance Regularization", 2022).

    Args:
        backbone: Module from photos to features.
        projection_hidden: Width of the expander's two hidden layers (8192 in the paper).
        projection_dim: Width of its output (8192 in the paper).
        invariance: Weight of the distance between the views.
        variance: Weight of the hinge that keeps each feature's deviation at 1.
        covariance: Weight of the covariances between features.

    Attributes:
        dim: Width of the projection's output.
    """

    def __init__(
        self,
        backbone: nn.Module,
        projection_hidden: int = 2048,
        projection_dim: int = 2048,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
    ) -> None:
        # Here, not above: lightly takes seconds to import, and most commands need none of it.
        from lightly.loss import VICRegLoss
        from lightly.models.modules.heads import VICRegProjectionHead

        super().__init__()
        self.backbone = backbone
        self.dim = projection_dim
        self.projection = VICRegProjectionHead(
            num_features(backbone), projection_hidden, projection_dim
        )
        self.criterion = VICRegLoss(invariance, variance, covariance)

    def forward(self, views: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
        """Return the loss of one batch.

        Args:
            views: Two tensors of shape (n, 3, H, W).

        Returns:
            ``loss``: weighted sum of the three terms, at least 0. ``std``: :func:`feature_std`
            of the first view's projection.
        """
        first, second = of_all(*(self.projection(self.backbone(view)) for view in pair(views)))
        with full_precision(first):
            loss = self.criterion(first, second)
        return {"loss": loss, "std": feature_std(first)}
