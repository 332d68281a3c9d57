"""Checks of an experiment before anything is built."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from foldsmith.config.experiment import Experiment
from foldsmith.config.loggers import logger_problems
from foldsmith.config.named_files import files_of_call
from foldsmith.config.references import (
    Key,
    is_reference,
    nodes_of,
    parse_reference,
    path_text,
    walk_path,
)
from foldsmith.config.settings import (
    FINE_TUNINGS,
    HEAD_DECIDES,
    MEMBERS,
    NULLABLE,
    OTHER_TASKS,
    EnsembleSettings,
    sections_of,
)
from foldsmith.config.values import arguments_of
from foldsmith.config.wiring import CONTEXT
from foldsmith.errors import ConfigError
from foldsmith.project.class_weights import class_weights_problem
from foldsmith.project.project_file import ProjectFolder
from foldsmith.project.validation import validation_message
from foldsmith.targets.calibrations import calibration_problem
from foldsmith.utils.suggest import did_you_mean


def check_experiment(
    experiment: Experiment, types: Mapping[str, Callable[..., Any]], made: Sequence[str] = ()
) -> None:
    """Check everything that can be known before any work starts.

    Args:
        experiment: The experiment.
        types: Every callable that a ``type:`` may name.
        made: Files that are not there yet, but will be when the experiment runs.

    Raises:
        ConfigError: One line per problem: unknown section, type, argument or key,
            missing argument, broken reference, missing file.
    """
    problems = _tree_problems(experiment.wired, types, experiment.project, made)
    if problems:
        raise ConfigError("\n".join(f"{experiment.file}: {problem}" for problem in problems))


def _tree_problems(
    tree: Mapping[str, Any],
    types: Mapping[str, Callable[..., Any]],
    project: ProjectFolder,
    made: Sequence[str] = (),
) -> list[str]:
    """Return everything that is wrong with an experiment, one line each.

    Args:
        tree: The experiment after imports and overrides, arguments written out.
        types: Every callable that a ``type:`` may name.
        project: The project, for files and for references into it.
        made: Files that need not exist yet.
    """
    task = tree["globals"]["task"]
    learned = _task_type(task, types)
    own_kind = _own_kind(task, project)
    if task in FINE_TUNINGS and learned is None and own_kind is None:
        known = (*OTHER_TASKS, *(name for name in types if _task_type(name, types)))
        return [f"globals/task: unknown task {task}{did_you_mean(task, known)}"]
    required, optional = sections_of(task, own_kind)
    recipe = (
        f"; a {task} experiment starts with an import of a recipe, as in 'import: "
        "foldsmith:regression.yml'"
    )
    problems = list(_check_sections(tree, required, optional, "" if own_kind else recipe))
    # Only the kind of the project's own can say which keys of its sections it reads.
    read = [s for s in (*required, *optional) if s[-1] != "/" or own_kind is not None]
    used: list[list[Key]] = [list(section.rstrip("/").split("/")) for section in read]
    for path, node in nodes_of(tree):
        if is_reference(node):
            problem, target = _check_reference(node, path, tree, project)
            if problem:
                problems.append(f"{path_text(path)}: {problem}")
            used.append(target)
        elif isinstance(node, dict) and "type" in node:
            problems += _check_call(node, path, types, project, tree, made)
    problems += _check_project(tree["globals"], project)
    problems += _check_task(tree["globals"], learned, project)
    if "ensemble/" in required:
        try:
            settings = EnsembleSettings.model_validate(tree.get("ensemble", {}))
            problem = calibration_problem(project.metric, settings.calibrate)
            problems += [] if problem is None else [f"ensemble/calibrate: {problem}"]
        except ValidationError as error:
            problems += validation_message("ensemble", error, EnsembleSettings).splitlines()
    else:
        problems += _check_unused(tree, used)
    return problems


def _check_sections(
    tree: Mapping[str, Any], required: Sequence[str], optional: Sequence[str], hint: str
) -> Iterator[str]:
    sections = (*required, *optional)
    accepted = {"globals"} | {section.split("/")[0] for section in sections}
    for name in tree:
        if name not in accepted:
            yield f"unknown section {name}{did_you_mean(str(name), accepted)}"
    for section in required:
        try:
            walk_path(tree, section.rstrip("/").split("/"))
        except KeyError:
            yield f"the section {section.rstrip('/')} is missing{hint}"
    datasets = (f"dataset/{part}" for part in ("train", "val", "test"))
    for section in (*sections, *datasets):
        try:
            node = walk_path(tree, section.rstrip("/").split("/"))
        except KeyError:
            continue
        problem = _shape_problem(node, section)
        if problem:
            yield f"{section.rstrip('/')}: {problem}"


def _shape_problem(node: Any, section: str) -> str | None:
    """Return the problem with the shape of a section: a call, keys and values, or a list."""
    if isinstance(node, dict) and section.endswith("/"):
        return None
    # The model, and the source of its images, are read before anything is built.
    if is_reference(node) and section != "model" and not section.endswith("/"):
        return None
    if section == "extensions":
        return _extensions_problem(node)
    if section.endswith("/"):
        return f"must hold keys and values, not {node!r}"
    if _is_call(node):
        return None
    if node is None and section in NULLABLE:
        return None
    null = " or null" if section in NULLABLE else ""
    return f"must be {{type: NAME, ...}}{null}, not {node!r}"


def _extensions_problem(node: Any) -> str | None:
    """Return the problem with the shape of the extensions."""
    if _is_call(node) or not isinstance(node, list | dict):
        return f"must be components by name, or a list of them, not {node!r}"
    items = node.values() if isinstance(node, dict) else node
    wrong = [each for each in items if not (is_reference(each) or _is_call(each))]
    if wrong:
        return f"must hold {{type: NAME, ...}} each, not {wrong[0]!r}"
    if not any(_is_call(each) and each["type"] == "LogReport" for each in items):
        return "must hold a {type: LogReport}, whose log the others and the report read"
    return None


def _is_call(node: Any) -> bool:
    return isinstance(node, dict) and "type" in node


def _check_project(settings: Mapping[str, Any], project: ProjectFolder) -> Iterator[str]:
    """Yield settings of ``globals`` that are not declared or not installed."""
    for problem in logger_problems(settings["loggers"]):
        yield f"globals/loggers: {problem}"
    declared, file = project.settings.auxiliary, project.source_files[0]
    for name in settings["auxiliary"]:
        if name not in declared:
            yield f"globals/auxiliary: {file} declares no {name}{did_you_mean(name, declared)}"

    weights = settings["class_weights"]
    wrong = class_weights_problem(weights, project.form.labels)
    if weights not in (None, "none") and settings["task"] not in MEMBERS:
        wrong = f"is for experiments that learn targets, not for {settings['task']}"
    if wrong is not None:
        yield f"globals/class_weights: {wrong}"


def _task_type(name: str, types: Mapping[str, Callable[..., Any]]) -> Any:
    """Return the class of a supervised task (see ``targets/task.py``); None for other names."""
    found = types.get(name)
    return found if hasattr(found, "from_settings") else None


def _own_kind(name: str, project: ProjectFolder) -> Any:
    """Return the project's own kind of steps (see ``steps/base.py``) for a task; None if none."""
    found = project.types.get(name)
    return found if hasattr(found, "optional_sections") else None


def _check_task(settings: Mapping[str, Any], task: Any, project: ProjectFolder) -> Iterator[str]:
    """Yield the settings that do not fit a task.

    Args:
        settings: ``globals``.
        task: Class of the supervised task; None for other experiments.
        project: The project.
    """
    name, scale = settings["task"], settings["target_scale"]
    numbers = name in HEAD_DECIDES if task is None else task.learns_numbers
    if scale in ("log", "rank") and not numbers:
        yield (
            f"globals/target_scale: {scale} is for tasks that learn numbers, such as regression; "
            f"{name} does not"
        )
    if settings["head_init"] == "ridge" and not getattr(task, "outputs_target", False):
        yield f"globals/head_init: ridge is for the task regression, not {name}"
    if settings["continuous_target"]:
        if not getattr(task, "takes_continuous", False):
            yield f"globals/continuous_target: is for the task hl-gauss, not {name}"
        elif project.settings.continuous is None:
            file = project.source_files[0]
            yield f"globals/continuous_target: {file} has no section continuous"


def _check_reference(
    text: str,
    at: list[Key],
    tree: Mapping[str, Any],
    project: ProjectFolder,
) -> tuple[str | None, list[Key]]:
    """Return the problem with a reference (or None) and the path that it means."""
    try:
        path, attributes = parse_reference(text, at)
    except ValueError as error:
        return f"broken reference {text}: {error}", []
    if path and path[0] in CONTEXT:
        if path == ["project"] and attributes and not hasattr(project, attributes[0]):
            known = [name for name in dir(project) if not name.startswith("_")]
            return f"broken reference {text}{did_you_mean(attributes[0], known)}", path
        return None, path
    for depth in range(len(path)):
        parent = walk_path(tree, path[:depth])
        if is_reference(parent):
            return None, path  # followed when it is built
        try:
            walk_path(parent, [path[depth]])
        except KeyError:
            names = [str(name) for name in parent] if isinstance(parent, dict) else []
            where = path_text(path[:depth]) or "the file"
            hint = did_you_mean(str(path[depth]), names)
            return f"broken reference {text}: no {path[depth]} in {where}{hint}", path
    return None, path


def _check_call(
    node: Mapping[str, Any],
    path: list[Key],
    types: Mapping[str, Callable[..., Any]],
    project: ProjectFolder,
    tree: Mapping[str, Any],
    made: Sequence[str],
) -> Iterator[str]:
    """Yield the problems of one ``{type: NAME, argument: ...}``."""
    name = node["type"]
    where = path_text(path)
    if not isinstance(name, str) or name not in types:
        yield f"{where}: unknown type {name}{did_you_mean(str(name), types)}"
        return
    arguments = arguments_of(types, name)
    if arguments is None:
        return
    named, given = arguments.named.keys(), {key for key in node if key != "type"}
    if not arguments.any_name:
        for key in sorted(given - named, key=str):
            yield f"{where}: {name} has no argument {key}{did_you_mean(str(key), named)}"
    for key in sorted(set(arguments.needed()) - given):
        accepted = ", ".join(sorted(named))
        yield f"{where}: {name} needs the argument {key} (accepted: {accepted})"
    if name not in project.types:  # the hints of a project's own types may be incomplete
        for problem in arguments.value_problems({key: node[key] for key in given & named}):
            yield f"{where}/{problem}"
    for key, value in files_of_call(node, path, tree):
        if value not in made and not project.path(value).is_file():
            yield (
                f"{where}/{key}: no such file: {project.path(value)}; "
                "run the stage that makes it first, name another, or set it to null"
            )


def _check_unused(tree: Mapping[str, Any], used: list[list[Key]]) -> Iterator[str]:
    """Yield the values that nothing reads: most often a misspelt key."""
    node: Any
    for path, node in nodes_of(tree):
        if len(path) < 2 or path[0] == "globals":
            continue
        parents: list[Any] = [walk_path(tree, path[:depth]) for depth in range(len(path))]
        in_a_part = any(isinstance(parent, dict) and "type" in parent for parent in parents[1:])
        is_folder = isinstance(node, dict) and "type" not in node and node
        if in_a_part or is_folder or isinstance(parents[-1], list):
            continue
        if not any(path[: len(target)] == target or target[: len(path)] == path for target in used):
            siblings = [str(key) for key in parents[-1] if key != path[-1]]
            yield (f"nothing uses the key {path_text(path)}{did_you_mean(str(path[-1]), siblings)}")
