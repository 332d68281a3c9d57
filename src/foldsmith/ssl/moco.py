"""MoCo v3: contrast with a momentum encoder's keys of the same batch."""

import torch
from torch import nn
from torch.nn import functional

from foldsmith.models.backbone import num_features
from foldsmith.ssl.momentum import momentum_at, momentum_copy, move
from foldsmith.ssl.shared import feature_std, full_precision, of_all, pair


class MoCoV3(nn.Module):
    """MoCo v3 (Chen et al., "Training Self-Supervised Vision Transformers", 2021).

    The backbone that is kept is the query encoder, as in the paper.

    Args:
        backbone: Module from photos to features.
        projection_hidden: Hidden width of the projection and of the prediction MLP.
        projection_dim: Width of their outputs.
        projection_layers: Layers of the projection MLP: 2 for CNNs, 3 for transformers in the
            authors' code.
        temperature: Temperature of the similarities; 0.2 is the paper's for transformers.
        momentum: Momentum of the key encoder at the start; it rises to 1 along a cosine.

    Attributes:
        dim: Width of the projection's output.
    """

    def __init__(
        self,
        backbone: nn.Module,
        projection_hidden: int = 2048,
        projection_dim: int = 256,
        projection_layers: int = 2,
        temperature: float = 0.2,
        momentum: float = 0.99,
    ) -> None:
        # Here, not above: lightly takes seconds to import, and most commands need none of it.
        from lightly.models.modules.heads import MoCoProjectionHead

        super().__init__()
        self.backbone = backbone
        self.dim = projection_dim
        self.projection = MoCoProjectionHead(
            num_features(backbone),
            projection_hidden,
            projection_dim,
            projection_layers,
            batch_norm=True,
        )
        self.prediction = MoCoProjectionHead(
            projection_dim, projection_hidden, projection_dim, 2, batch_norm=True
        )
        self.key_backbone = momentum_copy(self.backbone)
        self.key_projection = momentum_copy(self.projection)
        self.temperature = temperature
        self.momentum = momentum

    def forward(self, views: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
        """Return the loss of one batch.

        Args:
            views: Two tensors of shape (n, 3, H, W).

        Returns:
            ``loss``: cross-entropy of finding a photo's key among the n of the batch, both
            ways summed and times twice the temperature, at least 0. ``std``:
            :func:`feature_std` of the first view's projection.
        """
        projections = [self.projection(self.backbone(view)) for view in pair(views)]
        queries = of_all(*(self.prediction(projection) for projection in projections))
        with torch.no_grad():
            keys = of_all(*(self.key_projection(self.key_backbone(view)) for view in pair(views)))
            (first,) = of_all(projections[0])
        with full_precision(keys[0]):
            loss = self._contrast(queries[0], keys[1]) + self._contrast(queries[1], keys[0])
        return {"loss": loss, "std": feature_std(first)}

    def _contrast(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        queries, keys = functional.normalize(queries, dim=1), functional.normalize(keys, dim=1)
        similarities = queries @ keys.T / self.temperature
        own = torch.arange(len(queries), device=queries.device)
        return functional.cross_entropy(similarities, own) * (2 * self.temperature)

    def after_update(self, progress: float) -> None:
        """Move the key encoder towards the query encoder.

        Args:
            progress: Share of the training's optimizer steps that are done, above 0..1.
        """
        momentum = momentum_at(self.momentum, progress)
        move(self.key_backbone, self.backbone, momentum)
        move(self.key_projection, self.projection, momentum)
