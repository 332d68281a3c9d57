"""The output folder of an experiment: which it is, and whether it may be written to."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from foldsmith.config.experiment import Experiment
from foldsmith.config.settings import MEMBERS
from foldsmith.errors import OutputError
from foldsmith.project.project_file import ProjectFolder
from foldsmith.utils.owned_files import FILES_LIST, OwnedFiles, is_empty

EXPERIMENTS = "exp_config"


def output_key(experiment: Experiment) -> str:
    """Return the key of an experiment that names its output folder."""
    members = experiment.globals.task in MEMBERS
    return "globals/output_root" if members else "globals/output_path"


def output_of(experiment: Experiment) -> Path | None:
    """Return the output folder of an experiment, if it has one."""
    settings = experiment.globals
    folder = settings.output_root if settings.task in MEMBERS else settings.output_path
    return None if folder is None else experiment.project.path(folder)


def claimant(experiment: Experiment) -> str:
    """Return the name under which an experiment claims its output folder: its file's name."""
    file, root = Path(os.path.abspath(experiment.file)), experiment.project.folder
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)


def check_output(experiment: Experiment, force: bool = False) -> None:
    """Make sure that an experiment may write into its output folder; nothing is changed.

    Args:
        experiment: The experiment.
        force: Whether the folder of another experiment may be taken over.

    Raises:
        OutputError: It may not; the message has the key and the remedy.
    """
    folder = output_of(experiment)
    problem = None if folder is None else _problem(experiment, folder, force)
    if problem is not None:
        raise OutputError(
            f"{experiment.file}: {output_key(experiment)}: {folder} {problem}; name a folder of "
            "its own, as in output/NAME"
        )


def clashes(experiments: Sequence[Experiment], others: Sequence[Experiment]) -> Iterator[str]:
    """Yield one line per experiment whose output folder equals or lies inside another's.

    Args:
        experiments: Experiments to run.
        others: All experiments.
    """
    found = [(each, output_of(each)) for each in others]
    outputs = [(each, folder.resolve()) for each, folder in found if folder is not None]
    reported = set()
    for one, folder in outputs:
        for other, its_folder in outputs:
            pair = frozenset((id(one), id(other)))
            if one is other or not folder.is_relative_to(its_folder) or pair in reported:
                continue
            if any(each is one or each is other for each in experiments):
                reported.add(pair)
                inside = "the" if folder == its_folder else "inside the"
                yield (
                    f"{one.file}: {output_key(one)}: {folder} is {inside} output folder of "
                    f"{other.file.name}, so that each would undo the work of the other; give one "
                    "of them another folder"
                )


def _problem(experiment: Experiment, folder: Path, force: bool) -> str | None:
    """Return why an experiment may not write into a folder; None if it may."""
    place = folder.resolve()
    for name, protected, inside_too in _protected(experiment.project):
        if protected.is_relative_to(place):
            return f"is, or contains, {name}"
        if inside_too and place.is_relative_to(protected):
            return f"is inside {name}"
    for parent in place.parents:
        if (parent / FILES_LIST).is_file():
            return f"is inside {parent}, the output folder of another experiment"
    if os.path.lexists(folder) and not folder.is_dir():
        return "is there already, and is no folder"
    owned = OwnedFiles(folder)
    if not owned.exist:
        return None if is_empty(folder) else f"holds files that are not foldsmith's{_some(folder)}"
    owner, own = owned.experiment, claimant(experiment)
    if owner not in (None, own) and not force and (experiment.project.path(str(owner))).is_file():
        return f"holds the results of another experiment, {owner}"
    return None


def _protected(project: ProjectFolder) -> Iterator[tuple[str, Path, bool]]:
    """Yield the folders that no output may replace: name, path, whether including subfolders."""
    root = project.folder.resolve()
    yield "the project folder", root, False
    for name in (EXPERIMENTS, ".foldsmith"):
        yield name, root / name, True
    data = project.data_dir.resolve()
    # If the project folder is also the data folder, all outputs are inside.
    yield "the data folder (data_dir in project.yml)", data, not root.is_relative_to(data)
    images = (data / _fixed_folder(project.settings.image_path)).resolve()
    yield "the folder of the images (image_path)", images, not root.is_relative_to(images)


def _fixed_folder(template: str) -> str:
    """Return the part of a path with placeholders that is the folder of all: photos/{id}.jpg."""
    return template.partition("{")[0].rpartition("/")[0] or "."


def _some(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
