"""The base classes of transforms, and chains of transforms."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from foldsmith.data.transforms.pixels import Pixels

Image = npt.NDArray[Any]

INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "cubic": cv2.INTER_CUBIC,
}


# Random numbers that a transform has drawn for one image: plain numbers, sent between processes.
Drawn = Any


class Transform(ABC):
    """A function from image to image, in two parts: drawing random numbers, and applying them.

    An image is RGB, uint8, shape (H, W, 3); it is never changed in place, since it may be
    shared between workers. Only ``Normalize`` returns another dtype. Drawing takes every random
    number from the given generator. Applying is a function of the image and of the drawn numbers,
    for one image on the CPU (:meth:`apply`) or, if a transform supports it, for a
    batch on any device (:meth:`apply_batch`).

    Attributes:
        stored: Whether a list of transforms that begins with this one runs it once per image,
            before images are stored, instead of once per epoch. It must draw nothing; one that
            makes images larger is better run each time.
    """

    stored: ClassVar[bool] = False

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Return the transformed image."""
        return self.apply(image, self.draw(image.shape[0], image.shape[1], rng))

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Drawn:
        """Draw the random numbers for an image of height x width px; None without randomness."""
        return None

    @abstractmethod
    def apply(self, image: Image, drawn: Drawn) -> Image:
        """Apply the numbers drawn for an image to it."""

    def size_after(self, height: int, width: int, drawn: Drawn) -> tuple[int, int]:
        """Return the height and width of the result, in px."""
        return height, width

    def keeps(self, height: int, width: int) -> bool:
        """Return whether every image of this size is left as it is; False if not known."""
        return False

    @property
    def batched(self) -> bool:
        """Whether the class itself defines :meth:`apply_batch`."""
        return _written_for(type(self), "apply_batch", "apply") is not Transform

    def apply_batch(self, pixels: Pixels, drawn: Sequence[Drawn]) -> Pixels:
        """Apply the numbers drawn for each image to a batch on its device.

        Args:
            pixels: n images.
            drawn: n times what :meth:`draw` returned.
        """
        raise NotImplementedError(f"{type(self).__name__} has no version for batches")


def _written_for(transform: type, for_batches: str, for_one: str) -> type:
    """Return the class whose method for batches goes with the one for a single image.

    A class that inherits the one and writes the other anew has none: then the base class.
    """
    lineage = transform.__mro__
    batches = next(base for base in lineage if for_batches in vars(base))
    one = next(base for base in lineage if for_one in vars(base))
    if lineage.index(one) < lineage.index(batches):
        return next(base for base in reversed(lineage) if for_batches in vars(base))
    return batches


@dataclass(frozen=True)
class RandomTransform(Transform):
    """A transform that is applied with a probability.

    Attributes:
        p: Probability, 0..1.
    """

    p: float = field(default=0.5, kw_only=True)

    def __post_init__(self) -> None:
        check_share("p", self.p)

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Drawn:
        """Draw the parameters, or with probability 1 - p None: the image stays as it is."""
        return self.parameters(height, width, rng) if rng.random() < self.p else None

    def apply(self, image: Image, drawn: Drawn) -> Image:
        """Return the changed image, or the image itself if None was drawn."""
        return image if drawn is None else self.change(image, drawn)

    def apply_batch(self, pixels: Pixels, drawn: Sequence[Drawn]) -> Pixels:
        """Change the images for which parameters were drawn."""
        chosen = [k for k, parameters in enumerate(drawn) if parameters is not None]
        if not chosen:
            return pixels
        part = self.change_batch(pixels.take(chosen), [drawn[k] for k in chosen])
        return part if len(chosen) == len(drawn) else pixels.put(chosen, part)

    @property
    def batched(self) -> bool:
        """Whether the class itself defines :meth:`change_batch`."""
        return _written_for(type(self), "change_batch", "change") is not RandomTransform

    @abstractmethod
    def parameters(self, height: int, width: int, rng: np.random.Generator) -> Drawn:
        """Draw the parameters of the change; () if there are none, None for no change."""

    @abstractmethod
    def change(self, image: Image, drawn: Drawn) -> Image:
        """Return the changed image."""

    def change_batch(self, pixels: Pixels, drawn: Sequence[Drawn]) -> Pixels:
        """Return the changed images."""
        raise NotImplementedError(f"{type(self).__name__} has no version for batches")


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

    def draw(self, height: int, width: int, rng: np.random.Generator) -> list[Drawn]:
        """Draw the random numbers of each transform for an image of height x width px.

        A call with the same generator would draw the same numbers.
        """
        drawn = []
        for transform in self.transforms:
            drawn.append(transform.draw(height, width, rng))
            height, width = transform.size_after(height, width, drawn[-1])
        return drawn

    def apply_batch(self, pixels: Pixels, drawn: Sequence[Sequence[Drawn]]) -> Pixels:
        """Apply the numbers drawn for each image to a batch.

        Args:
            pixels: n images.
            drawn: n times what :meth:`draw` returned.
        """
        for k, transform in enumerate(self.transforms):
            pixels = transform.apply_batch(pixels, [of_image[k] for of_image in drawn])
        return pixels

    @property
    def not_batched(self) -> list[str]:
        """Names of the transforms that have no version for batches."""
        return [type(step).__name__ for step in self.transforms if not step.batched]

    def __repr__(self) -> str:
        return f"Compose({self.transforms})"

    def keeps(self, height: int, width: int) -> bool:
        """Return whether every image of this size is left as it is; False if not known."""
        return all(transform.keeps(height, width) for transform in self.transforms)

    def split(self) -> tuple["Compose", "Compose"]:
        """Return the stored head, to run once per image, and the rest."""
        head = 0
        while head < len(self.transforms) and self.transforms[head].stored:
            head += 1
        return Compose(self.transforms[:head]), Compose(self.transforms[head:])


@dataclass(frozen=True)
class OneOf(RandomTransform):
    """One of several transforms, each as likely as the others.

    Attributes:
        transforms: The transforms to choose from.
    """

    transforms: Sequence[Transform]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.transforms:
            raise ValueError("transforms: must name at least one")

    def parameters(self, height: int, width: int, rng: np.random.Generator) -> Drawn:
        """Draw the chosen transform and its random numbers."""
        which = int(rng.integers(len(self.transforms)))
        return which, self.transforms[which].draw(height, width, rng)

    def change(self, image: Image, drawn: Drawn) -> Image:
        """Return the image after one of the transforms."""
        which, inner = drawn
        changed: Image = self.transforms[which].apply(image, inner)
        return changed

    def size_after(self, height: int, width: int, drawn: Drawn) -> tuple[int, int]:
        """Return the size that the chosen transform leaves."""
        if drawn is None:
            return height, width
        which, inner = drawn
        chosen: Transform = self.transforms[which]
        return chosen.size_after(height, width, inner)

    @property
    def batched(self) -> bool:
        """Whether all of them have a version for batches."""
        return all(transform.batched for transform in self.transforms)

    def change_batch(self, pixels: Pixels, drawn: Sequence[Drawn]) -> Pixels:
        """Send each image through its transform."""
        for which, transform in enumerate(self.transforms):
            chosen = [k for k, (one, _) in enumerate(drawn) if one == which]
            if chosen:
                part = transform.apply_batch(pixels.take(chosen), [drawn[k][1] for k in chosen])
                pixels = pixels.put(chosen, part)
        return pixels


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
    """Return the value of a word, or raise a ValueError that lists the accepted words."""
    if value not in accepted:
        raise ValueError(f"{name}: {value!r} is none of {', '.join(accepted)}")
    return accepted[value]
