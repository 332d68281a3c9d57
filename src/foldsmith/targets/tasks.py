"""The registry of supervised tasks: the library's, and those of a project's own Python."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.targets.classification import MultiClass
from foldsmith.targets.corn import Corn
from foldsmith.targets.hl_gauss import HLGauss
from foldsmith.targets.multi_label import MultiLabel
from foldsmith.targets.multi_regression import MultiRegression
from foldsmith.targets.regression import Regression
from foldsmith.targets.task import Task
from foldsmith.utils.suggest import did_you_mean

if TYPE_CHECKING:  # config imports no targets, and targets no config
    from foldsmith.config.settings import Globals

_TASKS: tuple[type[Task], ...] = (
    MultiClass,
    Regression,
    HLGauss,
    Corn,
    MultiLabel,
    MultiRegression,
)

# By the values of ``globals/task``.
TYPES: Mapping[str, Callable[..., Any]] = {task.name: task for task in _TASKS}

# In the order of the averages of one task's members in an ensemble.
SHORT_NAMES = tuple(task.short_name or task.name for task in _TASKS)


def task_types(project: ProjectFolder) -> dict[str, type[Task]]:
    """Return the tasks that an experiment of a project may name, the library's first."""
    types = {**TYPES, **project.types}
    return {
        name: found
        for name, found in types.items()
        if isinstance(found, type) and issubclass(found, Task)
    }


def task_type(name: str, project: ProjectFolder) -> type[Task]:
    """Return the class of a task.

    Raises:
        ConfigError: No task has this name.
    """
    known = task_types(project)
    if name not in known:
        raise ConfigError(f"globals/task: unknown task {name}{did_you_mean(name, known)}")
    return known[name]


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
