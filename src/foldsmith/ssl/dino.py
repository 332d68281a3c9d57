"""DINO: self-distillation without labels, over crops of several sizes."""

import torch
from torch import nn
from torch.nn import functional

from foldsmith.errors import ConfigError
from foldsmith.models.backbone import num_features
from foldsmith.ssl.momentum import momentum_at, momentum_copy, move
from foldsmith.ssl.shared import feature_std, full_precision, of_all

# Views that show most of a photo; the teacher sees no others.
N_GLOBAL = 2


class _Head(nn.Module):
    """Three layers with GELU, then similarities to prototypes of length 1.

    lightly's head of the same name parametrises the prototypes by ``torch.nn.utils.weight_norm``,
    which is deprecated and cannot be copied.
    """

    def __init__(
        self, features: int, hidden: int, bottleneck: int, n_prototypes: int, batch_norm: bool
    ) -> None:
        # Here, not above: lightly takes seconds to import, and most commands need none of it.
        from lightly.models.modules.heads import ProjectionHead

        super().__init__()

        def norm() -> nn.Module | None:
            return nn.BatchNorm1d(hidden) if batch_norm else None

        self.layers = ProjectionHead(
            [
                (features, hidden, norm(), nn.GELU()),
                (hidden, hidden, norm(), nn.GELU()),
                (hidden, bottleneck, None, None),
            ]
        )
        self.prototypes = nn.Parameter(torch.empty(n_prototypes, bottleneck))
        for layer in self.layers.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.trunc_normal_(self.prototypes, std=0.02)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the embedding, shape (n, bottleneck), and the logits, (n, n_prototypes)."""
        embedding = functional.normalize(self.layers(features), dim=1)
        logits = functional.linear(embedding, functional.normalize(self.prototypes, dim=1))
        return embedding, logits


class DINO(nn.Module):
    """DINO (Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", 2021).

    From every crop, a student predicts a momentum teacher's outputs for the other global crops;
    the teacher's outputs are centred and sharpened, which keeps them from collapsing.
    The backbone that is kept is the teacher's: it is ahead of the student throughout the
    training (the paper's figure 6), and the one that the authors evaluate.

    The first two views are global, the others local; a vision transformer takes crops of
    several sizes with ``options: {dynamic_img_size: true}`` of its backbone.

    Args:
        backbone: Module from photos to features.
        projection_hidden: Width of the head's two hidden layers.
        bottleneck_dim: Width before the prototypes.
        n_prototypes: Number of outputs: 65,536 for the 1.3 million photos of ImageNet in the
            paper; with more prototypes than photos most would never be used.
        batch_norm: BatchNorm in the head; off in the paper, for any backbone.
        student_temperature: Temperature of the student's softmax.
        teacher_temperature: Temperature of the teacher's softmax after its warm-up. The paper:
            above 0.07 is unstable.
        warmup_temperature: Temperature of the teacher's softmax at the start.
        warmup_share: Share of the training in which it rises, 0..1 (30 of 300 epochs in the
            paper).
        freeze_share: Share of the training in which the prototypes stay as they are, 0..1 (one
            epoch in the paper, which is more steps on ImageNet).
        center_momentum: Momentum of the running mean of the teacher's outputs.
        momentum: Momentum of the teacher at the start; it rises to 1 along a cosine.

    Attributes:
        backbone: The teacher's.
        dim: Width of the embedding before the prototypes.
    """

    teacher_temperature: torch.Tensor
    prototypes_free: torch.Tensor

    def __init__(
        self,
        backbone: nn.Module,
        projection_hidden: int = 2048,
        bottleneck_dim: int = 256,
        n_prototypes: int = 4096,
        batch_norm: bool = False,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.07,
        warmup_temperature: float = 0.04,
        warmup_share: float = 0.1,
        freeze_share: float = 0.02,
        center_momentum: float = 0.9,
        momentum: float = 0.996,
    ) -> None:
        from lightly.models.modules.center import Center

        super().__init__()
        self.student_backbone = backbone
        self.student_head = _Head(
            num_features(backbone), projection_hidden, bottleneck_dim, n_prototypes, batch_norm
        )
        self.backbone = momentum_copy(self.student_backbone)
        self.teacher_head = momentum_copy(self.student_head)
        self.dim = bottleneck_dim
        self.center = Center((1, 1, n_prototypes), momentum=center_momentum)
        self.student_temperature = student_temperature
        self.temperatures = warmup_temperature, teacher_temperature
        self.warmup_share = warmup_share
        self.freeze_share = freeze_share
        self.momentum = momentum
        # Of this step: on the device, so that nothing waits, and in the state, for a resume.
        self.register_buffer("teacher_temperature", torch.zeros(()))
        self.register_buffer("prototypes_free", torch.zeros(()))
        self._schedule(0.0)
        # Their gradient is nought while they are frozen; they have the optimizer's state.
        prototypes: torch.Tensor = self.student_head.prototypes
        prototypes.register_hook(  # type: ignore[no-untyped-call]
            lambda grad: grad * self.prototypes_free
        )

    def forward(self, views: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
        """Return the loss of one batch.

        Args:
            views: Two global crops of shape (n, 3, H, W), then any number of local ones of
                another size, (n, 3, h, w).

        Returns:
            ``loss``: cross-entropy of the student's outputs to the teacher's, mean over pairs
            of different crops, at least 0; log(n_prototypes) by chance. ``std``:
            :func:`feature_std` of the student's embedding of the first crop. ``entropy``: of
            the teacher's outputs, 0..log(n_prototypes); at either end they have collapsed.

        Raises:
            ConfigError: There are fewer than two views.
        """
        if len(views) < N_GLOBAL:
            raise ConfigError(f"DINO needs {N_GLOBAL} global views; set dataset/train/n_views to 2")
        with torch.no_grad():
            _, taught = self.teacher_head(self.backbone(torch.cat(views[:N_GLOBAL])))
        embeddings: list[torch.Tensor] = []
        crops: list[torch.Tensor] = []
        for group in (views[:N_GLOBAL], views[N_GLOBAL:]):
            if group:
                # Crops of one size go through the network together.
                outputs = self.student_head(self.student_backbone(torch.cat(group)))
                for kept, rows in zip((embeddings, crops), outputs, strict=True):
                    kept += rows.tensor_split(len(group))
        student = torch.stack(of_all(*crops))
        teacher = torch.stack(of_all(*taught.tensor_split(N_GLOBAL)))
        (embedding,) = of_all(embeddings[0].detach())
        with full_precision(teacher):
            centred = (teacher - self.center.value) / self.teacher_temperature
            loss = distillation_loss(centred, student / self.student_temperature)
            certain = functional.log_softmax(centred, dim=-1)
            entropy = -(certain.exp() * certain).sum(dim=-1).mean()
            if self.training:
                self.center.update(teacher)
        return {
            "loss": loss,
            "std": feature_std(embedding),
            "entropy": entropy,
        }

    def after_update(self, progress: float) -> None:
        """Move the teacher towards the student, and the schedules on.

        Args:
            progress: Share of the training's optimizer steps that are done, above 0..1.
        """
        momentum = momentum_at(self.momentum, progress)
        move(self.backbone, self.student_backbone, momentum)
        move(self.teacher_head, self.student_head, momentum)
        self._schedule(progress)

    def _schedule(self, progress: float) -> None:
        start, end = self.temperatures
        share = min(1.0, progress / self.warmup_share) if self.warmup_share else 1.0
        self.teacher_temperature.fill_(start + share * (end - start))
        self.prototypes_free.fill_(float(progress >= self.freeze_share))


def distillation_loss(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy between views, a view and itself left out.

    Args:
        teacher: Logits of the global views, float32, shape (t, n, k).
        student: Logits of all views, the global ones first, float32, shape (s, n, k).

    Returns:
        Scalar.
    """
    targets = functional.softmax(teacher, dim=-1)
    losses = -torch.einsum("tnk,snk->ts", targets, functional.log_softmax(student, dim=-1))
    losses = losses / teacher.shape[1]
    own = torch.eye(*losses.shape, device=losses.device)
    return (losses * (1 - own)).sum() / (losses.numel() - len(teacher))
