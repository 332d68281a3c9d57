"""BYOL: predicting a momentum encoder's output for another view."""

from collections.abc import Iterable

import torch
from torch import nn

from foldsmith.models.backbone import num_features
from foldsmith.ssl.method import Method, feature_std, two_views
from foldsmith.ssl.momentum import momentum_copy
from foldsmith.ssl.whole_batch import full_precision, whole_batch


class BYOL(Method):
    """BYOL (Grill et al., "Bootstrap Your Own Latent", 2020).

    The backbone that is kept is the online one, as in the paper: only that one is trained,
    and at the end, with the momentum at 1, the target stands where it was some steps ago.

    Args:
        backbone: Module from images to features.
        proj_hidden_dim: Hidden width of the projection and of the prediction MLP.
        out_dim: Width of their outputs.
        momentum: Momentum of the target at the start; it rises to 1 along a cosine. The paper has
            0.996 for 1000 epochs of ImageNet and 0.99 for 300 (its ablations).

    Attributes:
        dim: Width of the projection's output.
    """

    def __init__(
        self,
        backbone: nn.Module,
        proj_hidden_dim: int = 2048,
        out_dim: int = 256,
        momentum: float = 0.99,
    ) -> None:
        # Here, not above: lightly takes seconds to import, and most commands need none of it.
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead

        super().__init__()
        self.backbone = backbone
        self.dim = out_dim
        self.projection = BYOLProjectionHead(num_features(backbone), proj_hidden_dim, out_dim)
        self.prediction = BYOLPredictionHead(out_dim, proj_hidden_dim, out_dim)
        self.target_backbone = momentum_copy(self.backbone)
        self.target_projection = momentum_copy(self.projection)
        self.momentum = momentum
        self.criterion = NegativeCosineSimilarity()

    def forward(self, views: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
        """Return the loss of one batch.

        Args:
            views: Two tensors of shape (n, 3, H, W).

        Returns:
            ``loss``: mean of the two negative cosine similarities, in -1..1 (lower is better;
            the paper's, 2 - 2 cos summed over both, is 4 + 4 times this). ``std``:
            :func:`feature_std` of the first view's projection.
        """
        projections = [self.projection(self.backbone(view)) for view in two_views(views)]
        predictions = whole_batch(*(self.prediction(projection) for projection in projections))
        with torch.no_grad():
            targets = whole_batch(
                *(self.target_projection(self.target_backbone(view)) for view in two_views(views))
            )
            (first,) = whole_batch(projections[0])
        with full_precision(targets[0]):
            loss = 0.5 * (
                self.criterion(predictions[0], targets[1])
                + self.criterion(predictions[1], targets[0])
            )
        return {"loss": loss, "std": feature_std(first)}

    def teachers(self) -> Iterable[tuple[nn.Module, nn.Module]]:
        """Return target and online network, in two parts."""
        yield self.target_backbone, self.backbone
        yield self.target_projection, self.projection
