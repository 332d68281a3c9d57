"""The results of a part, on disk as soon as they are measured."""

import json
import os
from pathlib import Path
from typing import Any, TextIO


class Figures:
    """What a part has measured so far; its file is written anew after every measurement.

    Args:
        path: The JSON file: ``measured``, a row for each measurement; ``table``, lines for people.
    """

    # Where lines are printed, while a part sends the output of runs elsewhere.
    screen: TextIO | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content: dict[str, list[Any]] = {"measured": [], "table": []}
        write(path, self._content)

    def add(self, **row: Any) -> None:
        """Keep a measurement."""
        self._content["measured"].append(row)
        write(self._path, self._content)

    def line(self, text: str) -> None:
        """Print a line, which the table in the end repeats."""
        self._content["table"].append(text)
        write(self._path, self._content)
        print(f"  {text}", flush=True, file=self.screen)


def write(path: Path, content: Any) -> None:
    """Write JSON; a reader finds the file as it was before or as it is after, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def read(path: Path) -> dict[str, Any]:
    """Return the content of a file of results; empty if a part has written none."""
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
