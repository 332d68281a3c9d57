"""What a transform is, and running several."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[Any]

INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "cubic": cv2.INTER_CUBIC,
}


class Transform(ABC):
    """From image to image, every random number from the generator that is passed in.

    An image is RGB, uint8, shape (H, W, 3); it is never changed in place, since it may be
    shared between workers. Only ``Normalize`` returns another dtype.

    Attributes:
        stored: Whether a list of transforms that begins with this one runs it once per photo,
            before photos are stored, instead of once per epoch. It must draw nothing; one that
            makes photos larger is better run each time.
    """

    stored: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Return the transformed image."""

    def keeps(self, height: int, width: int) -> bool:
        """Return whether every image of this size is left as it is; False if not known."""
        return False


@dataclass(frozen=True)
class RandomTransform(Transform):
    """A transform that is applied with a probability.

    Attributes:
        p: Probability, 0..1.
    """

    p: float = field(default=0.5, kw_only=True)

    def __post_init__(self) -> None:
        check_share("p", self.p)

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Return the transformed image, or with probability 1 - p the image itself."""
        return self.apply(image, rng) if rng.random() < self.p else image

    @abstractmethod
    def apply(self, image: Image, rng: np.random.Generator) -> Image:
        """Return the transformed image."""


class Compose:
    """Transforms one after another.

    Args:
        transforms: The transforms, first to last.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Return the image after all transforms, C-contiguous."""
        for transform in self.transforms:
            image = transform(image, rng)
        return np.ascontiguousarray(image)

    def __repr__(self) -> str:
        return f"Compose({self.transforms})"

    def keeps(self, height: int, width: int) -> bool:
        """Return whether every image of this size is left as it is; False if not known."""
        return all(transform.keeps(height, width) for transform in self.transforms)

    def split(self) -> tuple["Compose", "Compose"]:
        """Return the stored head, to run once per photo, and the rest."""
        head = 0
        while head < len(self.transforms) and self.transforms[head].stored:
            head += 1
        return Compose(self.transforms[:head]), Compose(self.transforms[head:])


@dataclass(frozen=True)
class OneOf(RandomTransform):
    """One of several transforms, each as likely as the others.

    Attributes:
        transforms: What to choose from.
    """

    transforms: Sequence[Transform]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.transforms:
            raise ValueError("transforms: must name at least one")

    def apply(self, image: Image, rng: np.random.Generator) -> Image:
        """Return the image after one of the transforms."""
        return self.transforms[int(rng.integers(len(self.transforms)))](image, rng)


def check_share(name: str, value: float) -> None:
    """Raise a ValueError unless ``value`` lies in 0..1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: {value} is not in 0..1")


def check_size(name: str, value: int) -> None:
    """Raise a ValueError unless ``value`` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: {value!r} is not a whole number of at least 1")


def check_range(name: str, value: Sequence[float], low: float, high: float = float("inf")) -> None:
    """Raise a ValueError unless ``value`` is [a, b] with low <= a <= b <= high."""
    if len(value) != 2 or not low <= value[0] <= value[1] <= high:
        raise ValueError(f"{name}: {list(value)} is not a range [a, b] within {low}..{high}")


def choice(name: str, value: str, accepted: dict[str, int]) -> int:
    """Return what a word stands for, or raise a ValueError that lists the accepted words."""
    if value not in accepted:
        raise ValueError(f"{name}: {value!r} is none of {', '.join(accepted)}")
    return accepted[value]
