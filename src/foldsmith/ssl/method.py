"""The protocol of a self-supervised method.

A method is one class in one file: ``__init__`` takes the paper's hyper-parameters by the paper's
names and builds the networks, ``forward`` computes the loss of one batch. The loop, the log, the
watch for collapse, probes, resuming and exports are shared by all methods.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from foldsmith.errors import ConfigError
from foldsmith.ssl.momentum import momentum_at, move


class Method(nn.Module, ABC):
    """Base class of every self-supervised method.

    All that changes between two batches is in the module's ``state_dict``, so that a resumed
    training equals an uninterrupted one.

    Attributes:
        backbone: Module from images to features that is kept: the student's or the teacher's.
        dim: Width of the features that ``std`` is measured on. The watch for collapse compares
            ``std`` with 1/sqrt(dim).
        momentum: Momentum of the teachers at the start of the training, 0..1; it rises to 1 along
            a cosine. Only methods with :meth:`teachers` use it.
    """

    backbone: nn.Module
    dim: int
    momentum: float = 1.0

    @abstractmethod
    def forward(self, views: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
        """Return the loss of one batch.

        Args:
            views: Views of the batch's images, each of shape (n, 3, H, W).

        Returns:
            Scalars by name. ``loss`` is minimised, ``std`` (:func:`feature_std`) is watched for
            collapse; all are logged.
        """

    def teachers(self) -> Iterable[tuple[nn.Module, nn.Module]]:
        """Return each momentum encoder (see :func:`momentum_copy`) with the student it follows."""
        return ()

    def after_update(self, progress: float) -> None:
        """Move the teachers towards their students, after an optimizer step.

        Args:
            progress: Fraction of the training's optimizer steps that are done, above 0..1.
        """
        momentum = momentum_at(self.momentum, progress)
        for teacher, student in self.teachers():
            move(teacher, student, momentum)


def has_teacher(method: Any) -> bool:
    """Return whether a type of the registry is a method with a momentum encoder."""
    own = getattr(method, "teachers", Method.teachers)
    return own is not Method.teachers


def depends_on_progress(method: Any) -> bool:
    """Return whether a type of the registry is a method with a schedule of its own."""
    own = getattr(method, "after_update", Method.after_update)
    return has_teacher(method) or own is not Method.after_update


def require_method(model: nn.Module) -> None:
    """Check that a model is a self-supervised method.

    Raises:
        ConfigError: It is another model.
    """
    if not isinstance(model, Method):
        raise ConfigError(
            f"model: {type(model).__name__} is not a self-supervised method; take one of "
            "foldsmith.ssl, or derive it from foldsmith.ssl.method.Method"
        )


def two_views(views: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the views of a method that compares two.

    Raises:
        ConfigError: There are more or fewer.
    """
    if len(views) != 2:
        raise ConfigError(
            f"this method compares 2 views of an image, but the dataset makes {len(views)}; set "
            "dataset/train/n_views to 2 and leave out local crops, or take DINO"
        )
    return views[0], views[1]


def feature_std(features: torch.Tensor) -> torch.Tensor:
    """Return the standard deviation of L2-normalised features, averaged over their dimensions.

    It is near 1/sqrt(dim) if the features spread, and near 0 if they have collapsed to one point
    (Chen and He 2021, section 4.1).

    Args:
        features: Floating, shape (n, dim).

    Returns:
        float32 scalar without a gradient, 0..1/sqrt(dim).
    """
    return functional.normalize(features.detach().float(), dim=1).std(dim=0, correction=0).mean()
