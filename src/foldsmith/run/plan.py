"""The steps that an experiment needs, in the order of their dependencies, from its files."""

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from foldsmith.config import Checkpoint, Experiment
from foldsmith.config.check import check_experiment
from foldsmith.config.named_files import named_files
from foldsmith.config.output_path import (
    EXPERIMENTS,
    check_output,
    clashes,
    output_key,
    output_of,
)
from foldsmith.errors import ConfigError, OutputError
from foldsmith.project import ProjectFolder
from foldsmith.steps.base import Plan, Planner, Step, StepKind
from foldsmith.steps.kinds.preprocess import Preprocess
from foldsmith.steps.kinds.registry import kind_of, names_until, resource_problems
from foldsmith.steps.registry import types_of
from foldsmith.steps.run_records import RESOLVED_CONFIG, read_resolved
from foldsmith.utils.hashing import FileHashes

# An override for some experiments: "1*:globals/max_epoch=2"; the path before "=" has no colon.
_FOR_SOME = re.compile(r"([^:=/]+):([^=]+=.*)", re.DOTALL)


def select(plan: Plan, only: Sequence[str], until: str | None) -> Plan:
    """Return the plan of some experiments, or of the steps up to a kind.

    Args:
        plan: The plan.
        only: Names of experiments, as in ``100``; all if empty.
        until: Name of the last kind of step; all if None.

    Raises:
        ConfigError: The plan has no such experiment, or the kind does not exist.
    """
    names = {step.name for step in plan.steps} - {""}
    unknown = sorted(set(only) - names)
    if unknown:
        raise ConfigError(
            f"--only {','.join(unknown)}: not in the plan (it has: {', '.join(sorted(names))})"
        )
    kinds = names_until(plan.project, until)
    steps = tuple(
        step
        for step in plan.steps
        if step.kind.name in kinds and (not only or not step.name or step.name in only)
    )
    return Plan(plan.project, steps, plan.types)


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


def plan_of_run(project: ProjectFolder, root: Path, checkpoint: Checkpoint) -> Plan:
    """Work out the steps behind a finished run as they were run: from its output folders.

    Today's experiment files are not read; they may be missing.

    Args:
        project: The project.
        root: Output folder of an ensemble, or of one experiment.
        checkpoint: By which snapshots a single experiment was inferred.

    Raises:
        OutputError: The folder holds no run.
    """
    types, hashes = types_of(project), FileHashes(project.hash_store)
    target = read_resolved(project, root)
    checkpoint = kind_of(target).checkpoint_of_run(target, checkpoint)
    found: dict[Path, Experiment] = {}
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        if folder in found or not (folder / RESOLVED_CONFIG).is_file():
            continue
        experiment = read_resolved(project, folder)
        kind = kind_of(experiment)
        experiment = kind.as_run(experiment, folder, checkpoint, types, hashes)
        waiting += [project.path(member) for member in kind.members(experiment)]
        if not kind.gathers:
            files = named_files(experiment.tree).values()
            waiting += [project.path(file).parent for file in files]
        found[folder] = experiment
    experiments = _Experiments(project, [], None, ())
    experiments.loaded += found.values()
    return _Builder(project, experiments).plan_as_run(found[root], checkpoint)


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
    """The experiments of a folder, found by their output folders."""

    def __init__(
        self,
        project: ProjectFolder,
        files: Sequence[Path],
        target: Path | None,
        overrides: Sequence[str],
    ) -> None:
        self.project = project
        self.loaded: list[Experiment] = []
        # A broken file matters only if a dependency is not found elsewhere.
        self.problems: list[str] = []
        for file in files:
            try:
                self.loaded.append(_load(project, file, target, overrides))
            except ConfigError as error:
                self.problems += str(error).splitlines()

    @cached_property
    def _by_output(self) -> dict[Path, list[Experiment]]:
        """The experiments by resolved output folder, kept because resolving a path is slow."""
        found: dict[Path, list[Experiment]] = {}
        for experiment in self.loaded:
            if (output := output_of(experiment)) is not None:
                found.setdefault(output.resolve(), []).append(experiment)
        return found

    def making(self, folder: str) -> Experiment | None:
        """Return the experiment whose output folder this is.

        Raises:
            ConfigError: There are several.
        """
        wanted = self.project.path(folder).resolve()
        found = self._by_output.get(wanted, [])
        if len(found) > 1:
            names = ", ".join(experiment.file.name for experiment in found)
            raise ConfigError(f"{wanted}: is the output folder of several experiments ({names})")
        return found[0] if found else None


class _Builder(Planner):
    """Collects steps, and everything that is wrong with them."""

    def __init__(self, project: ProjectFolder, experiments: _Experiments) -> None:
        self.project = project
        self.experiments = experiments
        self.types = types_of(project)
        self.problems = list(resource_problems(project))
        self.as_run = False
        self.steps: dict[str, Step] = {}
        self.add(Preprocess().step(project))

    def plan(self, targets: Sequence[Experiment]) -> Plan:
        # Experiments that gather others come first: they choose the snapshots of their members.
        for target in sorted(targets, key=lambda target: not self.kind_of(target).gathers):
            # A member of an ensemble is inferred as the ensemble needs it, and not again.
            if not any(step.experiment is target for step in self.steps.values()):
                self.add_experiment(target, "metric")
        planned = [step.experiment for step in self.steps.values() if step.experiment is not None]
        self.problems += clashes(planned, self.experiments.loaded)
        if self.problems:
            raise ConfigError("\n".join(dict.fromkeys(self.problems)))
        return self._made()

    def plan_as_run(self, target: Experiment, checkpoint: Checkpoint) -> Plan:
        """Return the plan of a finished run; missing files show in the state of a step."""
        # Nothing will be written; the records in the output folders are not their owners.
        self.as_run = True
        self.add_experiment(target, checkpoint)
        return self._made()

    def _made(self) -> Plan:
        untrained = self._untrained()
        steps = sorted(
            self.steps.values(), key=lambda step: (step.kind.gathers, step.label not in untrained)
        )
        return Plan(self.project, tuple(steps), self.types)

    def _untrained(self) -> set[str]:
        """Return the labels of the steps without a training in or before them.

        They run first: they take seconds, and a blend of them is a first result.
        """
        found: set[str] = set()
        for step in self.steps.values():  # each after the steps that it needs
            if not step.epochs and found.issuperset(step.needs):
                found.add(step.label)
        return found

    def add(self, step: Step) -> str:
        self.steps.setdefault(step.label, step)
        return step.label

    def add_experiment(self, experiment: Experiment, checkpoint: Checkpoint) -> tuple[str, ...]:
        output = output_of(experiment)
        if output is None:
            self.problems.append(f"{experiment.file}: {output_key(experiment)} is missing")
            return ()
        return self.kind_of(experiment).plan(experiment, output, self, checkpoint)

    def add_sources(self, experiment: Experiment, checkpoint: Checkpoint) -> tuple[str, ...]:
        needs, made = [Preprocess.name], []
        for key, file in named_files(experiment.tree).items():
            source = self.making(str(Path(file).parent))
            if source is None or not self.kind_of(source).gives_files:
                if not self.project.path(file).is_file():
                    self.missing(experiment, key, file, "globals/output_path")
                    made.append(file)
                continue
            made.append(file)
            problem = self.kind_of(source).file_problem(source, Path(file).name)
            if problem:
                self.problems.append(f"{experiment.file}: {key}: {problem}")
            for label in self.add_experiment(source, checkpoint):
                needs.append(label)
                step = self.steps[label]
                wanted = tuple(dict.fromkeys((*step.wanted, Path(file).name)))
                self.steps[label] = replace(step, wanted=wanted)
        self.check(experiment, made)
        return tuple(needs)

    def making(self, folder: str) -> Experiment | None:
        return self.experiments.making(folder)

    def kind_of(self, experiment: Experiment) -> StepKind:
        return kind_of(experiment)

    def check(self, experiment: Experiment, made: Sequence[str] = ()) -> None:
        try:
            check_experiment(experiment, self.types, made)
            if not self.as_run:
                check_output(experiment)
        except (ConfigError, OutputError) as error:
            self.problems += str(error).splitlines()

    def missing(self, experiment: Experiment, key: str, file: str, output: str) -> None:
        # First the files that cannot be read: one of them may make it.
        self.problems += self.experiments.problems
        none = "none of the others" if self.experiments.problems else "none"
        self.problems.append(
            f"{experiment.file}: {key}: {file} is not there and no experiment beside "
            f"{experiment.file.name} makes it ({none} has that {output})"
        )
