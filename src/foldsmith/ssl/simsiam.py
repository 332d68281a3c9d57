"""SimSiam: self-supervised pretraining without negatives or a momentum encoder."""

from itertools import pairwise

import torch
from torch import nn

from foldsmith.models.backbone import num_features
from foldsmith.ssl.method import Method, feature_std, two_views
from foldsmith.ssl.whole_batch import full_precision, whole_batch


class SimSiam(Method):
    """SimSiam (Chen and He, "Exploring Simple Siamese Representation Learning", 2021).

    Args:
        backbone: Module from images to features.
        proj_hidden_dim: Width of the projection MLP's hidden layers.
        out_dim: Width of its output; null for the backbone's number of features.
        num_mlp_layers: Its number of layers, at least 2 (the paper has 3).
        pred_hidden_dim: Hidden width of the prediction MLP; null for a quarter of
            ``out_dim``.

    Attributes:
        dim: Width of the projection's output.
    """

    def __init__(
        self,
        backbone: nn.Module,
        proj_hidden_dim: int = 2048,
        out_dim: int | None = None,
        num_mlp_layers: int = 2,
        pred_hidden_dim: int | None = None,
    ) -> None:
        # Here, not above: lightly brings torchvision, which commands without a model need not.
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules.heads import ProjectionHead, SimSiamPredictionHead

        super().__init__()
        self.backbone = backbone
        features = num_features(backbone)
        dim = out_dim or features
        self.dim = dim
        widths = [features, *[proj_hidden_dim] * (num_mlp_layers - 1), dim]
        hidden = [
            (inputs, outputs, nn.BatchNorm1d(outputs), nn.ReLU(inplace=True))
            for inputs, outputs in pairwise(widths[:-1])
        ]
        self.projection = ProjectionHead([*hidden, (widths[-2], dim, nn.BatchNorm1d(dim), None)])
        self.prediction = SimSiamPredictionHead(dim, pred_hidden_dim or dim // 4, dim)
        self.criterion = NegativeCosineSimilarity()

    def forward(self, views: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
        """Return the loss of one batch.

        Args:
            views: Two tensors of shape (n, 3, H, W).

        Returns:
            ``loss``: mean of the two negative cosine similarities, in -1..1 (lower is
            better). ``std``: :func:`feature_std` of the first view's projection.
        """
        first, second = (self.projection(self.backbone(view)) for view in two_views(views))
        predictions = whole_batch(self.prediction(first), self.prediction(second))
        targets = whole_batch(first.detach(), second.detach())
        with full_precision(first):
            loss = 0.5 * (
                self.criterion(predictions[0], targets[1])
                + self.criterion(predictions[1], targets[0])
            )
        return {"loss": loss, "std": feature_std(targets[0])}
