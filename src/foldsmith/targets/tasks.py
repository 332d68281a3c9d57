"""The registry of supervised tasks: the library's, and those of a project's own Python."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

from foldsmith.config.lazy_types import LazyTypes
from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.targets.task import Task
from foldsmith.utils.suggest import did_you_mean

if TYPE_CHECKING:  # config imports no targets, and targets no config
    from foldsmith.config.settings import Globals

# By the values of ``globals/task``; a task is imported when an experiment names it.
TYPES: Mapping[str, str] = {
    "multi-class": "foldsmith.targets.classification:MultiClass",
    "regression": "foldsmith.targets.regression:Regression",
    "hl-gauss": "foldsmith.targets.hl_gauss:HLGauss",
    "corn": "foldsmith.targets.corn:Corn",
    "multi-label": "foldsmith.targets.multi_label:MultiLabel",
    "multi-regression": "foldsmith.targets.multi_regression:MultiRegression",
    "multi-classification": "foldsmith.targets.multi_classification:MultiClassification",
}


def short_names() -> tuple[str, ...]:
    """Return the short names of the library's tasks.

    They are in the order of the averages of one task's members in an ensemble.
    """
    tasks: list[Any] = list(LazyTypes(TYPES).values())
    return tuple(task.short_name or task.name for task in tasks)


def task_types(project: ProjectFolder) -> dict[str, type[Task]]:
    """Return the tasks that an experiment of a project may name, the library's first."""
    types = LazyTypes(TYPES) | project.types
    return {name: found for name, found in types.items() if _is_task(found)}


def task_type(name: str, project: ProjectFolder) -> type[Task]:
    """Return the class of a task.

    Raises:
        ConfigError: No task has this name.
    """
    found = (LazyTypes(TYPES) | project.types).get(name)
    if _is_task(found):
        return found
    known = task_types(project)
    raise ConfigError(f"globals/task: unknown task {name}{did_you_mean(name, known)}")


def _is_task(found: object) -> TypeGuard[type[Task]]:
    return isinstance(found, type) and issubclass(found, Task)


def create_task(settings: "Globals", project: ProjectFolder) -> Task:
    """Return the task that checked ``globals`` name.

    Raises:
        ConfigError: No task has this name, or the project does not fit it.
    """
    chosen = task_type(settings.task, project)
    if chosen.form != project.form.kind:
        kind = project.form.kind
        fitting = [name for name, one in task_types(project).items() if one.form == kind]
        raise ConfigError(
            f"globals/task: {settings.task} predicts {chosen.form}, but the target of project.yml "
            f"is {kind}; take {' or '.join(fitting)}"
        )
    if project.class_names and chosen.needs_order:
        raise ConfigError(
            f"globals/task: {settings.task} needs an order, which the class_names of project.yml "
            "do not have; take multi-class"
        )
    return chosen.from_settings(settings, project)
