"""The experiment file: imports, overrides, the resolved tree, and building its components.

The syntax is the Config System of pytorch-pfn-extras: ``type:`` names a registered callable,
``@/path`` and ``@../path.attribute`` refer to other values, ``import:`` takes another file
(:mod:`foldsmith.config.imports`).
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from foldsmith.config.backbones import picked_backbone, source_of
from foldsmith.config.imports import read_with_imports
from foldsmith.config.lazy_types import LazyTypes
from foldsmith.config.named_items import LIST_TYPE, as_calls, as_lists, listed
from foldsmith.config.overrides import apply_override
from foldsmith.config.references import private_attributes, walk_path
from foldsmith.config.settings import MEMBERS, Globals
from foldsmith.config.wiring import wired
from foldsmith.errors import ConfigError, FoldsmithError, one_line
from foldsmith.project.budget import within_budget
from foldsmith.project.project_file import ProjectFolder
from foldsmith.project.validation import validation_message
from foldsmith.utils.yaml_io import dump_yaml

if TYPE_CHECKING:
    from pytorch_pfn_extras.config import Config

Types = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True)
class Context:
    """Objects that components refer to beside the tree, as in ``@/images``.

    The project is added when an experiment is built (:meth:`Experiment.build`).

    Attributes:
        images: Store of decoded images; None to build components without images.
        runtime: Device and precision; None to build components without a device.
        task: How targets become outputs of a model; None if nothing is learned from them.
    """

    images: Any = None
    runtime: Any = None
    task: Any = None


class Experiment:
    """An experiment file after imports and overrides, not yet built.

    Attributes:
        project: The project it belongs to.
        file: The experiment file.
        tree: Plain dicts, lists and scalars; references are still references.
        globals: The section ``globals``, checked, defaults filled in.
        sources: The experiment file and every file it imports.
    """

    def __init__(self, project: ProjectFolder, file: Path, tree: dict[str, Any]) -> None:
        self.project = project
        self.file = file
        self.sources: list[Path] = [file]
        section = tree.get("globals", {})
        try:
            self.globals = Globals.model_validate(section)
        except ValidationError as error:
            raise ConfigError(validation_message(f"{file}: globals", error, Globals)) from None
        self.tree = {"globals": self.globals.model_dump()}
        self.tree |= {key: value for key, value in tree.items() if key != "globals"}
        private = [
            f"{file}: {path}: {text}: an attribute that begins with _ is not for experiments"
            for path, text in private_attributes(self.tree)
        ]
        if private:
            raise ConfigError("\n".join(private))

    @classmethod
    def load(
        cls,
        project: ProjectFolder,
        file: Path,
        overrides: Sequence[str] = (),
        overrides_of: Callable[[Path], Sequence[str]] = lambda _: (),
    ) -> "Experiment":
        """Read an experiment file.

        A backbone that it takes from another experiment (``{from: 000, pick: best_probe}``)
        becomes the path of the file.

        Args:
            project: The project.
            file: Path of the file, absolute or relative to the project folder.
            overrides: ``PATH=VALUE`` each, the value in YAML.
            overrides_of: The overrides with which another experiment file is run.

        Raises:
            ConfigError: A file is missing or wrong, an override fits nothing, or the other
                experiment does not leave such a backbone.
        """
        experiment = cls._read(project, file, overrides)
        model = experiment.tree.get("model")
        pick = model.get("pretrained") if isinstance(model, dict) else None
        if isinstance(model, dict) and isinstance(pick, dict):
            try:
                source_file = source_of(pick, experiment.file)
                source = cls._read(project, source_file, overrides_of(source_file))
                model["pretrained"] = picked_backbone(
                    pick, source_file.name, source.tree, source.globals
                )
            except ConfigError as error:
                raise ConfigError(f"{experiment.file}: model/pretrained: {error}") from None
        return experiment

    @classmethod
    def _read(cls, project: ProjectFolder, file: Path, overrides: Sequence[str]) -> "Experiment":
        """Read an experiment file as it stands, imports and overrides applied."""
        path = project.path(file)
        if not path.is_file():
            raise ConfigError(f"{path}: no such experiment file")
        tree, sources = read_with_imports(path)
        if not isinstance(tree, dict):
            raise ConfigError(f"{path}: must be a list of 'key: value' lines")
        try:
            tree = within_budget(tree, project.settings.budget)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
        # Defaults first, so that an override may name a global that no file sets.
        if isinstance(tree.get("globals"), dict):
            defaults = {
                name: copy.deepcopy(field.default)
                for name, field in Globals.model_fields.items()
                if not field.is_required()
            }
            tree["globals"] = defaults | tree["globals"]
        for text in overrides:
            apply_override(tree, text)
        _take_class_weights(tree, project)
        experiment = cls(project, path, tree)
        experiment.sources = sources
        return experiment

    def with_values(self, values: Mapping[str, Any]) -> "Experiment":
        """Return a copy with other values.

        Args:
            values: Path such as ``globals/val_fold`` -> value; the items of a list have numbers.
        """
        tree = copy.deepcopy(self.tree)
        for path, value in values.items():
            *parents, last = [int(key) if key.isdigit() else key for key in path.split("/")]
            walk_path(tree, parents)[last] = value
        changed = Experiment(self.project, self.file, tree)
        changed.sources = self.sources
        return changed

    def within(self, project: ProjectFolder) -> "Experiment":
        """Return a copy for another project, its own fold table included."""
        moved = Experiment(project, self.file, copy.deepcopy(self.tree))
        moved.sources = self.sources
        return moved.with_values({"globals/meta_file": None})

    @property
    def wired(self) -> dict[str, Any]:
        """The tree with the arguments that components get from it written out.

        Raises:
            ConfigError: A component is to come before one that is not there.
        """
        try:
            return wired(self.tree, self.project.types)
        except ConfigError as error:
            raise ConfigError(f"{self.file}: {error}") from None

    def written_out(self) -> "Experiment":
        """Return a copy with every argument in its tree, and lists in place of names."""
        copied = Experiment(self.project, self.file, as_lists(self.wired))
        copied.sources = self.sources
        return copied

    def build(self, types: Types, context: Context | None = None) -> "Components":
        """Return the components of the experiment, each built when it is first asked for.

        Args:
            types: Every callable that a ``type:`` may name.
            context: Objects that components refer to beside the tree and the project.
        """
        # The package imports torch, which reading and checking an experiment does not need.
        from pytorch_pfn_extras.config import Config

        beside = {"project": self.project, **vars(context or Context())}
        return Components(self.file, Config(as_calls(self.wired) | beside, _with_lists(types)))

    def dump(self) -> str:
        """Return the resolved experiment as YAML, which :meth:`load` reads again."""
        return dump_yaml(self.tree, compact=True)


def _take_class_weights(tree: dict[str, Any], project: ProjectFolder) -> None:
    """Let an experiment that learns targets have the class weights of its project."""
    section = tree.get("globals")
    if (
        isinstance(section, dict)
        and section.get("task") in MEMBERS
        and section.get("class_weights") is None
        and project.settings.class_weights is not None
    ):
        section["class_weights"] = copy.deepcopy(project.settings.class_weights)


class Components:
    """Components of one experiment: ``components["loader/train"]`` builds one, once."""

    def __init__(self, file: Path, config: "Config") -> None:
        self._file = file
        self._config = config

    def __getitem__(self, path: str) -> Any:
        try:
            return self._config["/" + path]
        except FoldsmithError as error:
            raise type(error)(f"{self._file}: {path}: {error}") from error
        except (TypeError, ValueError, KeyError, RuntimeError, AttributeError) as error:
            # The Config System appends its own account to the arguments of the error.
            reason, *trace = error.args or (type(error).__name__,)
            where = f" [{one_line(trace[-1])}]" if trace else ""
            raise ConfigError(f"{self._file}: {path}: {one_line(reason)}{where}") from error

    def ensure(self, *paths: str) -> None:
        """Build components now, in this order, if nothing has asked for them before.

        Args:
            *paths: Paths of components.

        Raises:
            ConfigError: A component cannot be built.
        """
        for path in paths:
            self[path]


def _with_lists(types: Types) -> Types:
    """Return types with the one that named components are built by; none of them is imported."""
    return LazyTypes(types) | {LIST_TYPE: listed}
