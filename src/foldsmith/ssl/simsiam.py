"""SimSiam: self-supervised pretraining without negatives or a momentum encoder."""

from itertools import pairwise

import torch
from torch import nn

from foldsmith.models.backbone import num_features
from foldsmith.ssl.shared import feature_std, full_precision, of_all, pair


class SimSiam(nn.Module):
    """SimSiam (Chen and He, "Exploring Simple Siamese Representation Learning", 2021).

    Args:
        backbone: Module from photos to features.
        projection_hidden: Width of the projection MLP's hidden layers.
        projection_dim: Width of its output; null for the backbone's number of features.
        projection_layers: Its number of layers, at least 2 (the paper has 3).
        prediction_hidden: Hidden width of the prediction MLP; null for a quarter of
            ``projection_dim``.

    Attributes:
        dim: Width of the projection's output.
    """

    def __init__(
        self,
        backbone: nn.Module,
        projection_hidden: int = 2048,
        projection_dim: int | None = None,
        projection_layers: int = 2,
        prediction_hidden: int | None = None,
    ) -> None:
        # Here, not above: lightly brings torchvision, which commands without a model need not.
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules.heads import ProjectionHead, SimSiamPredictionHead

        super().__init__()
        self.backbone = backbone
        features = num_features(backbone)
        dim = projection_dim or features
        self.dim = dim
        widths = [features, *[projection_hidden] * (projection_layers - 1), dim]
        hidden = [
            (inputs, outputs, nn.BatchNorm1d(outputs), nn.ReLU(inplace=True))
            for inputs, outputs in pairwise(widths[:-1])
        ]
        self.projection = ProjectionHead([*hidden, (widths[-2], dim, nn.BatchNorm1d(dim), None)])
        self.prediction = SimSiamPredictionHead(dim, prediction_hidden or dim // 4, dim)
        self.criterion = NegativeCosineSimilarity()

    def forward(self, views: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
        """Return the loss of one batch.

        Args:
            views: Two tensors of shape (n, 3, H, W).

        Returns:
            ``loss``: mean of the two negative cosine similarities, in -1..1 (lower is
            better). ``std``: :func:`feature_std` of the first view's projection.
        """
        first, second = (self.projection(self.backbone(view)) for view in pair(views))
        predictions = of_all(self.prediction(first), self.prediction(second))
        targets = of_all(first.detach(), second.detach())
        with full_precision(first):
            loss = 0.5 * (
                self.criterion(predictions[0], targets[1])
                + self.criterion(predictions[1], targets[0])
            )
        return {"loss": loss, "std": feature_std(targets[0])}
