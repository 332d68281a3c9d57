"""The steps that an experiment needs, in the order of their dependencies, from its files."""

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foldsmith.config import Criterion, EnsembleSettings, Experiment
from foldsmith.config.backbones import backbone_problem
from foldsmith.config.check import named_files
from foldsmith.config.output_path import (
    EXPERIMENTS,
    check_output,
    clashes,
    output_key,
    output_of,
)
from foldsmith.config.settings import MEMBERS
from foldsmith.errors import ConfigError, FoldsmithError, OutputError
from foldsmith.predictor.member_models import as_inferred
from foldsmith.project import ProjectFolder
from foldsmith.project.resources import KINDS, Kind, Resources
from foldsmith.steps.checkpoint_choice import criterion_for, inference_manifest
from foldsmith.steps.features import head_of
from foldsmith.steps.manifest import read_manifest
from foldsmith.steps.output_folder import RESOLVED_CONFIG, read_resolved
from foldsmith.steps.registry import types_of
from foldsmith.targets.tasks import task_type
from foldsmith.utils.hashing import FileHashes

# An override for some experiments: "1*:globals/max_epoch=2"; the path before "=" has no colon.
_FOR_SOME = re.compile(r"([^:=/]+):([^=]+=.*)", re.DOTALL)


@dataclass(frozen=True)
class Step:
    """One step of a plan.

    Attributes:
        kind: What it is.
        label: Name for people, as in ``train 100 fold 0``.
        folder: Where its output is.
        needs: Labels of the steps that come before it.
        experiment: The experiment; None for preprocessing.
        fold: The fold of a training.
        criterion: Which snapshots are used, for trainings and inferences.
        wanted: Files in its folder that later steps read.
    """

    kind: Kind
    label: str
    folder: Path
    needs: tuple[str, ...] = ()
    experiment: Experiment | None = None
    fold: int | None = None
    criterion: Criterion = "metric"
    wanted: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the experiment, as :func:`name_of`."""
        return name_of(self.experiment) if self.experiment else ""

    @property
    def epochs(self) -> int:
        """Number of epochs, for a pretraining or training; else 0."""
        if self.kind not in ("pretrain", "train") or self.experiment is None:
            return 0
        return self.experiment.globals.max_epoch

    def resources(self, project: ProjectFolder) -> Resources:
        """Return what the step asks of a machine: its experiment's, then its kind's."""
        of_kind = project.settings.resources.get(self.kind, Resources())
        return self.experiment.globals.resources.over(of_kind) if self.experiment else of_kind


@dataclass(frozen=True)
class Plan:
    """The steps of a job, each after those that it needs."""

    project: ProjectFolder
    steps: tuple[Step, ...]
    types: Mapping[str, Callable[..., Any]]

    @property
    def meta_files(self) -> set[str | None]:
        """The fold tables that its experiments name; None for that of preprocess."""
        experiments = (step.experiment for step in self.steps)
        return {experiment.globals.meta_file for experiment in experiments if experiment}

    def select(self, only: Sequence[str], until: Kind | None) -> "Plan":
        """Return the plan of some experiments, or of the steps up to a kind.

        Args:
            only: Names of experiments, as in ``100``; all if empty.
            until: Last kind of step; all if None.

        Raises:
            ConfigError: There is no such experiment in the plan.
        """
        names = {step.name for step in self.steps} - {""}
        unknown = sorted(set(only) - names)
        if unknown:
            raise ConfigError(
                f"--only {','.join(unknown)}: not in the plan (it has: {', '.join(sorted(names))})"
            )
        last = len(KINDS) if until is None else KINDS.index(until)
        chosen = tuple(
            step
            for step in self.steps
            if KINDS.index(step.kind) <= last
            and (not only or step.kind == "preprocess" or step.name in only)
        )
        return Plan(self.project, chosen, self.types)


def plan_of(project: ProjectFolder, config: Path | str, overrides: Sequence[str] = ()) -> Plan:
    """Work out the steps that one experiment needs.

    Args:
        project: The project.
        config: An experiment file of any kind, relative to the project folder. The experiments
            that it needs are looked for beside it.
        overrides: ``PATH=VALUE`` for this file, ``NAMES:PATH=VALUE`` for the experiments whose
            file names (without suffix) fit the pattern, as in ``1*:globals/max_epoch=2``.

    Raises:
        ConfigError: One line per problem of the experiments that are needed, or an output that
            none of them makes.
    """
    path = project.path(config).resolve()
    target = _load(project, path, path, overrides)
    files = sorted(path.parent.glob("*.yml"))
    others = _Experiments(project, [file for file in files if file != path], path, overrides)
    others.loaded.insert(0, target)
    for text in overrides:
        match = _FOR_SOME.fullmatch(text)
        if match is not None and not any(fnmatch.fnmatchcase(f.stem, match[1]) for f in files):
            raise ConfigError(f"override {text!r}: no file in {path.parent} is called {match[1]}")
    return _Builder(project, others).plan([target])


def plan_of_all(project: ProjectFolder, folder: str = EXPERIMENTS) -> Plan:
    """Work out the steps of every experiment in a folder."""
    files = sorted(project.path(folder).glob("*.yml"))
    if not files:
        raise ConfigError(f"{project.path(folder)}: holds no experiment files (*.yml)")
    experiments = _Experiments(project, files, None, ())
    if experiments.problems:
        raise ConfigError("\n".join(experiments.problems))
    return _Builder(project, experiments).plan(experiments.loaded)


def plan_of_run(project: ProjectFolder, root: Path, criterion: Criterion) -> Plan:
    """Work out the steps behind a finished run as they were run: from its output folders.

    What an experiment file says today does not matter, nor whether it is still there.

    Args:
        project: The project.
        root: Output folder of an ensemble, or of one experiment.
        criterion: By which snapshots a single experiment was inferred.

    Raises:
        OutputError: The folder holds no run.
    """
    types, hashes = types_of(project), FileHashes(project.hash_store)
    target = read_resolved(project, root)
    if target.globals.task == "ensemble":
        criterion = EnsembleSettings.model_validate(target.tree["ensemble"]).criterion
    found: dict[Path, Experiment] = {}
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        if folder in found or not (folder / RESOLVED_CONFIG).is_file():
            continue
        experiment = read_resolved(project, folder)
        if experiment.globals.task == "ensemble":
            members = EnsembleSettings.model_validate(experiment.tree["ensemble"]).experiments
            waiting += [project.path(member) for member in members]
        else:
            label = criterion_for(experiment.globals.task, criterion)
            manifest = read_manifest(inference_manifest(folder, label))
            if manifest is not None:
                experiment = as_inferred(experiment, manifest, types, hashes)
            files = named_files(experiment.tree).values()
            waiting += [project.path(file).parent for file in files]
        found[folder] = experiment
    experiments = _Experiments(project, [], None, ())
    experiments.loaded += found.values()
    return _Builder(project, experiments).plan_as_run(found[root], criterion)


def name_of(experiment: Experiment) -> str:
    """Return the name of an experiment: that of its file without the suffix.

    Of one that was read from an output folder, that of the folder, relative to the project.
    """
    file = experiment.file
    if file.name != RESOLVED_CONFIG:
        return file.stem
    folder, project = file.parent, experiment.project.folder
    return str(folder.relative_to(project) if folder.is_relative_to(project) else folder)


def experiment_making(project: ProjectFolder, folder: Path) -> Experiment | None:
    """Return the experiment of ``exp_config`` whose output folder this is, if there is one."""
    files = sorted(project.path(EXPERIMENTS).glob("*.yml"))
    try:
        return _Experiments(project, files, None, ()).making(str(folder))
    except ConfigError:
        return None  # several


def overrides_for(file: Path, target: Path | None, overrides: Sequence[str]) -> list[str]:
    """Return the overrides that are meant for one experiment file, without their pattern."""
    chosen = []
    for text in overrides:
        match = _FOR_SOME.fullmatch(text)
        if match is None and file == target:
            chosen.append(text)
        elif match is not None and fnmatch.fnmatchcase(file.stem, match[1]):
            chosen.append(match[2])
    return chosen


def _load(
    project: ProjectFolder, file: Path, target: Path | None, overrides: Sequence[str]
) -> Experiment:
    def overrides_of(other: Path) -> list[str]:
        return overrides_for(other, target, overrides)

    return Experiment.load(project, file, overrides_of(file), overrides_of)


class _Experiments:
    """The experiments of a folder, found by what they make."""

    def __init__(
        self,
        project: ProjectFolder,
        files: Sequence[Path],
        target: Path | None,
        overrides: Sequence[str],
    ) -> None:
        self.project = project
        self.loaded: list[Experiment] = []
        # A broken file matters only if what is needed is not found elsewhere.
        self.problems: list[str] = []
        for file in files:
            try:
                self.loaded.append(_load(project, file, target, overrides))
            except ConfigError as error:
                self.problems += str(error).splitlines()

    def making(self, folder: str) -> Experiment | None:
        """Return the experiment whose output folder this is.

        Raises:
            ConfigError: There are several.
        """
        wanted = self.project.path(folder).resolve()
        found = [
            experiment
            for experiment in self.loaded
            if (output := output_of(experiment)) is not None and output.resolve() == wanted
        ]
        if len(found) > 1:
            names = ", ".join(experiment.file.name for experiment in found)
            raise ConfigError(f"{wanted}: is the output folder of several experiments ({names})")
        return found[0] if found else None


class _Builder:
    """Collects steps, and everything that is wrong with them."""

    def __init__(self, project: ProjectFolder, experiments: _Experiments) -> None:
        self.project = project
        self.experiments = experiments
        self.types = types_of(project)
        self.needs_probabilities = project.metric.takes_probabilities
        self.problems: list[str] = []
        self.as_run = False
        self.steps: dict[str, Step] = {
            "preprocess": Step("preprocess", "preprocess", project.data_dir)
        }

    def plan(self, targets: Sequence[Experiment]) -> Plan:
        # Ensembles first: they say which snapshots their members are inferred from.
        for target in sorted(targets, key=lambda t: t.globals.task != "ensemble"):
            # A member of an ensemble is inferred as that wants it, and not once more.
            if not any(step.experiment is target for step in self.steps.values()):
                self._add(target, "metric")
        planned = [step.experiment for step in self.steps.values() if step.experiment is not None]
        self.problems += clashes(planned, self.experiments.loaded)
        if self.problems:
            raise ConfigError("\n".join(dict.fromkeys(self.problems)))
        return self._made()

    def plan_as_run(self, target: Experiment, criterion: Criterion) -> Plan:
        """Return the plan of what was run; what is gone since shows in the state of a step."""
        # Nothing will be written; the records in the output folders are not their owners.
        self.as_run = True
        self._add(target, criterion)
        return self._made()

    def _made(self) -> Plan:
        steps = sorted(self.steps.values(), key=lambda step: step.kind == "ensemble")
        return Plan(self.project, tuple(steps), self.types)

    def _add(self, experiment: Experiment, criterion: Criterion) -> tuple[str, ...]:
        """Add an experiment's steps and those before it; return the labels of its last ones."""
        task = experiment.globals.task
        output = output_of(experiment)
        if output is None:
            self.problems.append(f"{experiment.file}: {output_key(experiment)} is missing")
            return ()
        if task == "ensemble":
            return self._add_ensemble(experiment, output)
        if task == "self-supervised":
            self._check(experiment, ())
            label = f"pretrain {name_of(experiment)}"
            self.steps.setdefault(
                label, Step("pretrain", label, output, ("preprocess",), experiment)
            )
            return (label,)
        needs = self._add_sources(experiment, criterion)
        if task == "frozen-features":
            label = f"fit {name_of(experiment)}"
            step = Step(
                *("infer", label, output, needs, experiment),
                criterion=criterion_for(task, criterion),
            )
            self.steps.setdefault(label, step)
            return (label,)
        return self._add_fine_tuning(experiment, output, criterion, needs)

    def _add_ensemble(self, experiment: Experiment, output: Path) -> tuple[str, ...]:
        self._check(experiment, ())
        if self.problems:
            return ()
        settings = EnsembleSettings.model_validate(experiment.tree["ensemble"])
        needs: list[str] = []
        for folder in settings.experiments:
            member = self.experiments.making(folder)
            if member is None:
                self._missing(experiment, "ensemble/experiments", folder, "globals/output_root")
            elif member.globals.task not in MEMBERS:
                self.problems.append(
                    f"{experiment.file}: ensemble/experiments: {folder} is made by "
                    f"{member.file.name}, a {member.globals.task} experiment"
                )
            elif self.needs_probabilities and not self._gives_probabilities(member):
                self.problems.append(
                    f"{experiment.file}: ensemble/experiments: {folder} is made by "
                    f"{member.file.name}, whose task {member.globals.task} gives no class "
                    f"probabilities; the project's metric {self.project.settings.metric} needs them"
                    f"{' where classes have no order' if self.project.class_names else ''}"
                )
            else:
                needs += self._add(member, settings.criterion)
        label = f"ensemble {name_of(experiment)}"
        self.steps[label] = Step("ensemble", label, output, tuple(needs), experiment)
        return (label,)

    def _gives_probabilities(self, member: Experiment) -> bool:
        if member.globals.task != "frozen-features":
            return task_type(member.globals.task, self.project).gives_probabilities()
        try:
            return head_of(member, self.types)[1].gives_probabilities()
        except FoldsmithError as error:
            self.problems += str(error).splitlines()
            return True

    def _add_sources(self, experiment: Experiment, criterion: Criterion) -> tuple[str, ...]:
        """Add the pretrainings whose files an experiment names; return what comes before it."""
        needs, made = ["preprocess"], []
        for key, file in named_files(experiment.tree).items():
            source = self.experiments.making(str(Path(file).parent))
            if source is None or source.globals.task != "self-supervised":
                if not self.project.path(file).is_file():
                    self._missing(experiment, key, file, "globals/output_path")
                    made.append(file)
                continue
            made.append(file)
            self._check_backbone(experiment, key, Path(file).name, source)
            for label in self._add(source, criterion):
                needs.append(label)
                step = self.steps[label]
                wanted = tuple(dict.fromkeys((*step.wanted, Path(file).name)))
                self.steps[label] = Step(**(vars(step) | {"wanted": wanted}))
        self._check(experiment, made)
        return tuple(needs)

    def _add_fine_tuning(
        self, experiment: Experiment, output: Path, criterion: Criterion, needs: tuple[str, ...]
    ) -> tuple[str, ...]:
        if criterion == "common" and experiment.globals.snapshot_epochs != "all":
            self.problems.append(
                f"{experiment.file}: globals/snapshot_epochs: must be all, since an ensemble takes "
                "its epoch by the criterion common"
            )
        stem = name_of(experiment)
        folds = []
        for fold in range(self.project.n_splits):
            label = f"train {stem} fold {fold}"
            folds.append(label)
            self.steps.setdefault(
                label,
                Step(
                    *("train", label, output / f"fold{fold}", needs, experiment),
                    fold=fold,
                    criterion=criterion,
                ),
            )
        # An experiment in two ensembles with other criteria is inferred by both.
        by = "" if criterion == "metric" else f" by {criterion}"
        label = f"infer {stem}{by}"
        self.steps.setdefault(
            label, Step("infer", label, output, tuple(folds), experiment, criterion=criterion)
        )
        return (label,)

    def _check(self, experiment: Experiment, made: Sequence[str]) -> None:
        try:
            experiment.check(self.types, made)
            if not self.as_run:
                check_output(experiment)
        except (ConfigError, OutputError) as error:
            self.problems += str(error).splitlines()

    def _check_backbone(
        self, experiment: Experiment, key: str, name: str, source: Experiment
    ) -> None:
        """Make sure that a pretraining writes the backbone that a fine-tuning starts from."""
        problem = backbone_problem(name, source.file.name, source.tree, source.globals)
        if problem:
            self.problems.append(f"{experiment.file}: {key}: {problem}")

    def _missing(self, experiment: Experiment, key: str, what: str, output: str) -> None:
        # First the files that cannot be read: one of them may make it.
        self.problems += self.experiments.problems
        none = "none of the others" if self.experiments.problems else "none"
        self.problems.append(
            f"{experiment.file}: {key}: {what} is not there and no experiment beside "
            f"{experiment.file.name} makes it ({none} has that {output})"
        )
