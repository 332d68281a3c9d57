"""The step that blends the predictions of several experiments."""

from collections.abc import Callable, Sequence
from pathlib import Path

from foldsmith.config import Checkpoint, EnsembleSettings, Experiment
from foldsmith.steps.base import Options, Plan, Planner, Step, StepKind
from foldsmith.steps.cost import Costs
from foldsmith.steps.inputs.ensemble import ensemble_inputs
from foldsmith.steps.manifest import Inputs, Manifest, differences, read_manifest
from foldsmith.steps.members import member_hashes, so_far
from foldsmith.steps.run_records import name_of
from foldsmith.steps.status import Status, StepState
from foldsmith.training.epoch_report import EpochReport
from foldsmith.utils.hashing import FileHashes

# Guessed seconds of a blend, and of each of its members.
_BLEND_S, _MEMBER_S = 5.0, 3.0


class Ensemble(StepKind):
    """A blend of experiments that have predicted the same images."""

    name = "ensemble"
    title = "Ensemble"
    tasks = ("ensemble",)
    gathers = True

    def plan(
        self, experiment: Experiment, output: Path, planner: Planner, checkpoint: Checkpoint
    ) -> tuple[str, ...]:
        planner.check(experiment)
        if planner.problems:
            return ()
        settings, needs = _settings(experiment), list[str]()
        for folder in settings.experiments:
            member = planner.making(folder)
            if member is None:
                planner.missing(experiment, "ensemble/experiments", folder, "globals/output_root")
            elif problem := _member_problem(experiment, folder, member, planner):
                planner.problems.append(problem)
            else:
                needs += planner.add_experiment(member, settings.checkpoint)
        label = f"{self.name} {name_of(experiment)}"
        return (planner.add(Step(self, label, output, tuple(needs), experiment)),)

    def checkpoint_of_run(self, experiment: Experiment, asked: Checkpoint) -> Checkpoint:
        return _settings(experiment).checkpoint

    def members(self, experiment: Experiment) -> list[str]:
        return _settings(experiment).experiments

    def inputs(
        self, step: Step, plan: Plan, hashes: FileHashes, weights_may_be_gone: bool = False
    ) -> Inputs:
        assert step.experiment is not None
        return _inputs_of(step.experiment, hashes)

    def state(
        self,
        step: Step,
        plan: Plan,
        inputs: Inputs,
        manifest: Manifest | None,
        hashes: FileHashes,
        weights_may_be_gone: bool = False,
    ) -> StepState:
        if manifest is not None and manifest.facts["waiting"]:
            return StepState(Status.TO_DO, _so_far(manifest))
        return super().state(step, plan, inputs, manifest, hashes, weights_may_be_gone)

    def state_before(
        self,
        step: Step,
        plan: Plan,
        manifest: Manifest | None,
        unfinished: Sequence[str],
        hashes: FileHashes,
        weights_may_be_gone: bool = False,
    ) -> StepState:
        partial = _of_finished(step, plan, unfinished)
        if (
            partial is not None
            and manifest is not None
            and not differences(manifest.inputs, _inputs_of(partial, hashes))
        ):
            return StepState(Status.TO_DO, _so_far(manifest))
        return super().state_before(step, plan, manifest, unfinished, hashes, weights_may_be_gone)

    def run_so_far(self, step: Step, plan: Plan, unfinished: Sequence[str]) -> bool:
        """Blend the finished members, if ``ensemble/anytime`` is set and these are others."""
        assert step.experiment is not None
        if not _settings(step.experiment).anytime:
            return False
        partial = _of_finished(step, plan, unfinished)
        if partial is None:
            return False
        manifest, hashes = read_manifest(self.manifest(step)), FileHashes(plan.project.hash_store)
        if manifest is not None and not differences(manifest.inputs, _inputs_of(partial, hashes)):
            return False
        from foldsmith.steps.ensemble import ensemble_experiment

        finished = set(_settings(partial).experiments)
        members = _settings(step.experiment).experiments
        waiting = [Path(folder).name for folder in members if folder not in finished]
        ensemble_experiment(partial, force=True, waiting=waiting)
        return True

    def run(
        self,
        step: Step,
        plan: Plan,
        state: StepState,
        options: Options,
        listen: Callable[[EpochReport], None],
    ) -> None:
        from foldsmith.steps.ensemble import ensemble_experiment

        assert step.experiment is not None
        ensemble_experiment(step.experiment, force=True)

    def guess_s(self, step: Step, costs: Costs) -> float | None:
        return _BLEND_S + _MEMBER_S * len(step.needs)


def _settings(experiment: Experiment) -> EnsembleSettings:
    return EnsembleSettings.model_validate(experiment.tree["ensemble"])


def _inputs_of(experiment: Experiment, hashes: FileHashes) -> Inputs:
    return ensemble_inputs(experiment, member_hashes(experiment.project, experiment), hashes)


def _of_finished(step: Step, plan: Plan, unfinished: Sequence[str]) -> Experiment | None:
    """Return an ensemble of those members of an ensemble that are finished; None without any.

    Args:
        step: The step of the ensemble.
        plan: Its plan.
        unfinished: Labels of the steps that it needs and that are not done.
    """
    assert step.experiment is not None
    missing = {other.folder.resolve() for other in plan.steps if other.label in unfinished}
    finished = [
        folder
        for folder in _settings(step.experiment).experiments
        if plan.project.path(folder).resolve() not in missing
    ]
    return step.experiment.with_values({"ensemble/experiments": finished}) if finished else None


def _so_far(manifest: Manifest) -> str:
    """Return which members a blend has, of one that waits for others."""
    return so_far(manifest.facts["members"], manifest.facts["waiting"])


def _member_problem(
    experiment: Experiment, folder: str, member: Experiment, planner: Planner
) -> str | None:
    """Return why an ensemble cannot blend an experiment, if so."""
    kind, task = planner.kind_of(member), member.globals.task
    made = f"{experiment.file}: ensemble/experiments: {folder} is made by {member.file.name}"
    if not kind.predicts:
        return f"{made}, a {task} experiment"
    project = planner.project
    if not project.metric.takes_probabilities or kind.gives_probabilities(member, planner):
        return None
    return (
        f"{made}, whose task {task} gives no class probabilities; the project's metric "
        f"{project.metric.title} needs them"
        f"{' where classes have no order' if project.form.unordered else ''}"
    )
