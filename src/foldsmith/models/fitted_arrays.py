"""Fitted things as named arrays, and the files that hold them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from foldsmith.errors import OutputError, one_line
from foldsmith.utils.atomic import replacing

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# Name -> array; names of parts that are made of parts are joined by dots.
Arrays = dict[str, npt.NDArray[Any]]


class ArrayFields:
    """A dataclass whose fields are arrays and numbers, which ``cls(**arrays)`` makes again."""

    def arrays(self: "DataclassInstance") -> Arrays:
        """Return the fields by name; numbers have the shape ()."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}


def prefixed(name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """Return arrays as those of a part of this name."""
    return {f"{name}.{key}": value for key, value in arrays.items()}


def part(arrays: Mapping[str, npt.NDArray[Any]], name: str) -> Arrays:
    """Return the arrays whose names begin with ``name.``, without this prefix."""
    start = f"{name}."
    return {key[len(start) :]: value for key, value in arrays.items() if key.startswith(start)}


# Key of the checksum in a file's metadata. It is the only one: safetensors writes several in an
# order that differs from process to process.
_CHECKSUM = "sha256"


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays as safetensors, with a checksum of names, types, shapes and values."""
    from safetensors.numpy import save_file

    content = {key: np.asarray(value, order="C") for key, value in arrays.items()}
    with replacing(path) as temporary:
        save_file(content, temporary, metadata={_CHECKSUM: _digest(content)})


def read_arrays(path: Path) -> Arrays:
    """Read a file written by :func:`write_arrays`.

    Raises:
        OutputError: The file is missing, damaged, or something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            checksum = (file.metadata() or {}).get(_CHECKSUM)
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise OutputError(f"{path}: no such file") from None
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{path}: not a readable safetensors file: {one_line(error)}") from None
    if checksum != _digest(arrays):
        raise OutputError(f"{path}: is damaged: its checksum does not match")
    return arrays


def _digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return the SHA-256 of arrays, whatever their order."""
    digest = hashlib.sha256()
    for key, value in sorted(arrays.items()):
        digest.update(json.dumps([key, value.dtype.str, value.shape]).encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()
