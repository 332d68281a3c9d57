"""Shell completion of experiment files and output folders.

Names are looked up, and the first lines of small files; nothing else is read or imported, so that
the shell does not wait.
"""

import re
from collections.abc import Callable
from pathlib import Path

import typer

# Of steps/run_records.py, which to import would take seconds.
_RESOLVED = "resolved_config.yml"

# Values of ``globals/task`` for runs that predict nothing, and for all runs that are not
# fine-tunings. All other values are supervised tasks: a project may have its own.
PRETRAININGS = ("self-supervised",)
OTHERS = (*PRETRAININGS, "frozen-features", "ensemble")

Completer = Callable[[typer.Context, str], list[str]]


def experiment_files(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the experiment files that go on as ``incomplete``, relative to the project.

    Args:
        ctx: The command line so far.
        incomplete: The typed text; without a folder, the files of ``exp_config`` and of
            folders beside it whose names go on so.
    """
    project = _project(ctx)
    typed, slash, _ = incomplete.rpartition("/")
    if slash:
        folders = [f"{typed}/"]
    elif incomplete:
        folders = [f"{name}/" for name in _names(project) if name.startswith(incomplete)]
    else:
        folders = ["exp_config/"]
    return _going_on(
        incomplete,
        [
            f"{folder}{name}"
            for folder in folders
            for name in _names(project / folder)
            if name.endswith(".yml")
        ],
    )


def output_folders(without: tuple[str, ...] = ()) -> Completer:
    """Return the completion of output folders.

    Args:
        without: Values of ``globals/task`` whose output folders are not offered.
    """

    def offer(ctx: typer.Context, incomplete: str) -> list[str]:
        project = _project(ctx)
        typed, slash, _ = incomplete.rpartition("/")
        folder = f"{typed}/" if slash else "output/"
        return _going_on(
            incomplete,
            [
                f"{folder}{name}"
                for name in _names(project / folder)
                if _task(project / folder / name) not in (None, *without)
            ],
        )

    return offer


def _project(ctx: typer.Context) -> Path:
    return Path(ctx.params.get("project") or ".")


def _names(folder: Path) -> list[str]:
    """Return the names in a folder, sorted; none if it cannot be looked into."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []


def _going_on(incomplete: str, found: list[str]) -> list[str]:
    return [name for name in found if name.startswith(incomplete)]


def _task(folder: Path) -> str | None:
    """Return the task of the run in an output folder, without parsing its YAML."""
    try:
        found = re.search(r"^  task: (\S+)$", (folder / _RESOLVED).read_text("utf-8"), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return None
    return found[1] if found else None
