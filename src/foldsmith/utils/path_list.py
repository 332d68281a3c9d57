"""Very many paths, without an object for each."""

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import overload

import numpy as np
import numpy.typing as npt

# Of a table may come what no file can be called; that is said when it is looked for.
_ANY = "surrogatepass"


class Paths(Sequence[Path]):
    """Paths as one piece of text: a ``Path`` is made when it is asked for.

    A million ``Path`` objects take some 400 MB, and loader processes would come to copy them, since
    looking at an object counts its references. Here a path takes the bytes of its name and 16 more.

    Args:
        root: Folder that the names are relative to; None: the working directory.
        names: The paths below it, or absolute.
    """

    def __init__(self, root: Path | None, names: Iterable[str]) -> None:
        text, ends = bytearray(), array("q", [0])
        for name in names:
            text += _normal(name, root).encode("utf-8", _ANY)
            ends.append(len(text))
        edges = np.frombuffer(ends, np.int64)
        self.root = root
        self._text = bytes(text)
        self._starts, self._ends = edges[:-1], edges[1:]

    @staticmethod
    def of(paths: Sequence[Path]) -> "Paths":
        """Return a sequence of paths in this form."""
        return paths if isinstance(paths, Paths) else Paths(None, map(str, paths))

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> "Paths": ...

    def __getitem__(self, index: int | slice) -> "Path | Paths":
        if isinstance(index, slice):
            return self._part(index)
        name = self._text[self._starts[index] : self._ends[index]].decode("utf-8", _ANY)
        return Path(name) if self.root is None else self.root / name

    def __iter__(self) -> Iterator[Path]:
        return map(Path, self.texts())

    def __add__(self, other: "Paths") -> "Paths":
        assert self.root == other.root, "paths below different folders"
        joined = self._part(slice(None))
        joined._text = self._text + other._text
        joined._starts = np.concatenate([self._starts, other._starts + len(self._text)])
        joined._ends = np.concatenate([self._ends, other._ends + len(self._text)])
        return joined

    def take(self, rows: npt.NDArray[np.int64]) -> "Paths":
        """Return some of the paths, by their positions."""
        return self._part(rows)

    def names(self) -> Iterator[str]:
        """Yield the names, as they are relative to ``root``."""
        for start, end in zip(self._starts, self._ends, strict=True):
            yield self._text[start:end].decode("utf-8", _ANY)

    def texts(self) -> Iterator[str]:
        """Yield the paths as text."""
        if self.root is None:
            return self.names()
        root = str(self.root)
        return (os.path.join(root, name) for name in self.names())

    def all_plainly_below(self, folder: str) -> bool:
        """Return whether all names begin with a folder, and nothing in them may lead out of it.

        Args:
            folder: Relative to ``root``, with a slash at its end; empty for the root itself.
        """
        if b".." in self._text or b"\\" in self._text:
            return False
        start = folder.encode("utf-8", _ANY)
        if (self._ends - self._starts <= len(start)).any():
            return False
        text = np.frombuffer(self._text, np.uint8)
        if not start:
            return not (text[self._starts] == ord("/")).any()
        return all((text[self._starts + k] == byte).all() for k, byte in enumerate(start))

    def sha256(self) -> str:
        """Return the SHA-256 of the paths."""
        digest = hashlib.sha256(f"{self.root}\0{len(self)}\0".encode("utf-8", _ANY))
        for part in (self._starts.tobytes(), self._ends.tobytes(), self._text):
            digest.update(part)
        return digest.hexdigest()

    def _part(self, rows: "slice | npt.NDArray[np.int64]") -> "Paths":
        part = object.__new__(Paths)
        part.root, part._text = self.root, self._text
        part._starts, part._ends = self._starts[rows], self._ends[rows]
        return part


def _normal(name: str, root: Path | None) -> str:
    """Return a name as ``Path`` would write it, relative to the root if it is below that."""
    odd = "//" in name or "/." in name or name[:1] in ("", ".", "/") or name[-1] == "/"
    if not odd and os.name != "nt":
        return name
    path = PurePath(name)
    return str(path.relative_to(root) if root and path.is_relative_to(root) else path)
