"""The folder of an export: whose it is, and how it is replaced."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foldsmith.errors import OutputError
from foldsmith.utils.atomic import recover_folder, replacing_folder
from foldsmith.utils.owned_files import OwnedFiles, is_empty

_STEP = "export"


def check_export_folder(folder: Path, force: bool) -> None:
    """Make sure that an export may be written into a folder; nothing in it is changed.

    Args:
        folder: Where to.
        force: Whether an earlier export may be replaced.

    Raises:
        OutputError: It holds something else than an earlier export, or ``force`` is missing.
    """
    recover_folder(folder)
    if is_empty(folder):
        return
    if not folder.is_dir():
        raise OutputError(f"{folder}: is there already, and is no folder; name another one")
    owned = OwnedFiles(folder)
    others = owned.others()
    if not owned.of(_STEP):
        raise OutputError(f"{folder}: holds other files, and no export; name a folder of its own")
    if others:
        some = f"{', '.join(others[:3])}{', ...' if len(others) > 3 else ''}"
        raise OutputError(
            f"{folder}: holds other files beside an export ({some}); move them elsewhere, or name "
            "another folder"
        )
    if not force:
        raise OutputError(f"{folder}: holds an export already; add -f to replace it")


@contextmanager
def exported_to(folder: Path) -> Iterator[Path]:
    """Yield a new folder that takes the place of ``folder`` when all is in it.

    Args:
        folder: The folder, as :func:`check_export_folder` has let pass. Links are followed.

    Yields:
        The folder to write into.
    """
    folder = folder.resolve()
    with replacing_folder(folder) as begun:
        yield begun
        written = [path for path in begun.rglob("*") if path.is_file()]
        names = [path.relative_to(begun).as_posix() for path in written]
        OwnedFiles(begun).record(names, _STEP, written=True)
        # Files that desktops and version control create in a folder.
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name.startswith("."):
                copy = shutil.copytree if path.is_dir() else shutil.copy2
                copy(path, begun / path.name)
