"""The project: its folder, ``project.yml``, tables, and its own Python."""

from foldsmith.project.project_file import ProjectFolder
from foldsmith.project.settings import ProjectSettings

__all__ = ["ProjectFolder", "ProjectSettings"]
