"""MoCo v3: contrast with a momentum encoder's keys of the same batch."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional

from foldsmith.models.backbone import num_features
from foldsmith.ssl.method import Method, feature_std, two_views
from foldsmith.ssl.momentum import momentum_copy
from foldsmith.ssl.whole_batch import full_precision, whole_batch


class MoCoV3(Method):
    """MoCo v3 (Chen et al., "Training Self-Supervised Vision Transformers", 2021).

    The backbone that is kept is the query encoder, as in the paper.

    Args:
        backbone: Module from images to features.
        proj_hidden_dim: Hidden width of the projection and of the prediction MLP.
        out_dim: Width of their outputs.
        num_mlp_layers: Layers of the projection MLP: 2 for CNNs, 3 for transformers in the
            authors' code.
        temperature: Temperature of the similarities; 0.2 is the paper's for transformers.
        momentum: Momentum of the key encoder at the start; it rises to 1 along a cosine.

    Attributes:
        dim: Width of the projection's output.
    """

    def __init__(
        self,
        backbone: nn.Module,
        proj_hidden_dim: int = 2048,
        out_dim: int = 256,
        num_mlp_layers: int = 2,
        temperature: float = 0.2,
        momentum: float = 0.99,
    ) -> None:
        # Here, not above: lightly takes seconds to import, and most commands need none of it.
        from lightly.models.modules.heads import MoCoProjectionHead

        super().__init__()
        self.backbone = backbone
        self.dim = out_dim
        self.projection = MoCoProjectionHead(
            num_features(backbone),
            proj_hidden_dim,
            out_dim,
            num_mlp_layers,
            batch_norm=True,
        )
        self.prediction = MoCoProjectionHead(out_dim, proj_hidden_dim, out_dim, 2, batch_norm=True)
        self.key_backbone = momentum_copy(self.backbone)
        self.key_projection = momentum_copy(self.projection)
        self.temperature = temperature
        self.momentum = momentum

    def forward(self, views: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
        """Return the loss of one batch.

        Args:
            views: Two tensors of shape (n, 3, H, W).

        Returns:
            ``loss``: cross-entropy of finding an image's key among the n of the batch, both
            ways summed and times twice the temperature, at least 0. ``std``:
            :func:`feature_std` of the first view's projection.
        """
        projections = [self.projection(self.backbone(view)) for view in two_views(views)]
        queries = whole_batch(*(self.prediction(projection) for projection in projections))
        with torch.no_grad():
            keys = whole_batch(
                *(self.key_projection(self.key_backbone(view)) for view in two_views(views))
            )
            (first,) = whole_batch(projections[0])
        with full_precision(keys[0]):
            loss = self._contrast(queries[0], keys[1]) + self._contrast(queries[1], keys[0])
        return {"loss": loss, "std": feature_std(first)}

    def _contrast(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        queries, keys = functional.normalize(queries, dim=1), functional.normalize(keys, dim=1)
        similarities = queries @ keys.T / self.temperature
        own = torch.arange(len(queries), device=queries.device)
        return functional.cross_entropy(similarities, own) * (2 * self.temperature)

    def teachers(self) -> Iterable[tuple[nn.Module, nn.Module]]:
        """Return key and query encoder, in two parts."""
        yield self.key_backbone, self.backbone
        yield self.key_projection, self.projection
