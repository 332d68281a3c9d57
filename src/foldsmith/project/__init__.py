"""The project: its folder, ``project.yml``, tables, and its own Python."""

from foldsmith.project.project_file import MetricName, ProjectFolder, ProjectSettings

__all__ = ["MetricName", "ProjectFolder", "ProjectSettings"]
