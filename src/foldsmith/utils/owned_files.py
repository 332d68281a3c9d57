"""Which files of a folder are foldsmith's: those on the list in it, and no others.

Output folders may contain files of the user. The list, ``foldsmith.json``, names each file that
foldsmith has written into a folder, or was about to write when it was killed. Files that are not
on the list are never replaced and never removed.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from foldsmith.errors import OutputError
from foldsmith.utils.atomic import write_json
from foldsmith.utils.hashing import hash_value

FILES_LIST = "foldsmith.json"

# Where the names stand too, should the list be lost or damaged.
_MANIFESTS = {
    FILES_LIST: ("manifest*.json", "unfinished.json", "features.json"),
    "preprocess_files.json": ("preprocess_manifest.json",),
}


class OwnedFiles:
    """The files in one folder that foldsmith wrote.

    Nothing is kept in memory: every call reads the list, so that all objects of one folder agree.
    Whoever changes a folder holds its lock (:func:`foldsmith.utils.locking.lock`).

    Args:
        folder: The folder; it need not exist.
        list_name: Name of the list in it.
    """

    def __init__(self, folder: Path, list_name: str = FILES_LIST) -> None:
        self.folder = folder
        self.list_name = list_name

    @property
    def steps(self) -> dict[str, str]:
        """Name of each file, relative to the folder -> the step that writes it, as in ``train``."""
        return dict(self._read()["files"])

    @property
    def experiment(self) -> str | None:
        """The experiment file whose output folder this is, as :meth:`claim` was given it."""
        found: str | None = self._read()["experiment"]
        return found

    @property
    def exist(self) -> bool:
        """Whether there is a list, or a manifest: whether foldsmith has worked in the folder."""
        return _content_of(self.folder / self.list_name) is not None or bool(self.steps)

    def of(self, *steps: str) -> list[str]:
        """Return the names of the files of some steps; of all if none is named."""
        return [name for name, step in self.steps.items() if not steps or step in steps]

    def claim(self, experiment: str) -> None:
        """Note the experiment file whose output folder this is; make the folder if need be."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = self._read()
        if content["experiment"] != experiment:
            self._write(content | {"experiment": experiment})

    def record(self, names: Iterable[str], step: str, written: bool = False) -> None:
        """Put files on the list; to be called before they are written.

        Args:
            names: Names, relative to the folder.
            step: Whose files they are, as in ``train``.
            written: Whether they are there already: a library has written them for foldsmith,
                under names that it chose.

        Raises:
            OutputError: One exists that foldsmith did not write; nothing is changed.
        """
        content = self._read()
        known = content["files"]
        names = [PurePosixPath(name).as_posix() for name in names]
        if not written:
            self.refuse_others(names)
        new = {name: step for name in names if known.get(name) != step}
        # A list that was lost is written anew too, before the manifests that have its names go.
        if new or _content_of(self.folder / self.list_name) is None:
            self._write(content | {"files": known | new})

    def refuse_others(self, names: Iterable[str]) -> None:
        """Make sure that files may be written.

        Raises:
            OutputError: One exists that foldsmith did not write.
        """
        known = self.steps
        for name in names:
            if name not in known and os.path.lexists(self.folder / name):
                raise OutputError(
                    f"{self.folder / name}: is there already, and foldsmith did not write it; "
                    "move it elsewhere and run the command again"
                )

    def path(self, name: str, step: str) -> Path:
        """Put one file on the list, as :meth:`record`; return its path, to be written to."""
        self.record([name], step)
        return self.folder / name

    def remove(self, names: Iterable[str]) -> list[str]:
        """Remove files that are on the list, and take them off it.

        Args:
            names: Names, relative to the folder; files that are not on the list stay.

        Returns:
            The files that were there.
        """
        content = self._read()
        known = content["files"]
        chosen = [name for name in names if name in known]
        removed = []
        for name in chosen:
            path = self.folder / name
            if _is_file(path) and not _through_link(self.folder, name):
                path.unlink(missing_ok=True)
                removed.append(name)
        self._remove_empty(removed)
        if chosen:
            left = {name: step for name, step in known.items() if name not in set(chosen)}
            self._write(content | {"files": left})
        return removed

    def forget_missing(self) -> None:
        """Remove missing files from the list."""
        content = self._read()
        there = {k: v for k, v in content["files"].items() if os.path.lexists(self.folder / k)}
        if there != content["files"]:
            self._write(content | {"files": there})

    def others(self) -> list[str]:
        """Return the files in the folder that are not on the list, but hidden ones."""
        known = set(self.steps) | {self.list_name}
        return [name for name in _files_in(self.folder) if name not in known]

    def _remove_empty(self, names: Sequence[str]) -> None:
        """Remove the folders that these files were in, if nothing else is."""
        parents = {parent for name in names for parent in PurePosixPath(name).parents}
        for parent in sorted(parents - {PurePosixPath(".")}, reverse=True):
            with suppress(OSError):
                (self.folder / parent).rmdir()

    def _read(self) -> dict[str, Any]:
        """Return the list; if it is lost or damaged, the files named in the folder's manifests."""
        content = _content_of(self.folder / self.list_name)
        if content is not None:
            return content
        found: dict[str, str] = {}
        for pattern in _MANIFESTS.get(self.list_name, ()):
            for path in sorted(self.folder.glob(pattern)):
                found |= _named_by(path)
        return {"experiment": None, "files": found}

    def _write(self, content: dict[str, Any]) -> None:
        plain = {
            "experiment": content["experiment"],
            "files": dict(sorted(content["files"].items())),
        }
        write_json(self.folder / self.list_name, plain | {"sha256": hash_value(plain)})


def is_empty(folder: Path) -> bool:
    """Return whether a folder does not exist or holds nothing but hidden files."""
    if not os.path.lexists(folder):
        return True
    return folder.is_dir() and all(path.name.startswith(".") for path in folder.iterdir())


def _content_of(path: Path) -> dict[str, Any] | None:
    """Return a list; None if there is none, or it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        plain = {"experiment": content["experiment"], "files": dict(content["files"])}
        sound = content["sha256"] == hash_value(plain)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not sound:
        return None
    files = {str(name): str(step) for name, step in plain["files"].items() if _inside(str(name))}
    return plain | {"files": files}


def _named_by(manifest: Path) -> dict[str, str]:
    """Return the files that a manifest names, itself included -> the first word of its step."""
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        step = str(content["step"]).split()[0]
        names = [*content["outputs"], *content["facts"].get("files", ())]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return {}
    return {str(name): step for name in (manifest.name, *names) if _inside(str(name))}


def _inside(name: str) -> bool:
    """Return whether a name stays in its folder: lists travel with folders, from anywhere."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _is_file(path: Path) -> bool:
    return path.is_symlink() or path.is_file()


def _through_link(folder: Path, name: str) -> bool:
    """Return whether a parent folder of a file is a link; files behind links are not ours."""
    parents = [parent for parent in PurePosixPath(name).parents if parent.parts]
    return any((folder / parent).is_symlink() for parent in parents)


def _files_in(folder: Path) -> Iterator[str]:
    for where, folders, files in os.walk(folder):
        # Python's caches beside imported files belong to no user.
        shown = (name for name in folders if not name.startswith(".") and name != "__pycache__")
        folders[:] = sorted(shown)
        for name in sorted(files):
            if not name.startswith("."):
                yield (Path(where) / name).relative_to(folder).as_posix()
