"""Optimizers and schedulers that an experiment may name: torch's own."""

from torch import optim
from torch.optim import lr_scheduler

from foldsmith.config import Types

TYPES: Types = {
    **{
        name: getattr(optim, name) for name in ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "RMSprop")
    },
    **{
        name: getattr(lr_scheduler, name)
        for name in ("OneCycleLR", "CosineAnnealingLR", "LinearLR", "StepLR", "MultiStepLR")
    },
}
