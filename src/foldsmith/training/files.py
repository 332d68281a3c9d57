"""Names of the files that a training leaves in its output folder, and reading its log."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

# The log: one JSON list, one entry per epoch.
LOG_FILE: Final = "log.json"

# How far the training is.
PROGRESS_FILE: Final = "progress.json"

# Scores of the backbones of a pretraining.
PROBES_FILE: Final = "probes.csv"

# Everything that a training needs to go on.
RESUME_FILE: Final = "resume.pth"

# Key of the resume snapshot: name of the training's step, and hash of its inputs.
BELONGS_TO: Final = "belongs_to"

# The name under which a logger lists this training, so that a resumed one goes on there too.
LOGGED_RUNS: Final = "logged_runs.json"

# Folder of TensorBoard's event files; a training that begins anew removes the files in it.
EVENTS: Final = "tensorboard"

# Owner of the files that extensions write, see :mod:`foldsmith.utils.owned_files`.
TRAINING: Final = "training"


def entries_of(folder: Path) -> list[dict[str, Any]]:
    """Return the log entries of a training in its output folder; empty if there is no log."""
    try:
        entries: list[dict[str, Any]] = json.loads((folder / LOG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return entries


def validated_entries(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries of the epochs that were validated, as ``globals/validations`` has it."""
    return [entry for entry in log if "val/metric" in entry]
