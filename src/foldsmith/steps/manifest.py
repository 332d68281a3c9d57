"""The manifest of a finished step: its inputs and outputs.

A step is done when its manifest names the inputs of today. Inputs are content: hashes of files
and values, never times, so that an edited comment or a touched file makes nothing stale.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from foldsmith import __version__
from foldsmith.distributed import process_group
from foldsmith.errors import OutputError
from foldsmith.utils.atomic import write_json
from foldsmith.utils.hashing import FileHashes, hash_file, hash_value
from foldsmith.utils.owned_files import OwnedFiles

MANIFEST = "manifest.json"

# Inputs of a training that was begun and not finished, beside its resume snapshot.
UNFINISHED = "unfinished.json"

# Manifest of preprocess, in the data folder.
PREPROCESS_MANIFEST = "preprocess_manifest.json"

# Key of a manifest's own checksum.
_CHECKSUM = "sha256"

# Name of an input -> a hash, or a dict of plain values that are compared one by one.
Inputs = dict[str, Any]


@dataclass
class Manifest:
    """Inputs and outputs of a step.

    Attributes:
        step: Name of the step, for people.
        inputs: Everything that the outputs depend on.
        outputs: File name, relative to the manifest's folder -> SHA-256.
        facts: Other properties: versions, seed, device, seconds, scores.
    """

    step: str
    inputs: Inputs
    outputs: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def read_manifest(path: Path) -> Manifest | None:
    """Return a manifest; None if there is none, or it is damaged or foldsmith did not write it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if _CHECKSUM in content and _with_checksum(content) != content:
            return None
        return Manifest(
            str(content["step"]),
            dict(content["inputs"]),
            dict(content["outputs"]),
            dict(content["facts"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def why_unread(path: Path) -> str:
    """Return why :func:`read_manifest` gave None, for an error that begins with the path."""
    return "is damaged" if path.is_file() else "no such file"


def write_manifest(
    path: Path,
    step: str,
    inputs: Inputs,
    outputs: list[Path],
    file_hashes: FileHashes,
    **facts: Any,
) -> None:
    """Write the manifest of a step; call it when all the outputs are written.

    Args:
        path: The manifest, in the folder of the outputs.
        step: Name of the step.
        inputs: Its inputs, from before it began.
        outputs: The files it made.
        file_hashes: Hashes of files.
        **facts: seed, device, wall_s, scores, ...
    """
    import torch  # takes seconds, and reading a manifest needs none of it

    versions = {"foldsmith": __version__, "torch": torch.__version__, "timm": version("timm")}
    finished = datetime.now().astimezone().isoformat(timespec="seconds")
    hashes = zip(outputs, file_hashes.of_all(outputs), strict=True)
    made = {str(file.relative_to(path.parent)): digest for file, digest in hashes}
    cores = torch.get_num_threads() * process_group.size()
    # All that is foldsmith's in the folder, should the list of it be lost.
    files = sorted(set(OwnedFiles(path.parent).of()) - {*made, path.name})
    facts = {"versions": versions, "finished": finished, "cores": cores, "files": files, **facts}
    write_json(path, _with_checksum(asdict(Manifest(step, normalised(inputs), made, facts))))
    file_hashes.save()


def _with_checksum(content: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in content.items() if key != _CHECKSUM}
    return rest | {_CHECKSUM: hash_value(json.loads(json.dumps(rest)))}


def rewrite_outputs(path: Path, manifest: Manifest, outputs: Mapping[str, str]) -> None:
    """Write a manifest again with the hashes of other outputs, which change no result.

    Args:
        path: The manifest.
        manifest: Its content.
        outputs: File name -> SHA-256.
    """
    write_json(path, _with_checksum(asdict(replace(manifest, outputs=dict(outputs)))))


def verified(
    path: Path, manifest: Manifest, remedy: str = "'foldsmith run' makes it again"
) -> Path:
    """Return the path of an output after checking that it is unchanged.

    Args:
        path: A file in the folder of the manifest.
        manifest: Manifest of the step.
        remedy: End of an error: the command that writes the file again.

    Raises:
        OutputError: The file is missing, was changed, or was never written by the step.
    """
    try:
        changed = hash_file(path) != manifest.outputs.get(path.name)
    except FileNotFoundError:
        raise OutputError(f"{path}: no such file; {remedy}") from None
    except IsADirectoryError:
        raise OutputError(f"{path}: is a folder, not the file that was written; {remedy}") from None
    if changed:
        raise OutputError(f"{path}: was changed since '{manifest.step}' wrote it; {remedy}")
    return path


def normalised(inputs: Inputs) -> Inputs:
    """Return inputs as they are when they were written and read again; adds their hash."""
    plain: Inputs = json.loads(json.dumps(inputs))
    return plain | {"sha256": hash_value({k: v for k, v in plain.items() if k != "sha256"})}


def differences(old: Inputs, new: Inputs) -> list[str]:
    """Return the changes between two inputs of a step, for people; empty if equal.

    Args:
        old: From a manifest.
        new: As today's files give them.
    """
    old, new = normalised(old), normalised(new)
    if old["sha256"] == new["sha256"]:
        return []
    changed = []
    for name in sorted((old.keys() | new.keys()) - {"sha256"}):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            keys = sorted(before.keys() | after.keys())
            for key in keys:
                if before.get(key) != after.get(key):
                    values = f"{_brief(before.get(key))} -> {_brief(after.get(key))}"
                    where = key if name == "config" else f"{name}: {key}"
                    changed.append(where if name == "files" else f"{where} {values}")
        else:
            changed.append(f"{name} changed")
    return changed


def changed_outputs(folder: Path, manifest: Manifest, file_hashes: FileHashes) -> dict[str, str]:
    """Return name -> state of missing or changed outputs."""
    digests = file_hashes.of_all(folder / name for name in manifest.outputs)
    found = zip(manifest.outputs.items(), digests, strict=True)
    return {
        name: f"{name} is gone" if digest == "missing" else f"{name} was changed"
        for (name, made), digest in found
        if digest != made
    }


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds, to the millisecond."""
        return round(time.perf_counter() - self._started, 3)


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."
