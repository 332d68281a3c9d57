"""BYOL: predicting a momentum encoder's output for another view."""

import torch
from torch import nn

from foldsmith.models.backbone import num_features
from foldsmith.ssl.momentum import momentum_at, momentum_copy, move
from foldsmith.ssl.shared import feature_std, full_precision, of_all, pair


class BYOL(nn.Module):
    """BYOL (Grill et al., "Bootstrap Your Own Latent", 2020).

    The backbone that is kept is the online one, as in the paper: only that one is trained,
    and at the end, with the momentum at 1, the target stands where it was some steps ago.

    Args:
        backbone: Module from photos to features.
        projection_hidden: Hidden width of the projection and of the prediction MLP.
        projection_dim: Width of their outputs.
        momentum: Momentum of the target at the start; it rises to 1 along a cosine. The paper has
            0.996 for 1000 epochs of ImageNet and 0.99 for 300 (its ablations).

    Attributes:
        dim: Width of the projection's output.
    """

    def __init__(
        self,
        backbone: nn.Module,
        projection_hidden: int = 2048,
        projection_dim: int = 256,
        momentum: float = 0.99,
    ) -> None:
        # Here, not above: lightly takes seconds to import, and most commands need none of it.
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead

        super().__init__()
        self.backbone = backbone
        self.dim = projection_dim
        self.projection = BYOLProjectionHead(
            num_features(backbone), projection_hidden, projection_dim
        )
        self.prediction = BYOLPredictionHead(projection_dim, projection_hidden, projection_dim)
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
        projections = [self.projection(self.backbone(view)) for view in pair(views)]
        predictions = of_all(*(self.prediction(projection) for projection in projections))
        with torch.no_grad():
            targets = of_all(
                *(self.target_projection(self.target_backbone(view)) for view in pair(views))
            )
            (first,) = of_all(projections[0])
        with full_precision(targets[0]):
            loss = 0.5 * (
                self.criterion(predictions[0], targets[1])
                + self.criterion(predictions[1], targets[0])
            )
        return {"loss": loss, "std": feature_std(first)}

    def after_update(self, progress: float) -> None:
        """Move the target towards the online network.

        Args:
            progress: Share of the training's optimizer steps that are done, above 0..1.
        """
        momentum = momentum_at(self.momentum, progress)
        move(self.target_backbone, self.backbone, momentum)
        move(self.target_projection, self.projection, momentum)
