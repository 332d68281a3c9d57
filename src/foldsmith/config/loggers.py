"""Where trainings may be watched, beside their own log."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Literal

from foldsmith.utils.optional_packages import install_command

# Each is a package of this name.
LoggerName = Literal["tensorboard", "mlflow", "wandb"]


def loggers_at_hand(chosen: Sequence[LoggerName] | None) -> list[LoggerName]:
    """Return the loggers of ``globals/loggers``: TensorBoard, if it is there, for None."""
    if chosen is None:
        return ["tensorboard"] if _installed("tensorboard") else []
    return list(dict.fromkeys(chosen))


def logger_problems(chosen: Sequence[LoggerName] | None) -> Iterator[str]:
    """Yield the loggers that are not installed, and how they are."""
    for name in loggers_at_hand(chosen):
        if not _installed(name):
            yield f"{name} is not installed; install it with: {install_command(name)}"


def _installed(package: str) -> bool:
    # A folder of this name, as wandb leaves one, is no package.
    spec = find_spec(package)
    return spec is not None and spec.origin is not None
