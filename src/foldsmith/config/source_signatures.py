"""Signatures of callables, read from their source.

Checking an experiment needs the arguments of the types that it names. Importing these takes
seconds, since most of them import torch; parsing their files takes milliseconds.
"""

import ast
import builtins
import functools
import importlib
import importlib.util
import inspect
from pathlib import Path
from typing import Any, NamedTuple

from foldsmith.config.source_statements import SourceStatements

# Modules of the standard library whose names type hints use; they are imported already.
_IMPORTED = ("typing", "collections.abc", "pathlib", "types")


class _UnknownError(Exception):
    """Source that this module cannot follow."""


class _Opaque:
    """Stands for a class that is not imported: no plain value is an instance of it."""


class _Found(NamedTuple):
    """A definition, and the module that it is in."""

    module: str
    node: ast.AST


@functools.cache
def source_signature(module: str, name: str) -> inspect.Signature | None:
    """Return the signature of a function or class as its source has it.

    Args:
        module: The module that offers it.
        name: Its name there; it may be imported from elsewhere.

    Returns:
        The signature; annotations are evaluated, and classes that are not imported are replaced
        by one that no plain value is an instance of. None if the source cannot be followed.
    """
    try:
        return inspect.Signature(_parameters(_find(module, name)))
    except (_UnknownError, RecursionError, OSError, SyntaxError):
        return None


@functools.cache
def _file(module: str) -> Path:
    """Return the file of a module; none of its packages is imported."""
    top, *parts = module.split(".")
    spec = importlib.util.find_spec(top)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, *parts)
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                return file
    raise _UnknownError(module)


@functools.cache
def _definitions(module: str) -> SourceStatements:
    """Return the statements at the top level of a module."""
    return SourceStatements(_file(module))


def _find(module: str, name: str) -> _Found:
    """Return the definition of a name, imports followed."""
    definitions = _definitions(module)
    statement = definitions.get(name)
    if statement is None:
        for star in definitions.star_imports():
            try:
                return _find(_absolute(module, star), name)
            except _UnknownError:
                continue
        raise _UnknownError(f"{module}: {name}")
    if isinstance(statement, ast.ImportFrom):
        original = next(a.name for a in statement.names if (a.asname or a.name) == name)
        return _find(_absolute(module, statement), original)
    return _Found(module, statement)


def _absolute(module: str, statement: ast.ImportFrom) -> str:
    """Return the module that a statement imports from."""
    if not statement.level:
        return statement.module or ""
    package = module.split(".")
    if _file(module).name != "__init__.py":
        package.pop()
    package = package[: len(package) - statement.level + 1]
    return ".".join([*package, *([statement.module] if statement.module else [])])


def _parameters(found: _Found) -> list[inspect.Parameter]:
    """Return the parameters of a function, of a class or of a partial of one."""
    node = found.node
    if isinstance(node, ast.FunctionDef):
        return _of_function(found.module, node)
    if isinstance(node, ast.ClassDef):
        return _of_class(found.module, node)
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
        call = node.value
        if isinstance(call.func, ast.Name) and call.func.id == "partial" and len(call.args) == 1:
            return _of_partial(found.module, call)
    raise _UnknownError(ast.dump(node)[:80])


def _of_function(module: str, node: ast.FunctionDef) -> list[inspect.Parameter]:
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(given.defaults))
    defaults += given.defaults
    found = []
    for k, (argument, default) in enumerate(zip(positional, defaults, strict=True)):
        kind: Any = inspect.Parameter.POSITIONAL_OR_KEYWORD
        if k < len(given.posonlyargs):
            kind = inspect.Parameter.POSITIONAL_ONLY
        found.append(_parameter(module, argument, kind, default))
    if given.vararg:
        found.append(_parameter(module, given.vararg, inspect.Parameter.VAR_POSITIONAL, None))
    for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        found.append(_parameter(module, argument, inspect.Parameter.KEYWORD_ONLY, default))
    if given.kwarg:
        found.append(_parameter(module, given.kwarg, inspect.Parameter.VAR_KEYWORD, None))
    return found


def _parameter(
    module: str, argument: ast.arg, kind: Any, default: ast.expr | None
) -> inspect.Parameter:
    value: Any = inspect.Parameter.empty
    if default is not None:
        # Of a default it matters whether there is one, and whether it is None.
        value = None if isinstance(default, ast.Constant) and default.value is None else ...
    hint: Any = Any
    if argument.annotation is not None:
        try:
            hint = _evaluated(module, argument.annotation)
        except (_UnknownError, TypeError, AttributeError):
            hint = Any
    return inspect.Parameter(argument.arg, kind, default=value, annotation=hint)


def _of_class(module: str, node: ast.ClassDef) -> list[inspect.Parameter]:
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return _of_function(module, statement)[1:]
    if any(_is_dataclass(decorator) for decorator in node.decorator_list):
        return sorted(_fields(module, node).values(), key=lambda parameter: parameter.kind)
    for base in node.bases:
        if isinstance(base, ast.Subscript):
            base = base.value
        if isinstance(base, ast.Name):
            if base.id in vars(builtins):
                continue
            try:
                return _parameters(_find(module, base.id))
            except _UnknownError:
                if base.id in ("Protocol", "Generic", "ABC"):
                    continue
                raise
        elif isinstance(base, ast.Attribute):
            return _parameters(_attribute(module, base))
    return []


def _is_dataclass(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Name) and called.id == "dataclass"


def _fields(module: str, node: ast.ClassDef) -> dict[str, inspect.Parameter]:
    """Return the parameters that a dataclass and its bases have by their fields."""
    found: dict[str, inspect.Parameter] = {}
    for base in reversed(node.bases):
        if isinstance(base, ast.Name) and base.id not in ("ABC", "Protocol"):
            source = _find(module, base.id)
            if isinstance(source.node, ast.ClassDef):
                found |= _fields(source.module, source.node)
    if not any(_is_dataclass(decorator) for decorator in node.decorator_list):
        return found
    kind: Any = inspect.Parameter.POSITIONAL_OR_KEYWORD
    for field in node.body:
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        hint = ast.unparse(field.annotation)
        if hint == "KW_ONLY":
            kind = inspect.Parameter.KEYWORD_ONLY
            continue
        options = _field_options(field.value)
        if not hint.startswith("ClassVar") and "init" not in options:
            default = options.get("default", options.get("default_factory"))
            own_kind = inspect.Parameter.KEYWORD_ONLY if "kw_only" in options else kind
            argument = ast.arg(field.target.id, field.annotation)
            found[argument.arg] = _parameter(module, argument, own_kind, default)
    return found


def _field_options(value: ast.expr | None) -> dict[str | None, ast.expr]:
    """Return the arguments of ``field(...)``; a plain default is one, too."""
    if (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Name)
        and value.func.id == "field"
    ):
        return {keyword.arg: keyword.value for keyword in value.keywords}
    return {} if value is None else {"default": value}


def _attribute(module: str, node: ast.Attribute) -> _Found:
    """Return the definition of a dotted name such as ``nn.Module`` or ``optim.SGD``."""
    return _find(_module_of(module, node.value), node.attr)


def _module_of(module: str, node: ast.expr) -> str:
    """Return the module that an expression such as ``nn`` or ``torch.nn`` stands for."""
    if isinstance(node, ast.Attribute):
        return f"{_module_of(module, node.value)}.{node.attr}"
    statement = _definitions(module).get(node.id) if isinstance(node, ast.Name) else None
    if isinstance(node, ast.Name) and isinstance(statement, ast.Import | ast.ImportFrom):
        for alias in statement.names:
            if isinstance(statement, ast.ImportFrom) and (alias.asname or alias.name) == node.id:
                return f"{_absolute(module, statement)}.{alias.name}"
            if isinstance(statement, ast.Import) and alias.asname == node.id:
                return alias.name
            if isinstance(statement, ast.Import) and alias.name.split(".")[0] == node.id:
                return node.id
    raise _UnknownError(ast.dump(node)[:80])


def _of_partial(module: str, call: ast.Call) -> list[inspect.Parameter]:
    """Return the parameters of ``partial(CALLABLE, name=value)``."""
    target = call.args[0]
    if isinstance(target, ast.Attribute):
        found = _parameters(_attribute(module, target))
    elif isinstance(target, ast.Name):
        found = _parameters(_find(module, target.id))
    else:
        raise _UnknownError(ast.dump(target)[:80])
    given = {keyword.arg for keyword in call.keywords}
    result, after = [], False
    for parameter in found:
        after = after or parameter.name in given
        if after and parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            parameter = parameter.replace(kind=parameter.KEYWORD_ONLY)
        if parameter.name in given:
            parameter = parameter.replace(default=...)
        result.append(parameter)
    return result


def _evaluated(module: str, node: ast.expr) -> Any:
    """Return the type that an annotation of a module means."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):  # a hint in quotes
            return _evaluated(module, ast.parse(node.value, mode="eval").body)
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _evaluated(module, node.left) | _evaluated(module, node.right)
    if isinstance(node, ast.Tuple):
        return tuple(_evaluated(module, each) for each in node.elts)
    if isinstance(node, ast.List):
        return [_evaluated(module, each) for each in node.elts]
    if isinstance(node, ast.Subscript):
        return _subscript(module, node)
    if isinstance(node, ast.Attribute):
        return _Opaque
    if isinstance(node, ast.Name):
        return _named(module, node.id)
    raise _UnknownError(ast.dump(node)[:80])


def _subscript(module: str, node: ast.Subscript) -> Any:
    generic = _evaluated(module, node.value)
    if generic is _Opaque:
        raise _UnknownError(ast.dump(node)[:80])
    if getattr(generic, "_name", None) == "Literal":
        values = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return generic[tuple(ast.literal_eval(value) for value in values)]
    return generic[_evaluated(module, node.slice)]


def _named(module: str, name: str) -> Any:
    """Return the type that a name in an annotation means."""
    statement = _definitions(module).get(name)
    if isinstance(statement, ast.ImportFrom):
        source = _absolute(module, statement)
        original = next(a.name for a in statement.names if (a.asname or a.name) == name)
        if source in _IMPORTED:
            return getattr(importlib.import_module(source), original)
        try:
            return _named(source, original)
        except (_UnknownError, OSError):
            return _Opaque
    if isinstance(statement, ast.Assign):
        return _evaluated(module, statement.value)
    if isinstance(statement, ast.AnnAssign) and statement.value is not None:
        return _evaluated(module, statement.value)
    if statement is not None:
        return _Opaque
    if name in vars(builtins):
        return vars(builtins)[name]
    raise _UnknownError(f"{module}: {name}")
