"""Experiment files: reading, overriding, checking, building."""

from foldsmith.config.check import ExistingFile
from foldsmith.config.experiment import Experiment, Parts, Types
from foldsmith.config.settings import (
    BlendMethod,
    Calibration,
    Criterion,
    EnsembleSettings,
    Globals,
    TestTimeAugmentation,
)

__all__ = [
    "BlendMethod",
    "Calibration",
    "Criterion",
    "EnsembleSettings",
    "ExistingFile",
    "Experiment",
    "Globals",
    "Parts",
    "TestTimeAugmentation",
    "Types",
]
