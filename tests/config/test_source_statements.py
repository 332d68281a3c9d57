"""The statements of a file by name, against a parse of the whole file."""

import ast
from pathlib import Path

import pytest
import timm
import torch

import foldsmith
from foldsmith.config.source_statements import SourceStatements

FILES = [
    *sorted(Path(foldsmith.__file__).parent.rglob("*.py"))[::4],
    *sorted(Path(timm.__file__).parent.rglob("*.py"))[::20],
    *sorted((Path(torch.__file__).parent / "nn").rglob("*.py"))[::10],
]

ODD = '''"""Text with what looks like code:
class Inside:
def also_inside(): ...
"""
from typing import (
    Any as Anything,
List,
)
import os.path, sys as system
if Anything:
    from io import StringIO
else:
    StringIO = None
SEVERAL = OTHERS = [
1,
]
COMPARED = 1 == 2
TABLE: dict[
    str, int
] = {}
@staticmethod
@property
# a comment
def decorated(x="# no comment", y=\'\'\'
class NotThis:
\'\'\'):
    pass
class Twice: ...
class Twice:  # the last one counts
    """Docstring."""
CALL = dict(a=1)
CALL["b"] = 2
from os import *
'''


def whole(source):
    """The statement that defines each name, from the syntax tree of the whole file."""
    found = {}

    def add(body):
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[node.name] = node
            elif isinstance(node, ast.Import | ast.ImportFrom):
                found.update({(a.asname or a.name).split(".")[0]: node for a in node.names})
            elif isinstance(node, ast.Assign):
                found.update({t.id: node for t in node.targets if isinstance(t, ast.Name)})
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found[node.target.id] = node
            elif isinstance(node, ast.If):
                add(node.body)

    add(ast.parse(source).body)
    found.pop("*", None)
    return found


def agree(file):
    expected = whole(file.read_bytes())
    statements = SourceStatements(file)
    for name, node in expected.items():
        found = statements.get(name)
        assert found is not None and ast.dump(found) == ast.dump(node), (file, name)
    return expected


def test_every_statement_is_that_of_the_whole_file():
    assert sum(len(agree(file)) for file in FILES) > 1000


def test_odd_layouts(tmp_path):
    file = tmp_path / "odd.py"
    file.write_text(ODD)
    expected = agree(file)
    assert {"List", "system", "OTHERS", "TABLE", "decorated", "StringIO"} <= set(expected)
    statements = SourceStatements(file)
    assert [ast.unparse(star) for star in statements.star_imports()] == ["from os import *"]
    assert statements.get("Inside") is statements.get("NotThis") is None


def test_only_the_lines_of_a_name_are_parsed(tmp_path, monkeypatch):
    file = tmp_path / "long.py"
    file.write_text("class A:\n    def __init__(self): ...\n" + "class B:\n    x = 1\n" * 1000)
    parsed, parse = [], ast.parse
    monkeypatch.setattr(ast, "parse", lambda text: parsed.append(text) or parse(text))
    assert SourceStatements(file).get("A").name == "A"
    assert sum(map(len, parsed)) < 100


def test_no_python_is_an_error(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text("import (\n")
    with pytest.raises(SyntaxError):
        SourceStatements(file)
