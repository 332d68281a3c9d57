"""The part of an experiment that a step reads, and the values of it that change a result."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from foldsmith.config import Experiment
from foldsmith.config.named_items import as_lists
from foldsmith.config.references import Key, is_reference, parse_reference
from foldsmith.project import ProjectFolder
from foldsmith.utils.flatten import flatten

# Keys that change where and how fast an experiment runs and its output on the screen, but not its
# results.
_FREE_GLOBALS = (
    *("device", "image_store", "cudnn_benchmark", "channels_last", "compile"),
    *("output_path", "output_root"),
    *(
        "val_fold",
        "meta_file",
        "snapshot_interval",
        "snapshot_epochs",
        "resume_interval",
        "stop_on_collapse",
        "loggers",
        "resources",
    ),
)
_FREE_KEYS = ("num_workers", "pin_memory")
_FREE_TYPES = ("LogReport", "LearningCurve", "ConsoleReport", "CollapseWatch", "RankWatch")


def values_used(experiment: Experiment, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the values of an experiment that can change a result, by path.

    Args:
        experiment: The experiment.
        without: As for :func:`tree_read`.
    """
    tree = as_lists(tree_read(experiment.wired, without))
    tree["globals"] = {k: v for k, v in tree["globals"].items() if k not in _FREE_GLOBALS}
    if isinstance(tree.get("extensions"), list):
        tree["extensions"] = [
            entry
            for entry in tree["extensions"]
            if not (isinstance(entry, dict) and entry.get("type") in _FREE_TYPES)
        ]
    return {
        key: value
        for key, value in flatten(tree).items()
        if key.rsplit("/", 1)[-1] not in _FREE_KEYS
    } | project_values(tree, experiment.project)


def tree_read(tree: Mapping[str, Any], without: Sequence[str]) -> dict[str, Any]:
    """Return an experiment without the sections that a step does not read.

    A section that the rest refers to is read all the same, as in
    ``dataset/val/transforms: "@/dataset/test/transforms"``.

    Args:
        tree: The experiment after imports and overrides.
        without: Paths of sections, as in ``loader/test``.
    """
    left_out = [tuple(path.split("/")) for path in without]
    while True:
        kept: dict[str, Any] = _pruned(tree, (), left_out)
        targets = [target for target, _ in _references(kept, [])]
        still = [path for path in left_out if not any(_overlap(path, target) for target in targets)]
        if still == left_out:
            return kept
        left_out = still


def project_values(tree: Mapping[str, Any], project: ProjectFolder) -> dict[str, Any]:
    """Return the plain values that an experiment takes from its project by references.

    Args:
        tree: The part of the experiment that is read.
        project: The project.

    Returns:
        Reference, as in ``@/project.n_classes`` -> value.
    """
    found = {}
    for target, attributes in _references(tree, []):
        if target == ["project"] and attributes:
            value: Any = project
            for name in attributes:
                value = getattr(value, name, None)
            if hasattr(value, "model_dump"):
                value = value.model_dump(mode="json")
            # Where the project lies is of no matter; another object says nothing.
            if isinstance(value, int | float | str | list | tuple | dict) and not isinstance(
                value, PurePath
            ):
                found["@/project." + ".".join(attributes)] = value
    return found


def _pruned(node: Any, path: tuple[Key, ...], left_out: Sequence[tuple[str, ...]]) -> Any:
    if not isinstance(node, dict):
        return node
    return {
        key: _pruned(child, (*path, key), left_out)
        for key, child in node.items()
        if (*path, key) not in left_out
    }


def _references(node: Any, path: list[Key]) -> Iterator[tuple[list[Key], list[str]]]:
    """Yield path and attributes of every reference."""
    if is_reference(node):
        try:
            yield parse_reference(node, path)
        except ValueError:
            return  # the check of the experiment reports it
    elif isinstance(node, dict | list):
        for key, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _references(child, [*path, key])


def _overlap(section: tuple[str, ...], target: Sequence[Key]) -> bool:
    """Return whether a reference leads into a section, or to something that contains it."""
    shorter = min(len(section), len(target))
    return [str(key) for key in target[:shorter]] == list(section[:shorter])
