"""The top-level statements of a Python file, parsed when their names are looked up.

A signature needs one class of a file that may have thousands of lines, and parsing its lines alone
takes a fraction of the time.
"""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

# Lines inside strings and comments begin no statement.
_STRING_OR_COMMENT = re.compile(
    r'"""(?:\\.|[^\\])*?"""|'
    r"'''(?:\\.|[^\\])*?'''|"
    r'"(?:\\.|[^"\\\n])*"|'
    r"'(?:\\.|[^'\\\n])*'|"
    r"#[^\n]*",
    re.DOTALL,
)
_FIRST_LINE = re.compile(r"^[^\s)\]}].*", re.MULTILINE)
# Statements that define one name, which stands in their first line.
_ONE_NAME = re.compile(r"(?:class|def)\s+(\w+)|(\w+)\s*(?::|=(?![^(\[{]*=))")
# Other statements that may define names.
_SEVERAL_NAMES = re.compile(r"(?:import|from|if)\b|\w+\s*=")


class SourceStatements:
    """The statements at the top level of a file, by the names that they define.

    Args:
        file: A Python file.

    Raises:
        OSError: If the file cannot be read.
        SyntaxError: If it is no Python.
    """

    def __init__(self, file: Path) -> None:
        self._source = file.read_bytes().decode()
        self._found: dict[str, ast.stmt | str] = {}
        try:
            for first_line, block in _blocks(self._source):
                one = _ONE_NAME.match(first_line)
                if one:
                    self._found[one[1] or one[2]] = block
                elif _SEVERAL_NAMES.match(first_line):
                    self._add(ast.parse(block).body)
        except SyntaxError:
            self._parse_whole()

    def get(self, name: str) -> ast.stmt | None:
        """Return the last statement that defines a name; None if there is none."""
        found = self._found.get(name)
        if isinstance(found, str):
            try:
                self._add(ast.parse(found).body)
            except SyntaxError:
                self._parse_whole()
            found = self._found.get(name)
        return None if isinstance(found, str) else found

    def star_imports(self) -> list[ast.ImportFrom]:
        """Return each ``from MODULE import *``, in their order."""
        return [
            found
            for name, found in self._found.items()
            if name.startswith("* ") and isinstance(found, ast.ImportFrom)
        ]

    def _add(self, body: list[ast.stmt]) -> None:
        for statement in _statements(body):
            for name in _names(statement):
                self._found[name] = statement

    def _parse_whole(self) -> None:
        """Parse the whole file: its layout does not show where each block begins."""
        self._found = {}
        self._add(ast.parse(self._source).body)


def _blocks(source: str) -> Iterator[tuple[str, str]]:
    """Yield the first line of each statement, decorators aside, and its whole text."""
    masked = _STRING_OR_COMMENT.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), source)
    lines = [(match.start(), match[0]) for match in _FIRST_LINE.finditer(masked)]
    decorated: int | None = None
    for (start, line), (end, _) in itertools.pairwise([*lines, (len(source), "")]):
        begin = start if decorated is None else decorated
        decorated = begin if line.startswith("@") else None
        if decorated is None:
            yield line, source[begin:end]


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        if isinstance(statement, ast.If):  # if TYPE_CHECKING
            yield from _statements(statement.body)


def _names(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        for alias in statement.names:
            # "import a.b" binds a.
            name = alias.name if isinstance(statement, ast.ImportFrom) else alias.name.split(".")[0]
            # One entry per "from MODULE import *".
            yield f"* {ast.unparse(statement)}" if name == "*" else alias.asname or name
    elif isinstance(statement, ast.Assign):
        yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        yield statement.target.id
