"""The step that fits a small model on the features of a frozen backbone."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from foldsmith.config import Checkpoint, Experiment
from foldsmith.errors import FoldsmithError
from foldsmith.steps.base import Options, Plan, Planner, Step
from foldsmith.steps.checkpoint_choice import UNCHOSEN
from foldsmith.steps.cost import Costs, Trial
from foldsmith.steps.inputs.predictions import frozen_inputs
from foldsmith.steps.kinds.predictions import PASSES, PredictionStep
from foldsmith.steps.manifest import Inputs
from foldsmith.steps.run_records import name_of
from foldsmith.steps.status import StepState
from foldsmith.training.epoch_report import EpochReport
from foldsmith.utils.hashing import FileHashes


class Features(PredictionStep):
    """Frozen features: one backbone for all folds, and per fold a head that is fitted on them."""

    name = "features"
    title = "Experiment"
    frozen = True
    tasks = ("frozen-features",)

    def plan(
        self, experiment: Experiment, output: Path, planner: Planner, checkpoint: Checkpoint
    ) -> tuple[str, ...]:
        needs = planner.add_sources(experiment, checkpoint)
        # No epoch is chosen: one set of results stands for every checkpoint.
        label = f"fit {name_of(experiment)}"
        return (planner.add(Step(self, label, output, needs, experiment, checkpoint=UNCHOSEN)),)

    def gives_probabilities(self, experiment: Experiment, planner: Planner) -> bool:
        from foldsmith.steps.fold_heads import head_of

        try:
            return head_of(experiment, planner.types)[1].gives_probabilities()
        except FoldsmithError as error:
            planner.problems += str(error).splitlines()
            return True

    def inputs(
        self, step: Step, plan: Plan, hashes: FileHashes, weights_may_be_gone: bool = False
    ) -> Inputs:
        assert step.experiment is not None
        return frozen_inputs(step.experiment, plan.types, hashes)

    def run(
        self,
        step: Step,
        plan: Plan,
        state: StepState,
        options: Options,
        listen: Callable[[EpochReport], None],
    ) -> None:
        from foldsmith.steps.features import fit_experiment

        assert step.experiment is not None
        fit_experiment(step.experiment, "auto")

    def images(self, step: Step, costs: Costs) -> tuple[int, int]:
        assert step.experiment is not None
        return 0, PASSES[step.experiment.globals.tta] * (costs.n_train + costs.n_test)

    def try_batch(
        self, experiment: Experiment, types: Mapping[str, Callable[..., Any]]
    ) -> Trial | None:
        from foldsmith.steps.trial_batch import try_features

        return try_features(experiment, types)
