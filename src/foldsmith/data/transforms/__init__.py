"""Augmentations on numpy and OpenCV, each drawing from an explicit generator."""

from foldsmith.data.transforms.base import Compose, OneOf, Transform
from foldsmith.data.transforms.colour import (
    ColorJitter,
    GaussianBlur,
    RandomBrightnessContrast,
    Solarize,
    ToGray,
)
from foldsmith.data.transforms.erase import CoarseDropout, RandomErase
from foldsmith.data.transforms.geometry import (
    HorizontalFlip,
    RandomCrop,
    RandomGridShuffle,
    RandomResizedCrop,
    Rotate,
    ShiftScaleRotate,
    Transpose,
    VerticalFlip,
)
from foldsmith.data.transforms.normalize import Normalize
from foldsmith.data.transforms.resize import (
    CenterCrop,
    LongestMaxSize,
    PadIfNeeded,
    Resize,
    SmallestMaxSize,
)

__all__ = [
    "CenterCrop",
    "CoarseDropout",
    "ColorJitter",
    "Compose",
    "GaussianBlur",
    "HorizontalFlip",
    "LongestMaxSize",
    "Normalize",
    "OneOf",
    "PadIfNeeded",
    "RandomBrightnessContrast",
    "RandomCrop",
    "RandomErase",
    "RandomGridShuffle",
    "RandomResizedCrop",
    "Resize",
    "Rotate",
    "ShiftScaleRotate",
    "SmallestMaxSize",
    "Solarize",
    "ToGray",
    "Transform",
    "Transpose",
    "VerticalFlip",
]
