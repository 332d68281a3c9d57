"""The step that blends the predictions of several experiments."""

from collections.abc import Callable
from pathlib import Path

from foldsmith.config import Checkpoint, EnsembleSettings, Experiment
from foldsmith.steps.base import Options, Plan, Planner, Step, StepKind, name_of
from foldsmith.steps.cost import Costs
from foldsmith.steps.fingerprint import ensemble_inputs
from foldsmith.steps.manifest import Inputs
from foldsmith.steps.members import member_hashes
from foldsmith.steps.status import StepState
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
        return ensemble_inputs(
            step.experiment, member_hashes(plan.project, step.experiment), hashes
        )

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
        f"{project.settings.metric} needs them"
        f"{' where classes have no order' if project.class_names else ''}"
    )
