"""Experiment files: reading, overriding, checking, building."""

from foldsmith.config.experiment import Components, Context, Experiment, Types
from foldsmith.config.settings import (
    BlendMethod,
    Calibration,
    Checkpoint,
    EnsembleSettings,
    Globals,
    TestTimeAugmentation,
)

__all__ = [
    "BlendMethod",
    "Calibration",
    "Checkpoint",
    "Components",
    "Context",
    "EnsembleSettings",
    "Experiment",
    "Globals",
    "TestTimeAugmentation",
    "Types",
]
