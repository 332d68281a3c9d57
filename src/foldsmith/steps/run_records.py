"""The records of a run in its output folder: the resolved experiment, and copies of its files."""

import os
from pathlib import Path

from foldsmith.config import Experiment
from foldsmith.config.output_path import claimant
from foldsmith.errors import ConfigError, OutputError
from foldsmith.project import ProjectFolder
from foldsmith.project.project_file import PROJECT_FILE
from foldsmith.steps.manifest import MANIFEST, changed_outputs, read_manifest, rewrite_outputs
from foldsmith.utils.atomic import copy_file, remove_leftovers, write_text
from foldsmith.utils.hashing import FileHashes
from foldsmith.utils.owned_files import OwnedFiles

RESOLVED_CONFIG = "resolved_config.yml"
SOURCES = Path("sources")


def open_run(
    run: Path, project: Path | str | None, trust: bool = False
) -> tuple[ProjectFolder, Path]:
    """Return the project of a finished run, and the run's absolute path.

    Args:
        run: Its output folder.
        project: The project folder, which ``run`` is relative to then; None takes the one that
            the run lies in.
        trust: Run the Python that the project brings, if it does.

    Raises:
        ConfigError: There is no project, its file is wrong, or it brings Python that was not
            accepted.
    """
    if project is not None:
        opened = ProjectFolder.open(project, trust=trust)
        return opened, opened.path(run)
    # Links are not followed: a linked output folder lies in the project still.
    root = Path(os.path.abspath(run))
    for folder in root.parents:
        if (folder / PROJECT_FILE).is_file():
            return ProjectFolder.open(folder, trust=trust), root
    raise ConfigError(
        f"{root}: lies in no project (a folder with {PROJECT_FILE}); name the project's folder "
        "with --project"
    )


def read_resolved(project: ProjectFolder, root: Path) -> Experiment:
    """Return the experiment that a run has left in its output folder.

    Raises:
        OutputError: There is none.
    """
    path = root / RESOLVED_CONFIG
    if not path.is_file():
        raise OutputError(f"{root}: no {RESOLVED_CONFIG}; is it the output folder of a run?")
    return Experiment.load(project, path)


def name_of(experiment: Experiment) -> str:
    """Return the name of an experiment: the name of its file without the suffix.

    An experiment that was read from an output folder is named by the folder, relative to the
    project.
    """
    file = experiment.file
    if file.name != RESOLVED_CONFIG:
        return file.stem
    folder, project = file.parent, experiment.project.folder
    return str(folder.relative_to(project) if folder.is_relative_to(project) else folder)


def save_sources(folder: Path, experiment: Experiment, step: str) -> list[Path]:
    """Write the resolved experiment and copies of the files it came from.

    ``resolved_config.yml`` is the experiment with imports and overrides applied; ``sources`` holds
    the experiment file and its imports, the project file and the project's own Python. The list
    of the folder's files gets them, and the experiment whose output folder it is.

    Args:
        folder: The folder, which is locked.
        experiment: The experiment.
        step: Name under which the files are listed.

    Returns:
        The files.

    Raises:
        OutputError: A file that foldsmith did not write is in the way.
    """
    root = experiment.project.folder
    copies = {}
    for source in dict.fromkeys([*experiment.sources, *experiment.project.source_files]):
        path = source.resolve()
        # Files of the project keep their place in it; recipes of the package come beside them.
        inside = path.relative_to(root) if path.is_relative_to(root) else Path("recipes", path.name)
        copies[(SOURCES / inside).as_posix()] = path
    folder.mkdir(parents=True, exist_ok=True)
    for place in {folder, *((folder / name).parent for name in copies)}:
        remove_leftovers(place)  # of a process that was killed here
    owned = OwnedFiles(folder)
    owned.record([RESOLVED_CONFIG, *copies], step)
    owned.claim(claimant(experiment))
    owned.remove([n for n in owned.of() if Path(n).is_relative_to(SOURCES) and n not in copies])
    write_text(folder / RESOLVED_CONFIG, experiment.dump())
    for name, path in copies.items():
        copy_file(path, folder / name)
    return [folder / RESOLVED_CONFIG, *(folder / name for name in copies)]


def is_record(name: str) -> bool:
    """Return whether an output is a record of how a step was run, which no step reads."""
    return name == RESOLVED_CONFIG or Path(name).parts[0] == str(SOURCES)


def restore_records(folder: Path, experiment: Experiment, hashes: FileHashes) -> None:
    """Write the records of a finished training again, if they are missing or were changed.

    Args:
        folder: Output folder of the training, which is locked.
        experiment: Its experiment; keys that change no result may have changed since.
        hashes: Hashes of files.
    """
    manifest = read_manifest(folder / MANIFEST)
    if manifest is None or not any(map(is_record, changed_outputs(folder, manifest, hashes))):
        return
    save_sources(folder, experiment, manifest.step.split()[0])
    records = [name for name in manifest.outputs if is_record(name)]
    digests = dict(zip(records, hashes.of_all(folder / name for name in records), strict=True))
    kept = {name: digest for name, digest in digests.items() if digest != "missing"}
    others = {name: digest for name, digest in manifest.outputs.items() if not is_record(name)}
    rewrite_outputs(folder / MANIFEST, manifest, others | kept)
