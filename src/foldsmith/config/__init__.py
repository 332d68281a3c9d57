"""Experiment files: reading, overriding, checking, building."""

from foldsmith.config.experiment import Components, Context, Experiment, Types
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
    "Components",
    "Context",
    "Criterion",
    "EnsembleSettings",
    "Experiment",
    "Globals",
    "TestTimeAugmentation",
    "Types",
]
