"""The output folder of a training: claiming it, its state, and continuing in it."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from foldsmith.distributed import process_group
from foldsmith.errors import ConfigError, DataError, OutputError
from foldsmith.steps.manifest import (
    MANIFEST,
    UNFINISHED,
    Inputs,
    Manifest,
    differences,
    normalised,
    read_manifest,
)
from foldsmith.steps.run_records import SOURCES
from foldsmith.steps.status import Status
from foldsmith.training.files import (
    BELONGS_TO,
    EVENTS,
    LOG_FILE,
    LOGGED_RUNS,
    PROBES_FILE,
    PROGRESS_FILE,
    RESUME_FILE,
    TRAINING,
)
from foldsmith.utils.atomic import remove_leftovers, write_json
from foldsmith.utils.hashing import hash_value
from foldsmith.utils.locking import lock
from foldsmith.utils.owned_files import OwnedFiles, is_empty

# Records the inputs of a training started with `-f`, until it replaces the results in the folder.
TO_REPLACE = "to_replace.json"

# Files of each running training. Extensions write others through its manager, and the logger of
# TensorBoard records the names of its event files itself.
_RUNNING = (
    *(MANIFEST, UNFINISHED, TO_REPLACE, LOG_FILE, PROBES_FILE, PROGRESS_FILE, RESUME_FILE),
    LOGGED_RUNS,
)

# Treatment of an existing folder: refuse it, replace an earlier training, resume it, or (in
# `foldsmith run`) whichever is needed.
Start = Literal["new", "force", "resume", "auto"]


def shown(path: Path) -> str:
    """Return a path as it is printed: relative to the working folder if it is below it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def refuse_existing(folder: Path, resumable: bool = True) -> None:
    """Make sure that a folder is not there, or empty.

    Args:
        folder: The folder.
        resumable: Whether the command has ``--resume``.

    Raises:
        OutputError: There is something in it.
    """
    if not is_empty(folder):
        resume = ", or --resume to go on" if resumable else ""
        raise OutputError(f"{folder}: exists already; add -f to replace its contents{resume}")


def state_of(
    folder: Path,
    inputs: Inputs,
    more_epochs: bool = False,
    compared: Callable[[Inputs], Inputs] = dict,
) -> tuple[Status, list[str]]:
    """Return how far a training is with these inputs.

    Args:
        folder: Its output folder.
        inputs: Its inputs today.
        more_epochs: Whether a finished training may be continued to a later epoch.
        compared: Returns the inputs that must be the same for a finished training to be done.

    Returns:
        ``DONE``, ``STARTED`` (it continues), or ``STALE`` or ``TO_DO`` (it begins anew); and the
        inputs that have changed since it was run, if that is why it begins anew.
    """
    finished = read_manifest(folder / MANIFEST)
    if finished is not None:
        changed = differences(compared(finished.inputs), compared(inputs))
        if not changed:
            return Status.DONE, []
        if more_epochs and _only_longer(finished, inputs) and (folder / RESUME_FILE).is_file():
            return Status.STARTED, []
        return Status.STALE, changed
    begun = read_manifest(folder / UNFINISHED)
    if begun is None:
        return Status.TO_DO, []
    changed = differences(begun.inputs, inputs)
    if not changed and (folder / RESUME_FILE).is_file():
        return Status.STARTED, []
    return Status.TO_DO, changed


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a folder for a training until the block ends; its main process does, as :func:`lock`.

    Raises:
        OutputError: Another training holds it.
    """
    with ExitStack() as held:
        with process_group.main_first():
            if process_group.is_main():
                held.enter_context(lock(folder))
        yield


def start_in(folder: Path, start: Start) -> Start:
    """Return how a training starts in its folder: the first time, as its command asks.

    Processes that torchrun restarts have the same command as before, so they continue a training
    that they began, and keep one that they finished.
    """
    manifests = (read_manifest(folder / name) for name in (MANIFEST, UNFINISHED))
    before = {one for each in manifests if each for one in each.facts.get("started_by", ())}
    return "auto" if before & set(process_group.started_by()) else start


def decide(folder: Path, inputs: Inputs, start: Start, more_epochs: bool = False) -> Status:
    """Return how far a training is that is started in this way; nothing is changed yet.

    Raises:
        OutputError: The folder exists and ``start`` is ``new``, or there is nothing in it that
            could be resumed.
    """
    if start == "new":
        refuse_existing(folder)
    if start in ("new", "force") or (start == "resume" and _to_replace(folder, inputs)):
        return Status.TO_DO
    state, changed = state_of(folder, inputs, more_epochs)
    if start == "resume" and changed:
        raise OutputError(
            f"{folder}: was run with other inputs: {'; '.join(changed[:5])}. Restore them to go "
            "on, or start anew with -f"
        )
    return state


def note_replacement(folder: Path, inputs: Inputs) -> None:
    """Record that a training with these inputs may replace the results in its folder.

    The earlier results stay until the end of the first epoch. If the training is stopped before,
    ``--resume`` starts it again because of this record, and does not take the earlier results for
    its own.

    Args:
        folder: The folder.
        inputs: Inputs of the training.

    Raises:
        OutputError: A file that foldsmith did not write is in the way, or another process holds the
            folder.
    """
    if any((folder / name).exists() for name in (MANIFEST, RESUME_FILE)):
        with lock(folder):
            path = OwnedFiles(folder).path(TO_REPLACE, TRAINING)
            write_json(path, {"inputs": normalised(inputs)["sha256"]})


def _to_replace(folder: Path, inputs: Inputs) -> bool:
    """Return whether :func:`note_replacement` was called for a training with these inputs."""
    try:
        noted = json.loads((folder / TO_REPLACE).read_text(encoding="utf-8"))["inputs"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(noted == normalised(inputs)["sha256"])


def check_unchanged(before: Inputs, now: Inputs, folder: Path) -> None:
    """Check that the inputs of a training have not changed since its components were built.

    Raises:
        DataError: Something has changed meanwhile.
    """
    changed = differences(before, now)
    if changed:
        raise DataError(
            f"{folder}: its inputs were changed meanwhile ({'; '.join(changed[:5])}); "
            "run the command again"
        )


def open_folder(folder: Path) -> bool:
    """Make a folder that a training writes to, and reserve the names of its files.

    Args:
        folder: The folder, which is locked; its contents stay.

    Returns:
        Whether an earlier training has left something there.

    Raises:
        OutputError: A file that foldsmith did not write is in the way.
    """
    folder.mkdir(parents=True, exist_ok=True)
    OwnedFiles(folder).record(_RUNNING, TRAINING)
    return any((folder / name).exists() for name in (MANIFEST, RESUME_FILE))


def prepare(folder: Path, step: str, inputs: Inputs, status: Status) -> None:
    """Make a folder ready for a training; files of an earlier one are removed unless it continues.

    Args:
        folder: The folder, which is locked.
        step: Name of the step.
        inputs: Inputs of the training.
        status: ``STARTED`` if it continues; else it begins anew.

    Raises:
        OutputError: A file that foldsmith did not write is in the way.
    """
    earlier = OwnedFiles(folder).of()
    open_folder(folder)
    remove_leftovers(folder)
    owned = OwnedFiles(folder)
    # First, so that whatever happens next, nothing here is taken for finished.
    (folder / MANIFEST).unlink(missing_ok=True)
    if status != Status.STARTED:
        # Keep the progress file of this training.
        owned.remove([UNFINISHED, *(name for name in earlier if name != PROGRESS_FILE)])
        owned.record(_RUNNING, TRAINING)
    write_json(
        folder / UNFINISHED,
        {
            **{"step": step, "inputs": normalised(inputs), "outputs": {}},
            "facts": {"started_by": process_group.started_by(), "files": sorted(_RUNNING)},
        },
    )


def outputs_of(folder: Path) -> list[Path]:
    """Return the files of a training that are read again, for its manifest."""
    transient = {*_RUNNING} - {LOG_FILE, PROBES_FILE}
    names = sorted(set(OwnedFiles(folder).of()) - transient)
    # Curves and copies of sources are for people: their loss makes nothing stale.
    shown_only = (EVENTS, SOURCES)
    kept = [n for n in names if not any(Path(n).is_relative_to(part) for part in shown_only)]
    return [folder / n for n in kept if not n.endswith(".png") and (folder / n).is_file()]


def owner_of_resume(step: str, inputs: Inputs) -> dict[str, str]:
    """Return the identity of a training in its resume snapshot.

    A training without a schedule may go on to a later epoch than it was begun for: the number of
    epochs is no part of its name.

    Args:
        step: Name of the step.
        inputs: Inputs of the training.
    """
    config = dict(inputs["config"])
    if _without_schedule(inputs):
        config.pop("globals/max_epoch", None)
    return {
        "step": step,
        "inputs": hash_value(json.loads(json.dumps({**inputs, "config": config}))),
    }


def read_resume(folder: Path, belongs_to: Mapping[str, str]) -> dict[str, Any]:
    """Read the resume snapshot of an unfinished training.

    Args:
        folder: Output folder of the training.
        belongs_to: As :func:`owner_of_resume` returns it.

    Raises:
        OutputError: It is damaged, which a killed training cannot do to it, or it is the file of
            another training.
    """
    from foldsmith.models.snapshots import read_snapshot  # imports torch

    path = folder / RESUME_FILE
    anew = "delete it to start this training anew"
    try:
        state = read_snapshot(path)
    except ConfigError as error:
        raise OutputError(f"{error}; {anew}") from None
    owner = state.pop(BELONGS_TO, None) if isinstance(state, dict) else None
    if not isinstance(owner, dict):
        raise OutputError(f"{path}: is no file to continue a training from; {anew}")
    if owner.get("inputs") != belongs_to["inputs"]:
        raise OutputError(
            f"{path}: belongs to another training ('{owner.get('step')}', with other inputs than "
            f"'{belongs_to['step']}' has); put the right file back, or {anew}"
        )
    found: dict[str, Any] = state
    return found


def clean_up(folder: Path, *, keep_resume: bool) -> None:
    """Remove files that only an unfinished training needs, after the manifest was written."""
    owned = OwnedFiles(folder)
    owned.remove(_left_over(keep_resume))
    owned.forget_missing()
    remove_leftovers(folder)


def tidy(folder: Path, *, keep_resume: bool) -> None:
    """Remove leftovers of a finished training that was killed after its last file."""
    left_over = _left_over(keep_resume)
    if any(name in left_over or not (folder / name).exists() for name in OwnedFiles(folder).of()):
        with lock(folder):
            clean_up(folder, keep_resume=keep_resume)


def _left_over(keep_resume: bool) -> list[str]:
    return [UNFINISHED, TO_REPLACE, PROGRESS_FILE, *([] if keep_resume else [RESUME_FILE])]


def _only_longer(finished: Manifest, inputs: Inputs) -> bool:
    """Return whether only the number of epochs has grown, under a constant learning rate."""
    config = dict(finished.inputs["config"])
    before, now = config.get("globals/max_epoch"), inputs["config"].get("globals/max_epoch")
    longer = finished.inputs | {"config": config | {"globals/max_epoch": now}}
    return _without_schedule(inputs) and before < now and not differences(longer, inputs)


def _without_schedule(inputs: Inputs) -> bool:
    return inputs["config"].get("scheduler", 0) is None
