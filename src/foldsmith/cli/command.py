"""How a function becomes a command of the command line."""

import inspect
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperOption

# Each command imports its modules when it runs: torch and timm take seconds, and --help and errors
# in options must be immediate.
if TYPE_CHECKING:
    from foldsmith.project import ProjectFolder

F = TypeVar("F", bound=Callable[..., Any])


class Command(TyperCommand):
    """A command that refuses an option given twice instead of taking the last one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line; called by typer."""
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for option, times in Counter(given).items():
            single = isinstance(option, TyperOption) and not (option.multiple or option.is_flag)
            if single and times > 1:
                ctx.fail(f"{max(option.opts, key=len)} is given {times} times; give it once")
        return super().parse_args(ctx, args)


def command(group: typer.Typer, kind: type[Command] = Command) -> Callable[[F], F]:
    """Return the decorator that makes a function a command; its docstring is the help.

    Args:
        group: The group that the command belongs to.
        kind: Class of the command.
    """

    def register(function: F) -> F:
        group.command(cls=kind, help=help_text(function))(function)
        return function

    return register


def help_text(function: Callable[..., Any]) -> str:
    """Return a docstring as a help text, in which the lines of examples are not wrapped."""
    # typer leaves paragraphs after \b as they are; examples are paragraphs of commands.
    return re.sub(r"(?m)(?<=\n\n)(?=foldsmith )", "\b\n", inspect.getdoc(function) or "")


def open_project(folder: Path, trust: bool) -> "ProjectFolder":
    """Open the project folder of a command.

    Args:
        folder: The folder.
        trust: Whether its Python may run, as by ``--trust-python``.

    Raises:
        ConfigError: It is no project, or its project.yml is wrong.
    """
    from foldsmith.project import ProjectFolder

    return ProjectFolder.open(folder, trust=trust)
