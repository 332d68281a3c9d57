"""The augmentations of a 2021 competition notebook: albumentations', or else torchvision's."""

import importlib.util
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torchvision import transforms

# From an RGB image, uint8, shape (H, W, 3), to a normalised tensor.
Transform = Callable[[np.ndarray], torch.Tensor]

# Which of the two it is.
LIBRARY = "albumentations" if importlib.util.find_spec("albumentations") else "torchvision"


def plain_transform(kind: str, size: int, mean: list[float], std: list[float]) -> Transform:
    """Return the augmentation of ``SimSiam`` or ``fine-tuning``."""
    if LIBRARY == "torchvision":
        return _of_torchvision(kind, size, mean, std)
    import albumentations as al

    steps: list[Any]
    if kind == "SimSiam":
        steps = [
            al.RandomResizedCrop(size=(size, size), scale=(0.2, 1.0)),
            al.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1), p=0.8),
            al.ToGray(p=0.2),
            al.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 2.0), p=0.5),
            al.HorizontalFlip(p=0.5),
        ]
    else:
        steps = [
            al.LongestMaxSize(size),
            al.PadIfNeeded(size, size, border_mode=cv2.BORDER_WRAP),
            al.VerticalFlip(p=0.5),
            al.HorizontalFlip(p=0.5),
            al.ShiftScaleRotate(0.2, 0.2, 20, border_mode=cv2.BORDER_REFLECT, p=0.5),
            al.RandomResizedCrop(size=(size, size), scale=(0.875, 1.0)),
            al.RandomGridShuffle((4, 4), p=0.5),
        ]
    return _composed(steps, mean, std)


def resized_transform(size: int, mean: list[float], std: list[float]) -> Transform:
    """Return what prepares images for a prediction."""
    if LIBRARY == "torchvision":
        steps = [transforms.Resize((size, size)), transforms.ToTensor()]
        return _From(transforms.Compose([*steps, transforms.Normalize(mean, std)]))
    import albumentations as al

    padded = al.PadIfNeeded(size, size, border_mode=cv2.BORDER_WRAP)
    return _composed([al.LongestMaxSize(size), padded], mean, std)


def _composed(steps: list[Any], mean: list[float], std: list[float]) -> Transform:
    import albumentations as al
    from albumentations.pytorch import ToTensorV2

    return _Named(al.Compose([*steps, al.Normalize(mean, std), ToTensorV2()]))


def _of_torchvision(kind: str, size: int, mean: list[float], std: list[float]) -> Transform:
    steps: list[Any]
    if kind == "SimSiam":
        steps = [
            transforms.RandomResizedCrop(size, scale=(0.2, 1.0)),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.RandomApply([transforms.GaussianBlur(9, (0.1, 2.0))], p=0.5),
            transforms.RandomHorizontalFlip(),
        ]
    else:
        steps = [
            transforms.Resize((size, size)),
            transforms.RandomVerticalFlip(),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply(
                [transforms.RandomAffine(20, translate=(0.2, 0.2), scale=(0.8, 1.2))], p=0.5
            ),
            transforms.RandomResizedCrop(size, scale=(0.875, 1.0)),
        ]
    end = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    if kind != "SimSiam":
        end.append(transforms.RandomApply([_GridShuffle(4)], p=0.5))
    return _From(transforms.Compose([*steps, *end]))


class _Named:
    """albumentations' way to be called."""

    def __init__(self, steps: Any) -> None:
        self.steps = steps

    def __call__(self, image: np.ndarray) -> torch.Tensor:
        result: torch.Tensor = self.steps(image=image)["image"]
        return result


class _From:
    """torchvision's transforms, which take PIL's images."""

    def __init__(self, steps: Any) -> None:
        self.steps = steps

    def __call__(self, image: np.ndarray) -> torch.Tensor:
        from PIL import Image

        result: torch.Tensor = self.steps(Image.fromarray(image))
        return result


class _GridShuffle(nn.Module):
    """The cells of a grid in another order."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        height, width = (side // self.n for side in image.shape[-2:])
        result = image.clone()
        for to, source in enumerate(torch.randperm(self.n**2).tolist()):
            (y, x), (v, u) = divmod(to, self.n), divmod(source, self.n)
            result[:, y * height : (y + 1) * height, x * width : (x + 1) * width] = image[
                :, v * height : (v + 1) * height, u * width : (u + 1) * width
            ]
        return result
