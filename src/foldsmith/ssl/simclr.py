"""SimCLR: two views of an image against all other images of the batch."""

import torch
from torch import nn

from foldsmith.models.backbone import num_features
from foldsmith.ssl.method import Method, feature_std, two_views
from foldsmith.ssl.whole_batch import full_precision, whole_batch


class SimCLR(Method):
    """SimCLR (Chen et al., "A Simple Framework for Contrastive Learning", 2020).

    Args:
        backbone: Module from images to features.
        proj_hidden_dim: Hidden width of the projection MLP.
        out_dim: Width of its output.
        temperature: Temperature of the similarities. The paper has 0.1 for ImageNet and 0.5 for
            CIFAR-10; small batches and data sets need more than ImageNet.

    Attributes:
        dim: Width of the projection's output.
    """

    def __init__(
        self,
        backbone: nn.Module,
        proj_hidden_dim: int = 2048,
        out_dim: int = 128,
        temperature: float = 0.2,
    ) -> None:
        # Here, not above: lightly takes seconds to import, and most commands need none of it.
        from lightly.loss import NTXentLoss
        from lightly.models.modules.heads import SimCLRProjectionHead

        super().__init__()
        self.backbone = backbone
        self.dim = out_dim
        self.projection = SimCLRProjectionHead(num_features(backbone), proj_hidden_dim, out_dim)
        self.criterion = NTXentLoss(temperature)

    def forward(self, views: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
        """Return the loss of one batch.

        Args:
            views: Two tensors of shape (n, 3, H, W).

        Returns:
            ``loss``: cross-entropy of finding an image's other view among the 2n - 1 other
            views, at least 0; log(2n - 1) by chance. ``std``: :func:`feature_std` of the first
            view's projection.
        """
        first, second = whole_batch(
            *(self.projection(self.backbone(view)) for view in two_views(views))
        )
        with full_precision(first):
            loss = self.criterion(first, second)
        return {"loss": loss, "std": feature_std(first)}
