"""Models whose features are learned from images without labels, before features are computed."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from foldsmith.errors import OutputError
from foldsmith.models.fitted_arrays import read_arrays, write_arrays

# File of the learned arrays in the output folder of an experiment with frozen features.
LEARNED = "learned.safetensors"

# Tensors with a row for each sample.
Samples = Sequence[torch.Tensor]


@runtime_checkable
class LearnsFromImages(Protocol):
    """A model that learns from images without labels; its state dict is all that it has learned.

    An experiment whose model does so has a ``loader/learn``. The model learns the same from the
    same images and seed, whatever their batches are.
    """

    def sample(self, batches: Iterable[torch.Tensor], n_images: int, seed: int) -> Samples:
        """Return samples of images, about as many however many images there are.

        Args:
            batches: The images in a fixed order, as the model gets them, shape (n, 3, H, W).
            n_images: Their number.
            seed: Seed of everything that is drawn.
        """

    def learn(self, samples: Samples, seed: int) -> None:
        """Learn from samples.

        Args:
            samples: The result of :meth:`sample`, or some of its rows.
            seed: Seed of everything that is drawn.
        """


def write_learned(model: nn.Module, path: Path) -> None:
    """Write what a model has learned."""
    write_arrays(path, {name: value.cpu().numpy() for name, value in model.state_dict().items()})


def read_learned(model: nn.Module, path: Path) -> None:
    """Load what :func:`write_learned` has written into a model of the same arguments.

    Raises:
        OutputError: The file is missing or damaged, or belongs to another model.
    """
    state = {name: torch.from_numpy(value) for name, value in read_arrays(path).items()}
    try:
        model.load_state_dict(state)
    except RuntimeError:
        raise OutputError(
            f"{path}: does not fit the model; run 'foldsmith train --force' with the experiment's "
            "file, which learns it again"
        ) from None
