"""DINO: self-distillation without labels, over crops of several sizes."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional

from foldsmith.errors import ConfigError
from foldsmith.models.backbone import num_features
from foldsmith.ssl.method import Method, feature_std
from foldsmith.ssl.momentum import momentum_copy
from foldsmith.ssl.whole_batch import full_precision, whole_batch

# Views that show most of an image; the teacher sees no others.
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


class DINO(Method):
    """DINO (Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", 2021).

    From every crop, a student predicts a momentum teacher's outputs for the other global crops;
    the teacher's outputs are centred and sharpened, which keeps them from collapsing.
    The backbone that is kept is the teacher's: it is ahead of the student throughout the
    training (the paper's figure 6), and the one that the authors evaluate.

    The first two views are global, the others local; a vision transformer takes crops of
    several sizes with ``options: {dynamic_img_size: true}`` of its backbone.

    Args:
        backbone: Module from images to features.
        proj_hidden_dim: Width of the head's two hidden layers.
        bottleneck_dim: Width before the prototypes.
        out_dim: Number of prototypes: 65,536 for the 1.3 million images of ImageNet in the
            paper; with more prototypes than images most would never be used.
        use_bn_in_head: BatchNorm in the head; off in the paper, for any backbone.
        student_temp: Temperature of the student's softmax.
        teacher_temp: Temperature of the teacher's softmax after its warm-up. The paper:
            above 0.07 is unstable.
        warmup_teacher_temp: Temperature of the teacher's softmax at the start.
        warmup_fraction: Fraction of the training in which it rises, 0..1 (30 of 300 epochs in
            the paper).
        freeze_last_layer_fraction: Fraction of the training in which the prototypes stay as they
            are, 0..1 (one epoch in the paper, which is more steps on ImageNet).
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
        proj_hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        out_dim: int = 4096,
        use_bn_in_head: bool = False,
        student_temp: float = 0.1,
        teacher_temp: float = 0.07,
        warmup_teacher_temp: float = 0.04,
        warmup_fraction: float = 0.1,
        freeze_last_layer_fraction: float = 0.02,
        center_momentum: float = 0.9,
        momentum: float = 0.996,
    ) -> None:
        from lightly.models.modules.center import Center

        super().__init__()
        self.student_backbone = backbone
        self.student_head = _Head(
            num_features(backbone), proj_hidden_dim, bottleneck_dim, out_dim, use_bn_in_head
        )
        self.backbone = momentum_copy(self.student_backbone)
        self.teacher_head = momentum_copy(self.student_head)
        self.dim = bottleneck_dim
        self.center = Center((1, 1, out_dim), momentum=center_momentum)
        self.student_temp = student_temp
        self.temperatures = warmup_teacher_temp, teacher_temp
        self.warmup_fraction = warmup_fraction
        self.freeze_last_layer_fraction = freeze_last_layer_fraction
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
            of different crops, at least 0; log(out_dim) by chance. ``std``:
            :func:`feature_std` of the student's embedding of the first crop. ``entropy``: of
            the teacher's outputs, 0..log(out_dim); at either end they have collapsed.

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
        student = torch.stack(whole_batch(*crops))
        teacher = torch.stack(whole_batch(*taught.tensor_split(N_GLOBAL)))
        (embedding,) = whole_batch(embeddings[0].detach())
        with full_precision(teacher):
            centred = (teacher - self.center.value) / self.teacher_temperature
            loss = distillation_loss(centred, student / self.student_temp)
            certain = functional.log_softmax(centred, dim=-1)
            entropy = -(certain.exp() * certain).sum(dim=-1).mean()
            if self.training:
                self.center.update(teacher)
        return {
            "loss": loss,
            "std": feature_std(embedding),
            "entropy": entropy,
        }

    def teachers(self) -> Iterable[tuple[nn.Module, nn.Module]]:
        """Return teacher and student, in two parts."""
        yield self.backbone, self.student_backbone
        yield self.teacher_head, self.student_head

    def after_update(self, progress: float) -> None:
        """Move the teacher, and set the temperature and the frozen prototypes of the next step."""
        super().after_update(progress)
        self._schedule(progress)

    def _schedule(self, progress: float) -> None:
        start, end = self.temperatures
        done = min(1.0, progress / self.warmup_fraction) if self.warmup_fraction else 1.0
        self.teacher_temperature.fill_(start + done * (end - start))
        self.prototypes_free.fill_(float(progress >= self.freeze_last_layer_fraction))


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
