"""Project file and experiment files: reading, overriding, checking, building."""

from foldsmith.config.check import ExistingFile
from foldsmith.config.experiment import Experiment, Parts, Types
from foldsmith.config.project import MetricName, Project, ProjectSettings
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
    "MetricName",
    "Parts",
    "Project",
    "ProjectSettings",
    "TestTimeAugmentation",
    "Types",
]
