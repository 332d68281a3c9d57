"""The tables of settings, components, recipes and commands in the documentation, from the code.

A page has a pair of lines, ``<!-- generated: NAME -->`` and ``<!-- end of NAME -->``, for each of
:data:`PIECES`. ``make reference`` writes what belongs between them into the page, so that it is
there for whoever reads the Markdown; a test fails while it differs from the code.
"""

import inspect
import math
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import typer
import typer.main
from pydantic import BaseModel, BeforeValidator
from pydantic_core import PydanticUndefined

from foldsmith.cli.main import app
from foldsmith.config.imports import RECIPE_PREFIX, RECIPES
from foldsmith.config.settings import EnsembleSettings, Globals
from foldsmith.config.wiring import wiring_of
from foldsmith.project.further_targets import AuxiliarySettings, ContinuousSettings
from foldsmith.project.settings import FoldSettings, ProjectSettings
from foldsmith.project.submission_forms import FORMS
from foldsmith.steps import registry
from foldsmith.targets.class_column_metrics import EXACT_MATCH
from foldsmith.targets.column_metrics import GLOBAL_R2
from foldsmith.targets.metrics import METRICS, METRICS_OF_LABELS

PIECE = re.compile(
    r"^<!-- generated: (?P<name>\S+) -->\n.*?^<!-- end of (?P=name) -->$", re.MULTILINE | re.DOTALL
)


class Docstring(NamedTuple):
    """A Google-style docstring, taken apart.

    Attributes:
        text: Summary and description.
        sections: ``Args``, ``Attributes``, ... -> name -> meaning; a section without names has
            its text under "".
    """

    text: str
    sections: dict[str, dict[str, str]]


def parse_docstring(docstring: str) -> Docstring:
    """Take a Google-style docstring apart; its reST marks become Markdown's."""
    lines = _markdown(inspect.cleandoc(docstring)).splitlines()
    text: list[str] = []
    sections: dict[str, dict[str, str]] = {}
    section: dict[str, str] | None = None
    name = ""
    for line in lines:
        if re.fullmatch(r"[A-Z][a-z]+:", line):
            section, name = sections.setdefault(line[:-1], {}), ""
        elif section is None:
            text.append(line)
        elif item := re.fullmatch(r" {4}(\*{0,2}\w+): (.*)", line):
            name = item[1]
            section[name] = item[2]
        elif line.strip():
            section[name] = f"{section.get(name, '')} {line.strip()}".strip()
    return Docstring("\n".join(text).strip(), sections)


def _markdown(text: str) -> str:
    text = re.sub(r":\w+:`~?([^`]+)`", lambda match: f"`{match[1].rsplit('.')[-1]}`", text)
    return text.replace("``", "`")


def settings_table(model: type[BaseModel], prefix: str = "") -> str:
    """Return the keys of a section: meaning, type, default.

    Args:
        model: The class that checks the section.
        prefix: Before each key, as in ``globals/``.
    """
    meanings = parse_docstring(model.__doc__ or "").sections["Attributes"]
    rows = []
    for name, field in model.model_fields.items():
        if field.is_required():
            default = "**required**"
        elif field.default is PydanticUndefined or isinstance(field.default, BaseModel):
            default = "that of its keys"
        else:
            default = f"`{_yaml(field.default)}`"
        kind = f"`{annotation_text(field.annotation)}`{_bounds(field.metadata)}"
        if "Settings" in kind:
            kind = "section, see below"
        rows.append([f"`{prefix}{name}`", meanings[name], kind, default])
    return _table(["key", "meaning", "type", "default"], rows)


def _bounds(metadata: list[Any]) -> str:
    """Return what pydantic demands of a value beyond its type."""
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    found = [
        f", {word} {getattr(part, name):g}"
        for part in metadata
        for name, word in words.items()
        if hasattr(part, name)
    ]
    return "".join(found)


def annotation_text(annotation: Any) -> str:
    """Return a type as one would write it, without the modules that it comes from."""
    if annotation is inspect.Parameter.empty or annotation is Any:
        return "any"
    if isinstance(annotation, str):
        return annotation
    if get_origin(annotation) is Annotated and isinstance(
        annotation.__metadata__[0], BeforeValidator
    ):
        return annotation_text(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return " | ".join(map(annotation_text, get_args(annotation)))
    text = inspect.formatannotation(annotation)
    text = text.replace("typing.", "")
    text = re.sub(r"Annotated\[(\w+), (?:[^\[\]]|\[[^\]]*\])*\]", r"\1", text)
    text = re.sub(r"Optional\[(\w+)\]", r"\1 | None", text)
    text = re.sub(r"Literal\[([^\]]*)\]", lambda match: _words(match[1]), text)
    text = re.sub(r"Union\[([^\[\]]*)\]", lambda match: match[1].replace(", ", " | "), text)
    text = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", text)
    return text.replace("NoneType", "None")


def _words(listed: str) -> str:
    return " | ".join(word.strip("'\"") for word in listed.split(", "))


def registered() -> Iterator[tuple[str, dict[str, Callable[..., Any]]]]:
    """Yield the subjects of the registry with their types."""
    for subject, names in registry.SUBJECTS.items():
        yield subject, {name: registry.LIBRARY_TYPES[name] for name in names}


def _types() -> str:
    parts = []
    for title, types in registered():
        parts.append(f"## {title}")
        parts += [_type(name, types[name]) for name in types]
    return "\n\n".join(parts)


def _type(name: str, offered: Callable[..., Any]) -> str:
    """Return one type: its text, and its arguments with their defaults."""
    target = getattr(offered, "func", offered)  # of a partial
    own = target.__module__.startswith("foldsmith")
    doc = parse_docstring(inspect.getdoc(target) or "")
    if own:
        # A partial may have words of its own.
        said = "" if offered.__doc__ == partial.__doc__ else offered.__doc__ or ""
        text = parse_docstring(said).text if target is not offered and said else doc.text
    else:
        # By the shortest public path, as in the library's own pages.
        path = re.sub(
            r"^torch\.(nn|optim)\.(modules\.)?(?!lr_)\w+$", r"torch.\1", target.__module__
        )
        path += f".{target.__qualname__}"
        text = f"[`{path}`](https://docs.pytorch.org/docs/stable/generated/{path}.html) of PyTorch."
    if hasattr(offered, "from_settings"):  # a task: made from globals, not from arguments
        return f"### {name}\n\n{text}\n\nChosen by `globals/task: {name}`."
    meanings = doc.sections.get("Args", {}) or doc.sections.get("Attributes", {})
    if own and said:
        meanings = parse_docstring(said).sections.get("Args", {}) | meanings
    wiring = wiring_of(name, {})
    rows = []
    for key, parameter in inspect.signature(offered).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        needed = parameter.default is parameter.empty
        default = "**required**" if needed else f"`{_yaml(parameter.default)}`"
        if key in wiring:
            default = f"`{_yaml(wiring[key])}`"
        kind = f"`{annotation_text(parameter.annotation)}`"
        meaning = [meanings.get(key, _INHERITED.get(key, ""))] if own else []
        rows.append([f"`{key}`", *meaning, kind, default])
    head = ["argument", *(["meaning"] if own else []), "type", "default"]
    table = _table(head, rows) if rows else "No arguments."
    return f"### {name}\n\n{text}\n\n{table}"


# Of base classes, whose docstrings their children do not repeat.
_INHERITED = {"p": "Probability, 0..1."}


def _recipes() -> str:
    parts = []
    for path in sorted(RECIPES.glob("*.yml")):
        content = path.read_text().rstrip()
        head = "".join(f"{line}\n" for line in _leading_comment(content))
        body = "\n".join(f"    {line}".rstrip() for line in content.splitlines())
        parts.append(
            f"### `{RECIPE_PREFIX}{path.name}` {{ #{path.stem} }}\n\n{head}\n"
            f'??? note "{path.name}"\n\n    ```yaml\n{body}\n    ```'
        )
    return "\n\n".join(parts)


def _leading_comment(content: str) -> Iterator[str]:
    for line in content.splitlines():
        if not line.startswith("#"):
            return
        yield line.removeprefix("#").strip()


def _commands() -> str:
    """Return the help of the whole command line, as a terminal of 80 columns shows it."""
    group: Any = typer.main.get_command(app)
    context = group.context_class(group, info_name="foldsmith", **group.context_settings)
    pages: list[tuple[str, Any, Any]] = [("foldsmith", group, None)]
    pages += [(f"foldsmith {name}", command, context) for name, command in group.commands.items()]
    parts = []
    for title, command, parent in pages:
        name = title.split()[-1]
        settings = command.context_settings
        own = command.context_class(
            command, info_name=name, parent=parent, terminal_width=78, **settings
        )
        parts.append(f"### `{title}` {{ #{name} }}\n\n```text\n{command.get_help(own)}\n```")
    return "\n\n".join(parts)


def _table(head: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str]) -> str:
        return f"| {' | '.join(_escaped(' '.join(cell.split())) for cell in cells)} |"

    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)])


def _escaped(text: str) -> str:
    """Return a cell whose bars are not taken for its end; code between backquotes needs none."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else part.replace("|", "\\|") for part in parts)


def _yaml(value: Any) -> str:
    """Return a default as YAML writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, float):
        return f"{value:.12g}"
    return str(value)


def _metrics() -> str:
    """Return a table of the metrics: what each is, of which targets, and how it is named."""
    rows = []
    for metric in (*METRICS.values(), *METRICS_OF_LABELS.values(), GLOBAL_R2, EXACT_MATCH):
        meaning = parse_docstring(metric.function.__doc__ or "").text.splitlines()[0]
        low, high = ("" if math.isinf(end) else f"{end:g}" for end in metric.limits)
        targets = "several labels" if metric.of_labels else "one number, or the mean of several"
        if metric.of_numbers:
            targets = "several numbers"
        if metric.of_classes and not metric.uses_order:
            targets = "classes in an order or not, or the mean of several class targets"
        elif metric.name == EXACT_MATCH.name:
            targets = "several class targets"
        elif metric.of_classes:
            targets = "classes in an order"
        how = {
            "values": "numbers",
            "columns": "numbers",
            "classes": "decisions",
            "labels": "decisions",
            EXACT_MATCH.needs: "decisions",
        }
        blends = "exact" if metric.least_squares else "a stand-in"
        rows.append(
            [
                f"`metric: {metric.title}`",
                meaning.removeprefix("Return the ").removeprefix("Return "),
                targets,
                how.get(metric.needs, "probabilities"),
                ("higher" if metric.greater_is_better else "lower") + f", {low}..{high}",
                blends,
            ]
        )
    return _table(
        ["in `project.yml`", "is", "target", "judges", "better", "squared error is"], rows
    )


def _submissions() -> str:
    """Return the forms of submissions, each with the lines of a sample."""
    parts = []
    for form in FORMS:
        meaning = parse_docstring(form.__doc__ or "").text.splitlines()[0]
        needs = " Needs class probabilities." if form.needs_probabilities else ""
        lines = "\n".join(form.example)
        parts.append(f"{meaning}{needs}\n\n```text\n{lines}\n```")
    return "\n\n".join(parts)


PIECES: dict[str, Callable[[], str]] = {
    "project": lambda: settings_table(ProjectSettings),
    "folds": lambda: settings_table(FoldSettings, "folds/"),
    "continuous": lambda: settings_table(ContinuousSettings, "continuous/"),
    "auxiliary": lambda: settings_table(AuxiliarySettings, "auxiliary/NAME/"),
    "globals": lambda: settings_table(Globals, "globals/"),
    "ensemble": lambda: settings_table(EnsembleSettings, "ensemble/"),
    "types": _types,
    "recipes": _recipes,
    "commands": _commands,
    "metrics": _metrics,
    "submissions": _submissions,
}


def filled(markdown: str) -> str:
    """Return a page with the pieces that the code makes today."""

    def piece(found: re.Match[str]) -> str:
        name = found["name"]
        return f"<!-- generated: {name} -->\n\n{PIECES[name]()}\n\n<!-- end of {name} -->"

    return PIECE.sub(piece, markdown)


def main() -> None:
    """Write the pieces into every page."""
    # What the help of a command shows depends on the terminal.
    os.environ["COLUMNS"] = "80"
    for page in sorted(Path(__file__).parent.glob("*.md")):
        before = page.read_text(encoding="utf-8")
        after = filled(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(f"wrote {page.name}")


if __name__ == "__main__":
    main()
