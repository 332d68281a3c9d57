"""Project file and experiment files: reading, overriding, checking, building."""

from foldsmith.config.check import ExistingFile
from foldsmith.config.experiment import Experiment, Parts, Types
from foldsmith.config.project import Project, ProjectSettings
from foldsmith.config.settings import EnsembleSettings, Globals, TestTimeAugmentation

__all__ = [
    "EnsembleSettings",
    "ExistingFile",
    "Experiment",
    "Globals",
    "Parts",
    "Project",
    "ProjectSettings",
    "TestTimeAugmentation",
    "Types",
]
