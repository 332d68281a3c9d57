"""Reading an experiment file with the files that it imports.

The rules are those of the Config System of pytorch-pfn-extras, whose package imports torch:
``import: FILE`` takes the values of another file, and each key beside it, a path such as
``model/base_name``, replaces one of them. ``import: foldsmith:NAME.yml`` takes one of the recipes
that come with the package (the folder ``recipes`` beside this module).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foldsmith.config.named_items import holds_names
from foldsmith.config.references import Key
from foldsmith.errors import ConfigError
from foldsmith.utils.suggest import did_you_mean
from foldsmith.utils.yaml_io import read_yaml

RECIPES = Path(__file__).parent / "recipes"
RECIPE_PREFIX = "foldsmith:"


def read_with_imports(path: Path) -> tuple[Any, list[Path]]:
    """Read an experiment file and everything that it imports.

    Args:
        path: The file.

    Returns:
        The content, imports replaced by their values, and the files that were read, the
        experiment file first.

    Raises:
        ConfigError: A file is missing or wrong, imports itself, or a key beside an import fits
            nothing in the imported file.
    """
    sources: list[Path] = []
    return _read(_plain(path), (), sources), sources


def _plain(path: Path) -> Path:
    """Return a path without ``..``: a file has one path, whichever file imports it."""
    return Path(os.path.normpath(path))


def _read(path: Path, importing: tuple[Path, ...], sources: list[Path]) -> Any:
    """Read one file; ``importing`` are the files that import it, the outermost first."""
    if path in importing:
        files = " -> ".join(str(file) for file in (*importing, path))
        raise ConfigError(f"{importing[0]}: Circular import: {files}")
    if importing and not path.is_file():
        raise ConfigError(f"{importing[-1]}: import: {path}: no such file")
    sources.append(path)
    content = read_yaml(path)
    for key in content if isinstance(content, dict) else ():
        if not isinstance(key, str):
            raise ConfigError(f"{path}: the key {key!r} is no text")
    return _expand(content, (*importing, path), sources)


def _expand(node: Any, files: tuple[Path, ...], sources: list[Path]) -> Any:
    """Return a node of a file, the last of ``files``, with its imports replaced."""
    if isinstance(node, list):
        return [_expand(child, files, sources) for child in node]
    if not isinstance(node, dict):
        return node
    values = {key: _expand(child, files, sources) for key, child in node.items()}
    if "import" not in values:
        return values
    imported = _imported_file(values.pop("import"), files)
    tree = _read(imported, files, sources)
    for key, value in values.items():
        _replace(tree, str(key), value, imported, files[-1])
    return tree


def _imported_file(name: Any, files: tuple[Path, ...]) -> Path:
    """Return the file that an ``import:`` names, relative to the importing file."""
    if not isinstance(name, str):
        raise ConfigError(f"{files[-1]}: import: must be the path of a file, not {name!r}")
    if not name.startswith(RECIPE_PREFIX):
        return _plain(files[-1].parent / name)
    file = RECIPES / name.removeprefix(RECIPE_PREFIX)
    if not file.is_file():
        known = (RECIPE_PREFIX + found.name for found in RECIPES.glob("*.yml"))
        raise ConfigError(f"{files[0]}: import: no recipe {name}{did_you_mean(name, known)}")
    return file


def _replace(tree: Any, key: str, value: Any, imported: Path, file: Path) -> None:
    """Set the value at a path of the imported tree; all but its last key must exist."""
    keys: Sequence[Key] = [
        int(part) if part.lstrip("-").isdigit() else part
        for part in key.split("/")
        if part not in ("", ".")
    ]
    node = tree
    try:
        for part in keys[:-1]:
            node = node[part]
        if value is None and holds_names(keys[:-1], node) and keys[-1] not in node:
            raise ConfigError(
                f"{file}: {key}: null drops nothing: there is no {keys[-1]} in {imported}"
                f"{did_you_mean(str(keys[-1]), map(str, node))}"
            )
        node[keys[-1]] = value
    except (KeyError, IndexError, TypeError):
        raise ConfigError(f"{file}: import: {key} not in {imported}") from None
