"""VICReg: views that agree, features that vary and do not repeat each other."""

import torch
from torch import nn

from foldsmith.models.backbone import num_features
from foldsmith.ssl.method import Method, feature_std, two_views
from foldsmith.ssl.whole_batch import full_precision, whole_batch


class VICReg(Method):
    """VICReg (Bardes et al., "Variance-Invariance-Covariance Regularization", 2022).

    Args:
        backbone: Module from images to features.
        proj_hidden_dim: Width of the expander's two hidden layers (8192 in the paper).
        out_dim: Width of its output (8192 in the paper).
        sim_coeff: Weight of the distance between the views.
        std_coeff: Weight of the hinge that keeps each feature's deviation at 1.
        cov_coeff: Weight of the covariances between features.

    Attributes:
        dim: Width of the projection's output.
    """

    def __init__(
        self,
        backbone: nn.Module,
        proj_hidden_dim: int = 2048,
        out_dim: int = 2048,
        sim_coeff: float = 25.0,
        std_coeff: float = 25.0,
        cov_coeff: float = 1.0,
    ) -> None:
        # Here, not above: lightly takes seconds to import, and most commands need none of it.
        from lightly.loss import VICRegLoss
        from lightly.models.modules.heads import VICRegProjectionHead

        super().__init__()
        self.backbone = backbone
        self.dim = out_dim
        self.projection = VICRegProjectionHead(num_features(backbone), proj_hidden_dim, out_dim)
        self.criterion = VICRegLoss(sim_coeff, std_coeff, cov_coeff)

    def forward(self, views: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
        """Return the loss of one batch.

        Args:
            views: Two tensors of shape (n, 3, H, W).

        Returns:
            ``loss``: weighted sum of the three terms, at least 0. ``std``: :func:`feature_std`
            of the first view's projection.
        """
        first, second = whole_batch(
            *(self.projection(self.backbone(view)) for view in two_views(views))
        )
        with full_precision(first):
            loss = self.criterion(first, second)
        return {"loss": loss, "std": feature_std(first)}
