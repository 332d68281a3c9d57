"""The kinds of steps: a line each, in the order in which a run needs them."""

from collections.abc import Iterator
from itertools import takewhile

from foldsmith.config import Experiment
from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.project.project_file import PROJECT_FILE
from foldsmith.steps.base import StepKind
from foldsmith.steps.kinds.ensemble import Ensemble
from foldsmith.steps.kinds.features import Features
from foldsmith.steps.kinds.infer import Infer
from foldsmith.steps.kinds.preprocess import Preprocess
from foldsmith.steps.kinds.pretrain import Pretrain
from foldsmith.steps.kinds.train import Train
from foldsmith.utils.suggest import did_you_mean

KINDS: tuple[StepKind, ...] = (
    Preprocess(),
    Pretrain(),
    Train(),
    Features(),
    Infer(),
    Ensemble(),
)


def kinds_of(project: ProjectFolder) -> tuple[StepKind, ...]:
    """Return the package's kinds; kinds of the project's own Python come before gathering ones.

    Args:
        project: The project; a subclass of :class:`~foldsmith.steps.base.StepKind` in the
            ``TYPES`` of its Python is a kind of its own.
    """
    own = [
        each()
        for each in project.types.values()
        if isinstance(each, type) and issubclass(each, StepKind)
    ]
    first = tuple(takewhile(lambda kind: not kind.gathers, KINDS))
    return (*first, *own, *KINDS[len(first) :])


def kind_of(experiment: Experiment) -> StepKind:
    """Return the kind of the last step of an experiment.

    Raises:
        ConfigError: No kind has such a task.
    """
    kinds = kinds_of(experiment.project)
    # A kind of the project's own first: a fine-tuning is any task that no other kind has.
    for kind in sorted(kinds, key=KINDS.__contains__):
        if kind.finishes(experiment):
            return kind
    raise ConfigError(f"{experiment.file}: globals/task: no step does {experiment.globals.task}")


def names_until(project: ProjectFolder, last: str | None) -> list[str]:
    """Return the names of the kinds up to one.

    Args:
        project: The project.
        last: Name of the last kind; all if None.

    Raises:
        ConfigError: There is no such kind.
    """
    names = [kind.name for kind in kinds_of(project)]
    if last is None:
        return names
    if last not in names:
        raise ConfigError(
            f"--until {last}: no such kind of step{did_you_mean(last, names)}; one of "
            f"{', '.join(names)}"
        )
    return names[: names.index(last) + 1]


def resource_problems(project: ProjectFolder) -> Iterator[str]:
    """Yield one line per kind that ``resources`` of a project names and that does not exist."""
    names = [kind.name for kind in kinds_of(project)]
    for name in project.settings.resources:
        if name not in names:
            yield (
                f"{project.path(PROJECT_FILE)}: resources/{name}: no such kind of step"
                f"{did_you_mean(name, names)}; one of {', '.join(names)}"
            )
