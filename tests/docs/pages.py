"""The README and the pages of the documentation, as tests read them."""

import re
from dataclasses import dataclass
from pathlib import Path

from bundled import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", *sorted(DOCS.glob("*.md"))]

SHELLS = ("sh", "bash", "shell", "console")
_FENCE = re.compile(
    r'^(?P<indent> *)```(?P<language>\w*)(?: title="(?P<title>[^"]*)")?[^\n]*\n'
    r"(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        language: What stands behind the fence.
        title: Name of the file that it is, or "".
        text: What is in it, without the fence's indentation.
    """

    language: str
    title: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The commands that a reader would type, comments left in."""
        lines = [line.strip() for line in self.text.splitlines()]
        if self.language in SHELLS and self.language != "console":
            return [line for line in lines if line and not line.startswith("#")]
        # Beside what it prints, as in a terminal.
        return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    return [
        Block(
            found["language"],
            found["title"] or "",
            "".join(
                line.removeprefix(found["indent"])
                for line in found["text"].splitlines(keepends=True)
            ),
        )
        for found in _FENCE.finditer(page.read_text())
    ]
